"""Tinker's clients sample from a server of OpenAI completions, which knows nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.completions_server import CompletionsServer, logprob_of
from tests.support.tinker_sdk import TINKER, TINKER_022, House, Sampler, TinkerError, house

MODEL = "Qwen/Qwen3-8B"
PROMPT = [20, 30]
FIRST = 10 + sum(PROMPT)  # token of the first sample; each further one is 7 higher


@dataclass
class Place:
    house: House
    completions: CompletionsServer


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    completions = CompletionsServer()
    services = f"""
        [services.llm]
        aliases = ["{MODEL}"]
        adapter = "openai_completions"
        target_url = "{completions.url}"
    """
    with house(TINKER, TINKER_022, services_toml=services) as made:
        yield Place(made, completions)
    completions.stop()
    assert completions.misfits == []


@pytest.fixture(params=[TINKER, TINKER_022])
def sampler(place: Place, request: pytest.FixtureRequest) -> Sampler:
    return place.house.sdk(request.param).sampler(MODEL)


def sequence(first: int, count: int, *, stop_reason: str) -> dict[str, Any]:
    tokens = list(range(first, first + count))
    return {"tokens": tokens, "logprobs": [logprob_of(token) for token in tokens], "stop_reason": stop_reason}


@pytest.mark.parametrize("count", [1, 4])
def test_samples_are_those_of_the_completions_server(place: Place, sampler: Sampler, count: int) -> None:
    found = sampler.sample(PROMPT, num_samples=count, max_tokens=3)

    ids = [each.pop("sequence_id") for each in found["sequences"]]
    assert found["sequences"] == [sequence(FIRST + 7 * n, 3, stop_reason="length") for n in range(count)]
    assert len(set(ids)) == count or set(ids) == {None}
    asked = place.completions.asked[-1]
    assert (asked["model"], asked["prompt"], asked["max_tokens"]) == (MODEL, PROMPT, 3)
    assert asked.get("n", 1) == count


def test_prompts_are_scored(sampler: Sampler) -> None:
    assert sampler.sdk.call("logprobs", on=sampler.n, prompt=[20, 30, 40]) == [None, logprob_of(30), logprob_of(40)]


def test_a_stop_text_ends_a_sample(sampler: Sampler) -> None:
    found = sampler.sdk.call(
        "sample", on=sampler.n, prompt=PROMPT, params={"max_tokens": 9, "stop": [f" t{FIRST + 2}"]}
    )

    found["sequences"][0].pop("sequence_id")
    assert found["sequences"] == [sequence(FIRST, 3, stop_reason="stop")]


def test_what_the_server_cannot_give_is_refused_at_once(place: Place, sampler: Sampler) -> None:
    before = len(place.completions.asked)

    with pytest.raises(TinkerError) as caught:
        sampler.sdk.call("sample", on=sampler.n, prompt=PROMPT, params={})

    assert (caught.value.name, caught.value.facts["status_code"]) == ("BadRequestError", 400)
    assert "max_tokens" in caught.value.facts["body"]["detail"]
    assert len(place.completions.asked) == before


def test_the_queue_status_demo_gets_its_result(place: Place) -> None:
    with place.house.script(TINKER, MODEL) as script:
        said = script.rest(timeout_s=20)

    assert [said[0]["kind"], said[1]["kind"], said[-1]["kind"]] == [
        *("sampling_session_created", "request_submitted"),
        "result_received",
    ]
    assert {"sequences", "request_id"} <= set(said[-1]["keys"])
