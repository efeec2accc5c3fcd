"""What goes wrong, and what clients of Tinker's API give up, as their users see it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.installation import await_condition
from tests.support.proxy import Proxy
from tests.support.tinker_sdk import TINKER, TINKER_022, House, Sampler, Sdk, TinkerError, house

PROMPT = [11, 22, 33]
TOKENS = [12, 23]
LATE_S = 1.0
RETRIES_S = 40.0  # they come again after 1, 2, 4, 8 .. s
AT_ONCE_S = 10.0  # clients repeat what looks worth it for minutes


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house(TINKER, TINKER_022) as made:
        yield made


@pytest.fixture(params=[TINKER, TINKER_022])
def sdk(place: House, request: pytest.FixtureRequest) -> Sdk:
    return place.sdk(request.param)


@pytest.fixture
def newest(place: House) -> Sdk:
    return place.sdk(TINKER)


@pytest.fixture
def model(place: House) -> str:
    return place.model()


@pytest.fixture
def sampler(newest: Sdk, model: str) -> Sampler:
    return newest.sampler(model)


@pytest.fixture
def name(place: House) -> Iterator[str]:
    """What a call is held by, until the test ends."""
    made = uuid.uuid4().hex
    yield made
    place.target.release(made)


def tokens(found: dict[str, Any]) -> list[int]:
    [sequence] = found["sequences"]
    return list(sequence["tokens"])


# ------------------------------------------------------------------------------------------------------------- cancel


def assert_cancelled(place: House, sdk: Sdk, request_id: str) -> None:
    await_condition(lambda: place.target.is_abandoned(request_id), what="the target's caller is gone")
    assert sdk.raw_end(request_id) == {"error": "cancelled by client", "category": "user", "request_id": request_id}


def test_cancelling_a_future_ends_the_call_of_its_target(
    place: House, newest: Sdk, sampler: Sampler, name: str
) -> None:
    future = sampler.future(PROMPT, f"hold {name}")
    request_id = place.target.await_held(name)

    assert newest.call("cancel", on=future) is True

    assert_cancelled(place, newest, request_id)
    assert tokens(sampler.sample(PROMPT)) == TOKENS  # the slot is free again
    with pytest.raises(TinkerError, match="CancelledError"):
        newest.call("result", on=future)


def test_giving_up_after_a_time_cancels(place: House, newest: Sdk, sampler: Sampler, name: str) -> None:
    future = sampler.future(PROMPT, f"hold {name}")
    request_id = place.target.await_held(name)

    with pytest.raises(TinkerError, match="TimeoutError"):
        newest.call("result_async", on=future, timeout=0.2)

    assert_cancelled(place, newest, request_id)
    assert tokens(sampler.sample(PROMPT)) == TOKENS


def test_what_is_cancelled_while_it_waits_never_reaches_the_target(
    place: House, newest: Sdk, sampler: Sampler, name: str, model: str
) -> None:
    first = sampler.begin([1], f"hold {name}")
    place.target.await_held(name)
    before = len(place.wire("cancel_future"))
    future = sampler.future([2])
    with pytest.raises(TinkerError, match="TimeoutError"):
        newest.call("result", on=future, timeout=0.3)  # by then it has been submitted, and is asked for

    newest.call("cancel", on=future)
    await_condition(lambda: len(place.wire("cancel_future")) > before, what="it is cancelled")
    third = sampler.begin([3])
    place.target.release(name)

    assert (tokens(first.result()), tokens(third.result())) == ([2], [4])
    prompts = [json.loads(call.body)["prompt"]["chunks"][0]["tokens"] for call in place.target.calls(model=model)]
    assert prompts == [[1], [3]]


# ------------------------------------------------------------------------------------------------------------ failure


@pytest.mark.parametrize(
    ("answer", "category", "said"),
    [
        ('422 {"detail": "prompt too long"}', "user", "prompt too long"),
        ("400 no such stop", "user", "no such stop"),
        ('500 {"detail": "out of memory"}', "server", "500"),
        ("503 busy", "server", "503"),
    ],
)
def test_an_error_of_the_target_is_a_failed_request(
    place: House, sdk: Sdk, model: str, answer: str, category: str, said: str
) -> None:
    began = time.monotonic()

    with pytest.raises(TinkerError) as caught:
        sdk.sampler(model).sample(PROMPT, f"answer {answer}")

    assert time.monotonic() - began < AT_ONCE_S
    assert caught.value.name == "RequestFailedError"
    assert caught.value.facts["category"].lower() == category
    assert said in caught.value.facts["text"]
    assert caught.value.facts["request_id"] == place.target.calls(model=model)[-1].headers["x-request-id"]


def test_a_target_that_is_not_there_is_the_servers_fault(sdk: Sdk) -> None:
    with pytest.raises(TinkerError) as caught:
        sdk.sampler("acme/gone").sample(PROMPT)

    assert (caught.value.name, caught.value.facts["category"].lower()) == ("RequestFailedError", "server")
    assert "gone" in caught.value.facts["text"]


@pytest.mark.parametrize("answer", ["[1, 2]", '{"text": "hello"}', '{"sequences": []}', "hello", '{"sequences": 1}'])
def test_what_is_no_sample_is_the_servers_fault(newest: Sdk, sampler: Sampler, model: str, answer: str) -> None:
    with pytest.raises(TinkerError) as caught:
        sampler.sample(PROMPT, f"answer 200 {answer}")

    assert (caught.value.name, caught.value.facts["category"].lower()) == ("RequestFailedError", "server")
    assert model.partition("/")[2] in caught.value.facts["text"]


@pytest.mark.parametrize("answer", ["[1, 2.50]", '"text"', "null"])
def test_the_low_level_client_gets_whatever_json_it_is(newest: Sdk, sampler: Sampler, answer: str) -> None:
    request_id = newest.raw_sample(sampler.session, 1, PROMPT, f"answer 200 {answer}")["request_id"]

    assert newest.raw_end(request_id) == {"result": json.loads(answer), "request_id": request_id}


def test_a_wrong_key_is_refused_at_once(sdk: Sdk) -> None:
    began = time.monotonic()
    for call in (
        lambda: sdk.sampler("Qwen/Qwen3-0.6B", key="tml-wrong"),
        lambda: sdk.call("raw_session", model="Qwen/Qwen3-0.6B", key="tml-wrong"),
    ):
        with pytest.raises(TinkerError) as caught:
            call()
        assert (caught.value.name, caught.value.facts["status_code"]) == ("AuthenticationError", 401)
    assert time.monotonic() - began < AT_ONCE_S


def test_training_is_refused_at_once(sdk: Sdk, newest: Sdk, model: str) -> None:
    began = time.monotonic()

    with pytest.raises(TinkerError) as high:
        sdk.call("train", model=model)
    with pytest.raises(TinkerError) as low:
        sdk.call("raw_train", model=model)

    assert time.monotonic() - began < AT_ONCE_S
    names = ("NotFoundError" if sdk is newest else "InternalServerError", "InternalServerError")
    assert (high.value.name, low.value.name) == names
    for caught in (high.value, low.value):
        assert "train" in caught.facts["body"]["detail"]


# --------------------------------------------------------------------------------------------------------- full queue


def test_a_full_queue_is_said_and_waited_for(place: House, sdk: Sdk, newest: Sdk, name: str) -> None:
    sampler = sdk.sampler("acme/small")
    first = sampler.begin([1], f"hold {name}")
    place.target.await_held(name)
    newest.raw_sample(sampler.session, 1_000, [2])
    before = len(refused(place))

    with pytest.raises(TinkerError) as caught:
        sdk.raw_sample(sampler.session, 2_000, [3], max_retries=0)
    await_condition(lambda: len(refused(place)) > before, what="that is in the log")
    before = len(refused(place))
    third = sampler.begin([4])
    await_condition(lambda: len(refused(place)) > before, what="the high-level client is told")
    fourth = sdk.tell("raw_sample", session=sampler.session, seq_id=3_000, prompt=[5], params={"max_tokens": 1})
    await_condition(lambda: any(int(retry) for retry in refused(place)[before:]), what="the low-level one comes again")
    place.target.release(name)

    assert (caught.value.name, caught.value.facts["status_code"]) == ("RateLimitError", 429)
    assert 1 <= int(caught.value.facts["headers"]["retry-after"]) <= 60
    assert (tokens(first.result()), tokens(third.result())) == ([2], [5])
    assert tokens(sdk.raw_end(fourth.result()["request_id"])) == [6]


def refused(place: House) -> list[str]:
    """Of each refused sample, the how many-th retry of its call it was; the high-level client makes a call of each."""
    return [line["retry"] for line in place.wire("asample") if line["status"] == "429"]


# -------------------------------------------------------------------------------------------------- asking once more


def test_the_same_number_of_a_session_is_the_same_request(
    place: House, newest: Sdk, sampler: Sampler, model: str, name: str
) -> None:
    first = newest.raw_sample(sampler.session, 7, PROMPT, f"hold {name}", num_samples=2)
    place.target.await_held(name)

    again = newest.raw_sample(sampler.session, 7, PROMPT, f"hold {name}", num_samples=2)
    place.target.release(name)
    later = newest.raw_sample(sampler.session, 7, PROMPT, f"hold {name}", num_samples=2)

    assert first == again == later
    assert first["sample_sequence_ids"] == [f"{first['request_id']}:{n}" for n in range(2)]
    assert len(newest.raw_end(first["request_id"])["sequences"]) == 2
    assert len(place.target.calls(model=model)) == 1


def test_the_same_number_with_another_prompt_is_refused(newest: Sdk, sampler: Sampler) -> None:
    newest.raw_sample(sampler.session, 7, PROMPT)

    with pytest.raises(TinkerError) as caught:
        newest.raw_sample(sampler.session, 7, [1])

    assert (caught.value.name, caught.value.facts["status_code"]) == ("UnprocessableEntityError", 422)


def test_sessions_of_their_own_share_no_numbers(newest: Sdk, model: str) -> None:
    sessions = [newest.call("raw_session", model=model) for _ in range(2)]

    ids = {newest.raw_sample(session, 1, PROMPT)["request_id"] for session in sessions}

    assert len(set(sessions)) == len(ids) == 2


def test_a_result_is_there_after_polls_that_were_given_up_and_after_it_was_read(
    place: House, sdk: Sdk, sampler: Sampler, name: str
) -> None:
    asked = sdk.raw_sample(sampler.session, 1, PROMPT, f"hold {name}", backpressure=False)
    place.target.await_held(name)

    for _ in range(2):
        with pytest.raises(TinkerError, match="APITimeoutError"):  # without that header a poll is held
            sdk.raw_poll(asked["request_id"], timeout=0.2)
    place.target.release(name)

    found = [sdk.raw_end(asked["request_id"]) for _ in range(3)]
    assert tokens(found[0]) == TOKENS
    assert found[0] == found[1] == found[2]


def test_a_poll_that_is_held_ends_with_the_request(place: House, newest: Sdk, sampler: Sampler, name: str) -> None:
    asked = newest.raw_sample(sampler.session, 1, PROMPT, f"hold {name}", backpressure=False)
    place.target.await_held(name)
    polls = [newest.tell("raw_poll", request_id=asked["request_id"]) for _ in range(3)]

    place.target.release(name)

    assert [poll.result()["status"] for poll in polls] == [200] * 3


def test_an_unknown_request_is_not_found(newest: Sdk) -> None:
    for request_id in ("nobody-knows-it", str(uuid.uuid4())):
        found = newest.raw_poll(request_id)
        assert found["status"] == 404
        assert found["body"]["detail"]


# ---------------------------------------------------------------------------------------------------- lost on the way


@pytest.mark.parametrize("environment", [TINKER, TINKER_022])
def test_a_reply_that_is_lost_makes_no_second_request(place: House, model: str, name: str, environment: str) -> None:
    with Proxy("127.0.0.1", place.installation.port) as proxy:
        host = f"127.0.0.1:{proxy.port}"
        sdk = place.another_sdk(environment, url=f"http://{host}")
        sampler = sdk.sampler(model)

        def submitted() -> list[str]:
            return [line["status"] for line in place.wire("asample") if line["host"] == host]

        proxy.latency(LATE_S)
        high = sampler.begin(PROMPT, f"hold {name}")
        low = sdk.tell("raw_sample", session=sampler.session, seq_id=9, prompt=[1], params={"max_tokens": 1})
        await_condition(lambda: len(submitted()) == 2, what="both are submitted")

        proxy.reset()  # before the replies have come through
        proxy.latency(0)
        place.target.release(name)

        assert tokens(high.result()) == TOKENS
        assert tokens(sdk.raw_end(low.result()["request_id"])) == [2]
        assert submitted() == ["200"] * 4
    assert len(place.target.calls(model=model)) == 2


# ------------------------------------------------------------------------------------------------------------ restart


def test_samplers_and_samples_outlive_the_web_and_the_clients_connections(
    place: House, sdk: Sdk, model: str, name: str
) -> None:
    sampler = sdk.sampler(model)
    held = sampler.begin(PROMPT, f"hold {name}")
    place.target.await_held(name)

    place.web.kill()
    place.target.release(name)
    place.restart_web()

    assert tokens(held.result(timeout_s=RETRIES_S)) == TOKENS
    assert tokens(sampler.sample([1])) == [2]
    assert len(place.target.calls(model=model)) == 2
