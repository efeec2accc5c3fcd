"""An id alone finds its request, also after the server has lost what numbers meant."""

from __future__ import annotations

import pytest

from eas_queue.engine import errors, ids
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.store import Store


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(store, Services({}, ServiceSettings(), allow_unlisted=True, result_ttl_s=3600))


def submit(engine: Engine, service: str) -> str:
    return engine.submit(service, Submission(b"{}")).request_id


def test_an_id_names_its_service(engine: Engine) -> None:
    found = {name: submit(engine, name) for name in ("a", "b")}

    assert {name: engine.service_of(request_id) for name, request_id in found.items()} == {"a": "a", "b": "b"}
    for unknown in (ids.new_id(65_535), "a", ""):
        with pytest.raises(errors.RequestNotFound):
            engine.service_of(unknown)


def test_a_server_without_its_data_gives_the_numbers_anew(engine: Engine) -> None:
    before = submit(engine, "a"), submit(engine, "b")
    assert [engine.service_of(request_id) for request_id in before] == ["a", "b"]

    engine.store.client.redis.flushall()
    after = submit(engine, "b"), submit(engine, "a")

    assert [ids.service_number(request_id) for request_id in before] == [1, 2]
    assert [ids.service_number(request_id) for request_id in after] == [1, 2]
    assert [engine.service_of(request_id) for request_id in after] == ["b", "a"]
    for request_id in after:
        assert engine.look(engine.service_of(request_id), request_id).request_id == request_id
