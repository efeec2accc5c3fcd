"""Sampling through the clients' own front: ServiceClient, SamplingClient and RestClient, as they are."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.support.installation import await_condition
from tests.support.tinker_sdk import ENVIRONMENTS, TINKER, TINKER_022, House, Sdk, TinkerError, house, service_of

PROMPT = [11, 22, 33]
HELD_S = 0.3


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house(*ENVIRONMENTS) as made:
        yield made


@pytest.fixture(params=ENVIRONMENTS)
def sdk(place: House, request: pytest.FixtureRequest) -> Sdk:
    return place.sdk(request.param)


@pytest.fixture
def newest(place: House) -> Sdk:
    return place.sdk(TINKER)


@pytest.fixture
def model(place: House) -> str:
    return place.model()


@pytest.fixture
def name() -> str:
    """What a call is held by."""
    return uuid.uuid4().hex


# ------------------------------------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("count", [1, 4])
def test_samples_arrive_as_the_target_made_them(place: House, sdk: Sdk, model: str, count: int) -> None:
    found = sdk.sampler(model).sample(PROMPT, num_samples=count)

    [call] = place.target.calls(model=model)
    request_id = call.headers["x-request-id"]
    sequences = [
        {
            "tokens": [11 + n + 1, 22 + n + 1],
            "logprobs": [-0.25 * (n + 1), -0.5 * (n + 1)],
            "stop_reason": "length",
            "sequence_id": f"{request_id}:{n}" if sdk is place.sdk(TINKER) else None,
        }
        for n in range(count)
    ]
    assert found == {"sequences": sequences, "prompt_logprobs": None, "topk_prompt_logprobs": None}


def test_a_sample_that_ends_by_itself_says_stop(sdk: Sdk, model: str) -> None:
    [sequence] = sdk.sampler(model).sample(PROMPT, max_tokens=8)["sequences"]

    assert (sequence["tokens"], sequence["stop_reason"]) == ([12, 23, 34], "stop")


def test_prompt_logprobs_and_their_top_k_arrive(sdk: Sdk, model: str) -> None:
    wanted = {"include_prompt_logprobs": True, "topk_prompt_logprobs": 2}
    found = sdk.sampler(model).sample(PROMPT, kwargs=wanted)

    assert found["prompt_logprobs"] == [None, -0.5, -1.0]
    assert found["topk_prompt_logprobs"] == [None, [[22, -1.5], [23, -3.0]], [[33, -1.5], [34, -3.0]]]


def test_compute_logprobs_scores_the_prompt(sdk: Sdk, model: str) -> None:
    assert sdk.call("logprobs", on=sdk.sampler(model).n, prompt=PROMPT) == [None, -0.5, -1.0]


def test_the_target_gets_what_the_client_sent_and_the_name_that_was_asked_for(
    place: House, newest: Sdk, model: str
) -> None:
    newest.sampler(model).sample(PROMPT, num_samples=2)

    [call] = place.target.calls(model=model)
    asked = json.loads(call.body)
    assert call.path == f"/api/predict/{service_of(model)}"
    assert asked["prompt"] == {"chunks": [{"tokens": PROMPT, "type": "encoded_text"}]}
    assert (asked["num_samples"], asked["sampling_params"]["max_tokens"]) == (2, 2)
    assert call.headers["content-type"] == "application/json"
    withheld = ("x-api-key", "x-stainless-", "x-sdk-", "x-idempotency-key", "x-tinker-sampling-", "authorization")
    assert not [header for header in call.headers if header.startswith(withheld)]


def test_many_samples_at_once_each_get_their_own(place: House, sdk: Sdk, model: str) -> None:
    sampler = sdk.sampler(model)

    callings = [sampler.begin([100 * n]) for n in range(12)]

    answers = [calling.result()["sequences"][0]["tokens"] for calling in callings]
    assert answers == [[100 * n + 1] for n in range(12)]
    assert len(place.target.calls(model=model)) == 12


# ------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("model", ["Qwen/Qwen3-0.6B", "openai/gpt-oss-20b:peft:131072", "qwen"])
def test_a_model_is_an_alias_or_a_service(place: House, newest: Sdk, model: str) -> None:
    newest.sampler(model).sample(PROMPT)

    assert place.target.calls(model=model)[-1].path == "/api/predict/qwen"


def test_a_model_path_begins_with_a_model(place: House, sdk: Sdk, model: str) -> None:
    path = f"tinker://{model}/weights/final"
    sampler = sdk.sampler(path=path)

    assert sampler.sample(PROMPT)["sequences"][0]["tokens"] == [12, 23]

    assert place.target.calls(model=path)[-1].path == f"/api/predict/{service_of(model)}"
    assert sdk.call("base_model", on=sampler.n) == model


def test_an_unknown_model_is_not_found_by_its_name(sdk: Sdk) -> None:
    for asked in ({"model": "nobody/knows-it"}, {"path": "tinker://nobody-knows-it/weights"}):
        with pytest.raises(TinkerError) as caught:
            sdk.sampler(**asked)
        assert (caught.value.name, caught.value.facts["status_code"]) == ("NotFoundError", 404)
        assert "knows-it" in caught.value.facts["body"]["detail"]


def test_capabilities_name_every_model_once(place: House, sdk: Sdk) -> None:
    models = sdk.call("capabilities")

    names = [model["model_name"] for model in models]
    assert len(names) == len(set(names))
    assert {"Qwen/Qwen3-0.6B", "openai/gpt-oss-20b:peft:131072", "acme/m0", "acme/gone"} <= set(names)
    said = {"trainable": False, "sampleable": True} if sdk is place.sdk(TINKER) else {}  # older clients drop it
    assert all(said.items() <= model.items() for model in models)


def test_get_sampler_tells_of_its_model(newest: Sdk, model: str) -> None:
    path = f"tinker://{model}/weights/1"

    plain, by_path = newest.sampler(model), newest.sampler(path=path)

    found = newest.call("get_sampler", session=plain.session)
    assert (found["sampler_id"], found["base_model"], found["model_path"]) == (plain.session, model, None)
    found = newest.call("get_sampler", session=by_path.session)
    assert (found["sampler_id"], found["base_model"], found["model_path"]) == (by_path.session, model, path)


# ------------------------------------------------------------------------------------------------- clients of a client


def test_pickled_copies_sample_in_other_processes_beside_the_first(place: House, newest: Sdk, model: str) -> None:
    sampler = newest.sampler(model)
    data = newest.call("as_bytes", on=sampler.n)
    other = place.another_sdk()

    copies = [other.copy("from_bytes", data=data), newest.copy("from_bytes", data=data)]
    copies.append(other.copy("from_handle", handle=newest.call("handle", on=sampler.n)))
    callings = [each.begin([100 * n]) for n, each in enumerate([sampler, *copies, sampler])]

    tokens = [calling.result()["sequences"][0]["tokens"] for calling in callings]
    assert tokens == [[100 * n + 1] for n in range(5)]
    assert {each.session for each in copies} == {sampler.session}
    ids = {call.headers["x-request-id"] for call in place.target.calls(model=model)}
    assert len(ids) == len(place.target.calls(model=model)) == 5  # no copy uses the numbers of another


def test_an_older_clients_copies_do_too(place: House, model: str) -> None:
    sdk = place.sdk(TINKER_022)
    sampler = sdk.sampler(model)

    copies = [sdk.copy("from_bytes", data=sdk.call("as_bytes", on=sampler.n)) for _ in range(2)]
    callings = [each.begin([100 * n]) for n, each in enumerate([sampler, *copies])]

    assert [calling.result()["sequences"][0]["tokens"] for calling in callings] == [[1], [101], [201]]


def test_a_client_that_is_closed_leaves_what_others_do(newest: Sdk, model: str, place: House, name: str) -> None:
    short = newest.sampler(model, service="short")
    long = newest.sampler(model)
    held = long.begin(PROMPT, f"hold {name}")
    place.target.await_held(name)

    newest.call("close", service="short")

    place.target.release(name)
    assert held.result()["sequences"][0]["tokens"] == [12, 23]
    assert short.session != long.session


def test_a_client_in_a_block_samples_and_says_how_it_ended(place: House, newest: Sdk, model: str) -> None:
    before = finished(place)

    found = newest.call("in_a_block", model=model, prompt=PROMPT, params={"max_tokens": 1})

    assert found["sequences"][0]["tokens"] == [12]
    await_condition(lambda: finished(place) > before, what="the session is finished")


def finished(place: House) -> int:
    lines = [line for line in place.web.log.splitlines() if line.startswith('wire {"') and "/finish" in line]
    assert all(json.loads(line[5:])["status"] == "200" for line in lines)
    return len(lines)


# ------------------------------------------------------------------------------------------------------------- waiting


def test_a_sample_that_waits_asks_once_for_all_that_time(place: House, sdk: Sdk, model: str, name: str) -> None:
    future = sdk.sampler(model).future(PROMPT, f"hold {name}")
    place.target.await_held(name)
    before = len(place.wire("retrieve_future"))  # its own is in the log when it has been answered

    with pytest.raises(TinkerError) as caught:
        sdk.call("result", on=future, timeout=HELD_S)
    place.target.release(name)

    assert caught.value.name == "TimeoutError"  # which leaves it running
    assert sdk.call("result", on=future)["sequences"][0]["tokens"] == [12, 23]
    polls = await_condition(lambda: place.wire("retrieve_future")[before:], what="the poll is in the log")
    assert [(poll["status"], poll["type"], poll["iteration"]) for poll in polls] == [("200", "Sample", "0")]
    assert float(polls[0]["took_s"]) >= HELD_S / 2
