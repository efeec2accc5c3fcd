"""A real HTTP server of completions without a model: tokens and probabilities are arithmetic on the prompt.

Every request is held against the published schema and what vLLM adds to it, every answer against the published one:
what does not fit is answered with 400, as vLLM does, or 500, and kept in ``misfits``.

Sample *i* goes on from ``10 + (sum of the prompt + 7 i + seed) % 1000`` upwards; in place of a multiple of 64 stands
the model's end, token 2, of another multiple of 50 a turn, token 3, at which it does not end. Token t reads `` t<t>``;
end and turn are special tokens, ``<|end|>`` and ``<|turn|>``. ``logprob_of`` gives a token's log probability.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import jsonschema

from tests.support.own_target import Call, OwnTarget, Reply

SCHEMAS = Path(__file__).parents[1] / "adapters"
Tells = Literal["token_ids", "texts", "nothing"]
END, TURN = 2, 3
SPECIAL = {END: "<|end|>", TURN: "<|turn|>"}

# What vLLM's CompletionRequest takes besides (vllm/entrypoints/openai/completion/protocol.py), as far as it is used.
EXTENSIONS: dict[str, Any] = {
    "top_k": {"type": "integer", "minimum": -1},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0},
    "stop_token_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "ignore_eos": {"type": "boolean"},
    "skip_special_tokens": {"type": "boolean"},
    "prompt_logprobs": {"type": "integer", "minimum": 0},
    "return_token_ids": {"type": "boolean"},
    "return_tokens_as_token_ids": {"type": "boolean"},
}


def _published(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return schema


def _strict_request() -> dict[str, Any]:
    schema = _published("completion_request")
    return schema | {"properties": schema["properties"] | EXTENSIONS, "additionalProperties": False}


PUBLISHED = set(_published("completion_request")["properties"])
REQUEST = jsonschema.Draft202012Validator(_strict_request())
ANSWER = jsonschema.Draft202012Validator(_published("completion_response"))


def logprob_of(token: int) -> float:
    return -(token % 97 + 1) / 16


class CompletionsServer(OwnTarget):
    """*tells*: how an answer says token ids: as vLLM does that knows return_token_ids, as before, or not at all."""

    def __init__(self, tells: Tells = "token_ids") -> None:
        super().__init__()
        self.tells = tells
        self.misfits: list[str] = []
        self.calls: list[Call] = []
        self.url += "/v1/completions"
        self.act = self._complete

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(call.body) for call in self.calls]

    def _complete(self, call: Call) -> Reply:
        self.calls.append(call)
        wanted = json.loads(call.body)
        misfit = next(REQUEST.iter_errors(wanted), None)
        if misfit is None and (call.path, call.headers.get("content-type")) != ("/v1/completions", "application/json"):
            misfit = jsonschema.ValidationError(f"{call.path} {call.headers.get('content-type')}")
        if misfit is not None:
            return self._refuse(400, "BadRequestError", misfit.message)
        content = completion(wanted, self.tells)
        misfit = next(ANSWER.iter_errors(content), None)
        if misfit is not None:
            return self._refuse(500, "InternalServerError", misfit.message)
        return 200, json.dumps(content).encode(), {"X-Served-By": "completions"}

    def _refuse(self, status: int, kind: str, message: str) -> Reply:
        self.misfits.append(message)
        error = {"message": message, "type": kind, "param": None, "code": status}
        return status, json.dumps({"error": error}).encode()


def completion(wanted: dict[str, Any], tells: Tells = "token_ids") -> dict[str, Any]:
    """The answer to a request that fits."""
    prompt: list[int] = wanted["prompt"]
    choices = [_choice(wanted, index, tells) for index in range(wanted.get("n", 1))]
    generated = sum(len(choice["logprobs"]["tokens"]) for choice in choices)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": generated, "total_tokens": len(prompt) + generated}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": wanted["model"],
        "choices": choices,
        "usage": usage,
    }


def _choice(wanted: dict[str, Any], index: int, tells: Tells) -> dict[str, Any]:
    prompt: list[int] = wanted["prompt"]
    tokens, text, reason = _generated(wanted, 10 + (sum(prompt) + 7 * index + wanted.get("seed", 0)) % 1000)
    as_ids = tells != "nothing" and wanted.get("return_tokens_as_token_ids")
    names = [f"token_id:{token}" if as_ids else _text_of(token) for token in tokens]
    choice: dict[str, Any] = {
        "index": index,
        "text": text,
        "finish_reason": reason,
        "stop_reason": None,
        "logprobs": {
            "text_offset": [0] * len(tokens),
            "token_logprobs": [logprob_of(token) for token in tokens],
            "tokens": names,
            "top_logprobs": [{name: logprob_of(token)} for name, token in zip(names, tokens, strict=True)],
        },
        "prompt_logprobs": None,
        "token_ids": tokens if tells == "token_ids" and wanted.get("return_token_ids") else None,
    }
    if "prompt_logprobs" in wanted:
        likely = wanted["prompt_logprobs"]
        choice["prompt_logprobs"] = [None, *(_likeliest(token, likely) for token in prompt[1:])]
    return choice


def _generated(wanted: dict[str, Any], start: int) -> tuple[list[int], str, str]:
    """Tokens, text, and why it ended; the token that ended it is among them, its text is not."""
    stops = wanted.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    tokens: list[int] = []
    text = ""
    for number in range(start, start + wanted["max_tokens"]):
        token = END if number % 64 == 0 else TURN if number % 50 == 0 else number
        tokens.append(token)
        if token in wanted.get("stop_token_ids", []) or (token == END and not wanted.get("ignore_eos")):
            return tokens, text, "stop"
        if token not in SPECIAL or not wanted.get("skip_special_tokens", True):
            text += _text_of(token)
        for stop in stops:
            if stop in text:
                return tokens, text.partition(stop)[0], "stop"
    return tokens, text, "length"


def _text_of(token: int) -> str:
    return SPECIAL.get(token) or f" t{token}"


def _likeliest(token: int, most: int) -> dict[str, Any]:
    """The token of the prompt first, as vLLM has it, then the likeliest: those after it in number."""
    own = {str(token): {"logprob": logprob_of(token), "rank": most + 1, "decoded_token": _text_of(token)}}
    return own | {
        str(token + 1 + rank): {
            "logprob": -(rank + 1) / 128,
            "rank": rank + 1,
            "decoded_token": _text_of(token + 1 + rank),
        }
        for rank in range(most)
    }
