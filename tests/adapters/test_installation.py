"""A whole installation in front of a completions server: an asample goes in natively, its sample comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from tests.adapters.bodies import asample
from tests.support.completions_server import END, TURN, CompletionsServer, logprob_of
from tests.support.installation import Installation
from tests.support.server import RedisServer


@dataclass
class Place:
    installation: Installation
    completions: CompletionsServer
    server: RedisServer

    def post(self, body: bytes, service: str = "qwen", **headers: str) -> requests.Response:
        """Submit, and wait for the end."""
        url = f"{self.installation.url}/api/predict/{service}"
        headers = {"Prefer": "wait=10", "Content-Type": "application/json"} | headers
        return self.installation.session.post(url, data=body, headers=headers, timeout=15)

    def result(self, submitted: requests.Response, service: str = "qwen") -> requests.Response:
        assert submitted.status_code == 200, submitted.text
        request_id = submitted.headers["X-Eas-Queueservice-Request-Id"]
        url = f"{self.installation.url}/api/predict/{service}/requests/{request_id}/result"
        return self.installation.session.get(url, timeout=10)


@pytest.fixture(scope="module")
def place(redis_server: RedisServer) -> Iterator[Place]:
    completions = CompletionsServer()
    services = f"""
        [services.qwen]
        target_url = "{completions.url}"
        aliases = ["Qwen/Qwen3-0.6B"]
        adapter = "openai_completions"

        [services.wrong]
        target_url = "{completions.url.replace("/v1/completions", "/v1/models")}"
        adapter = "openai_completions"
    """
    with redis_server.client() as client:
        client.flushall()
    with Installation(redis_server.url, completions.url, services_toml=services) as installation:
        installation.web()
        installation.worker("gevent", 20)
        yield Place(installation, completions, redis_server)
    completions.stop()
    assert [misfit for misfit in completions.misfits if "/v1/models" not in misfit] == []


def test_an_asample_ends_as_a_sample(place: Place) -> None:
    params = {"max_tokens": 4, "top_k": 5}
    body = asample(20, 30, num_samples=2, prompt_logprobs=True, topk_prompt_logprobs=1, params=params)

    result = place.result(place.post(body))

    assert (result.status_code, result.headers["Content-Type"]) == (200, "application/json")
    assert result.headers["X-Result-Source"] == "target"
    assert result.json() == {
        "type": "sample",
        "sequences": [
            # 10 + 20 + 30 and on; 64 is the model's end
            {"tokens": [60, 61, 62, 63], "logprobs": [-61 / 16, -62 / 16, -63 / 16, -4.0], "stop_reason": "length"},
            {"tokens": [67, 68, 69, 70], "logprobs": [-68 / 16, -69 / 16, -70 / 16, -71 / 16], "stop_reason": "length"},
        ],
        "prompt_logprobs": [None, -31 / 16],
        "topk_prompt_logprobs": [None, [[31, -1 / 128]]],
    }
    asked = place.completions.asked[-1]
    assert (asked["model"], asked["prompt"], asked["n"], asked["top_k"]) == ("Qwen/Qwen3-0.6B", [20, 30], 2, 5)


@pytest.mark.parametrize(
    ("stop", "tokens", "reason"),
    [
        (None, [96, 97, 98, 99, TURN, 101, 102, 103], "length"),
        ([98], [96, 97, 98], "stop"),
        ("t97", [96, 97], "stop"),
        (["nothing", "<|turn|>"], [96, 97, 98, 99, TURN], "stop"),
    ],
)
def test_it_ends_at_its_stops(place: Place, stop: object, tokens: list[int], reason: str) -> None:
    result = place.result(place.post(asample(86, params={"stop": stop}))).json()

    assert result["sequences"] == [
        {"tokens": tokens, "logprobs": [logprob_of(token) for token in tokens], "stop_reason": reason}
    ]


def test_it_ends_at_the_models_end_but_not_where_there_are_to_be_no_stops(place: Place) -> None:
    def tokens(**params: object) -> list[int]:
        result: list[int] = place.result(place.post(asample(52, params=params))).json()["sequences"][0]["tokens"]
        return result

    assert tokens() == [62, 63, END]
    assert tokens(stop=[]) == [62, 63, END, 65, 66, 67, 68, 69]


def test_what_cannot_be_translated_is_refused_and_nothing_is_stored(place: Place) -> None:
    place.post(asample())
    called = len(place.completions.calls)
    with place.server.client() as client:
        before = set(client.scan_iter("*{qwen}*"))
        image = {"type": "image", "data": "", "format": "png"}

        refused = place.post(asample(prompt={"chunks": [{"tokens": [1]}, image]}))

        assert refused.status_code == 400
        assert refused.json()["detail"].startswith("service qwen: prompt.chunks[1] is of type 'image'")
        assert before
        assert set(client.scan_iter("*{qwen}*")) == before
    assert len(place.completions.calls) == called


def test_a_server_of_something_else_fails_the_request_with_what_was_missing(place: Place) -> None:
    place.completions.tells = "nothing"
    try:
        submitted = place.post(asample())
    finally:
        place.completions.tells = "token_ids"

    result = place.result(submitted)
    assert (result.status_code, result.headers["X-Result-Source"]) == (502, "queue")
    assert "choices[0] has no token ids" in json.dumps(result.json())
    assert submitted.json()["error_info"]["type"] == "TargetBroken"
    assert submitted.json()["attempts"] == 1


def test_the_targets_own_refusal_reaches_the_client(place: Place) -> None:
    result = place.result(place.post(asample(), "wrong"), "wrong")

    assert (result.status_code, result.headers["X-Result-Source"]) == (400, "target")
    assert result.json()["error"]["type"] == "BadRequestError"
