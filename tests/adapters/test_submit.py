"""The engine refuses at the submit what the service's adapter can't translate."""

from __future__ import annotations

import pytest

from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import State, Submission
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.store import Store
from tests.adapters.bodies import asample


@pytest.fixture
def engine(store: Store) -> Engine:
    """Any service name, each with the adapter, but for `plain`."""
    adapted = ServiceSettings(target_url="http://127.0.0.1:9", adapter="openai_completions")
    plain = ServiceSettings(target_url="http://127.0.0.1:9")
    return Engine(store, Services({"plain": plain}, adapted, allow_unlisted=True, result_ttl_s=3600))


def test_what_can_be_translated_is_kept_as_it_came(engine: Engine) -> None:
    body = asample() + b"  "

    receipt = engine.submit("qwen", Submission(body))

    assert engine.look("qwen", receipt.request_id).state is State.QUEUED
    assert engine.submitted(engine.look("qwen", receipt.request_id))[1] == body


def test_what_cannot_be_is_refused_with_the_place_and_not_even_its_service_is_made(engine: Engine) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"service qwen: prompt\.chunks\[0\] is of type 'image'"):
        engine.submit("qwen", Submission(asample(prompt={"chunks": [{"type": "image"}]})))

    assert list(engine.store.client.redis.scan_iter("*{qwen}*")) == []


def test_a_service_without_an_adapter_takes_anything(engine: Engine) -> None:
    assert engine.submit("plain", Submission(b"\xff")).request_id


def test_what_is_for_takers_is_never_forwarded_so_never_translated(engine: Engine) -> None:
    engine.takes.enroll("tasks", "")

    assert engine.submit("tasks", Submission(b"anything", only_pull=True)).request_id
