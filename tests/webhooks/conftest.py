"""One installation for all tests of deliveries: web, worker and webhooks, a real target, a schedule in a hurry."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.support.front import ROLE_TOKENS, Front, digest
from tests.support.installation import Installation
from tests.support.own_target import OwnTarget, ok
from tests.support.receiver import Receiver, accepts
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

SECRET = "whsec_" + base64.b64encode(b"a secret of the webhook tests...").decode()
KEY = "a-key-id:and-its-secret-part"
OLD_SECRET = "whsec_" + base64.b64encode(b"the one that was used before it.").decode()


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
def shared_receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Iterator[Receiver]:
    """A test sets what it answers."""
    shared_receiver.deliveries.clear()
    yield shared_receiver
    shared_receiver.act = accepts


@pytest.fixture(scope="package")
def front(shared_target: Target, shared_own_target: OwnTarget) -> Iterator[Front]:
    services_toml = f"""
        [defaults]
        allow_unlisted = false
        retry_delay_s = 0
        [services]
        demo = {{ aliases = ["acme/demo"] }}
        single = {{ max_concurrency = 1, aliases = ["acme/single"] }}
        nowhere = {{ target_url = "http://127.0.0.1:{free_port()}/", max_attempts = 1, aliases = ["acme/nowhere"] }}
        [services.own]
        target_url = "{shared_own_target.url}/{{path}}"
        max_attempts = 1
        retry_on = [503]
        aliases = ["acme/own"]
        [tokens]
        "{digest(KEY)}" = {{}}
    """
    for role, token in ROLE_TOKENS.items():
        services_toml += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    server = RedisServer().start()
    settings = {
        "sweep_s": 0.1,
        "webhook_secret": f"{SECRET},{OLD_SECRET}",
        "webhook_allow_private": "true",
        "webhook_timeout_s": 1,
        "webhook_retry_delays_s": "0.1,0.2,0.2",
        "public_base_url": "http://queue.example",
    }
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
            installation.worker("gevent", 100)
            installation.webhooks()
            client = Front(installation, shared_target, server)
            yield client
            client.close()
    finally:
        server.stop()
