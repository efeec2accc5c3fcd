"""One installation for all tests of the routes: gunicorn with four processes, a greenlet worker, a real target."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.front import (
    LIMITED_TOKEN,
    MAX_PAYLOAD_BYTES,
    MAX_WAIT_S,
    RATED_TOKEN,
    READER_TOKEN,
    ROLE_TOKENS,
    Front,
    OddTarget,
    digest,
)
from tests.support.installation import Installation
from tests.support.own_target import OwnTarget, ok
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target


@pytest.fixture(scope="package")
def shared_own_target() -> Iterator[OwnTarget]:
    target = OwnTarget()
    yield target
    target.stop()


@pytest.fixture
def own_target(shared_own_target: OwnTarget) -> Iterator[OwnTarget]:
    """The target of the service `own`; a test sets what it does."""
    yield shared_own_target
    shared_own_target.act = ok


@pytest.fixture(scope="package")
def front(shared_target: Target, shared_own_target: OwnTarget) -> Iterator[Front]:
    odd_target = OddTarget()
    services_toml = f"""
        [defaults]
        allow_unlisted = false
        retry_delay_s = 0
        [services]
        demo = {{}}
        other = {{}}
        indexed = {{ submit_body = "index" }}
        single = {{ max_concurrency = 1 }}
        narrow = {{ max_concurrency = 1, max_queue_length = 2 }}
        urgent = {{ max_concurrency = 1, deadline_s = 0.2 }}
        patient = {{ retry_delay_s = 60 }}
        hasty = {{ timeout_s = 0.2, max_attempts = 1 }}
        nowhere = {{ target_url = "http://127.0.0.1:{free_port()}/", max_attempts = 1 }}
        odd = {{ target_url = "{odd_target.url}/{{path}}" }}
        own = {{ target_url = "{shared_own_target.url}/{{path}}", max_attempts = 1, retry_on = [503] }}
        aside = {{ target_url = "{shared_own_target.url}/{{path}}", max_attempts = 1, retry_on = [503] }}
        idle = {{}}
        held = {{ max_sink_length = 2, sink_full = "hold" }}
        [tokens]
        "{digest(RATED_TOKEN)}" = {{ rate_per_s = 0.5, burst = 3 }}
        "{digest(LIMITED_TOKEN)}" = {{ services = ["demo"] }}
        "{digest(READER_TOKEN)}" = {{ roles = ["read"] }}
    """
    for role, token in ROLE_TOKENS.items():
        services_toml += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    server = RedisServer().start()
    settings = {"max_payload_bytes": MAX_PAYLOAD_BYTES, "max_wait_s": MAX_WAIT_S, "sweep_s": 0.1}
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "4", "-b", f"127.0.0.1:{installation.port}")
            installation.worker("gevent", 100)
            client = Front(installation, shared_target, server)
            yield client
            client.close()
    finally:
        odd_target.shutdown()
        odd_target.server_close()
        server.stop()
