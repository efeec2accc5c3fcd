"""Tinker's asample as a request to an OpenAI-style completions server that tells token ids, and its answer as a sample.

The limits are those of the published schema; what goes beyond it (README.md has the list) is what vLLM adds.
"""

from __future__ import annotations

from typing import Any

import pydantic_core

from eas_queue.adapters import asample
from eas_queue.adapters.asample import Asample
from eas_queue.adapters.errors import Unadaptable

SAMPLES_MOST = 128
ANSWER_VALUES_MOST = 4_000_000  # up to some 4 s of a gevent worker, in which it does nothing else
STOP_TEXTS_MOST = 4
TEMPERATURE_MAX = 2.0
SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1
_AS_TOKEN_ID = "token_id:"  # noqa: S105  not a secret
_ENDS = ("stop", "length")


def check(body: bytes) -> None:
    """Raises Unadaptable for what ``request`` could not translate."""
    _limited(asample.read(body))


def request(body: bytes, model: str) -> bytes:
    """The completions request for an asample *body*. Raises Unadaptable."""
    asked = _limited(asample.read(body))
    # A server falls back to the model's own generation_config for what is not said, so all is said: a sample is drawn
    # from what its client believes it is drawn from.
    wanted: dict[str, Any] = {
        "model": model,
        "prompt": asked.tokens,
        "n": asked.num_samples,
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logprobs": 0,  # of the sampled token, and of no other
        "echo": False,
        "stream": False,
        "top_k": asked.top_k,
        "min_p": 0,
        "repetition_penalty": 1,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    if asked.seed is not None:
        wanted["seed"] = asked.seed
    if asked.stop_texts:
        wanted["stop"] = list(asked.stop_texts)
        # Stops are looked for in the text, from which the server takes special tokens otherwise: <|im_end|> in a stop
        # would never be found.
        wanted["skip_special_tokens"] = False
    if asked.stop_tokens:
        wanted["stop_token_ids"] = list(asked.stop_tokens)
    if asked.stops_nowhere:
        wanted["ignore_eos"] = True
    if asked.prompt_logprobs or asked.topk_prompt_logprobs:
        wanted["prompt_logprobs"] = asked.topk_prompt_logprobs
    return _dumps(wanted)


def answer(asked: bytes, body: bytes) -> bytes:
    """The sample that a completion is. Raises Unadaptable where it is not the one that was asked for, or lacks ids."""
    wanted = asample.read(asked)
    found = asample.loads(body, "the answer", values_most=ANSWER_VALUES_MOST)
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Unadaptable(
            "the answer has no list of choices; target_url must be the address of completions, mostly ../v1/completions"
        )
    if len(choices) != wanted.num_samples:
        raise Unadaptable(f"the answer has {len(choices)} choices, {wanted.num_samples} were asked for")
    by_index = {choice.get("index"): choice for choice in choices if type(choice.get("index")) is int}
    if by_index.keys() != set(range(len(choices))):
        raise Unadaptable(f"the choices of the answer are not numbered from 0 to {len(choices) - 1}, each once")
    in_order = [by_index[index] for index in range(len(choices))]
    sequences = [_sequence(choice, f"choices[{index}]") for index, choice in enumerate(in_order)]
    own, top = _of_prompt(in_order[0], wanted)
    sample = {"type": "sample", "sequences": sequences, "prompt_logprobs": own, "topk_prompt_logprobs": top}
    return _dumps(sample)


def _limited(asked: Asample) -> Asample:
    if asked.num_samples > SAMPLES_MOST:
        raise Unadaptable(
            f"num_samples is {asked.num_samples}: a completions request gives at most {SAMPLES_MOST}; ask several times"
        )
    if not 0 <= asked.temperature <= TEMPERATURE_MAX:
        raise Unadaptable(f"sampling_params.temperature is not from 0 to {TEMPERATURE_MAX:g}")
    if not 0 <= asked.top_p <= 1:
        raise Unadaptable("sampling_params.top_p is not from 0 to 1")
    if asked.seed is not None and not SEED_MIN <= asked.seed <= SEED_MAX:
        raise Unadaptable("sampling_params.seed has more than 64 bits")
    if len(asked.stop_texts) > STOP_TEXTS_MOST:
        raise Unadaptable(
            f"sampling_params.stop has {len(asked.stop_texts)} texts: a completions request takes at most "
            f"{STOP_TEXTS_MOST}; token ids have no such limit"
        )
    return asked


def _sequence(choice: dict[str, Any], where: str) -> dict[str, Any]:
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise Unadaptable(f"{where} was cut by the server's content filter")
    if reason not in _ENDS:
        raise Unadaptable(f"{where} ended by {str(reason)[:40]!r}; a sample ends by stop or length")
    logprobs = choice.get("logprobs")
    details = logprobs if isinstance(logprobs, dict) else {}
    tokens = _token_ids(choice, details)
    if tokens is None:
        raise Unadaptable(
            f"{where} has no token ids, neither as token_ids nor as {_AS_TOKEN_ID}N in logprobs.tokens: serve it with "
            "a vLLM or SGLang that knows return_token_ids, or start vLLM with --return-tokens-as-token-ids"
        )
    values = details.get("token_logprobs")
    if values is not None and (
        not isinstance(values, list) or len(values) != len(tokens) or not all(map(asample.is_number, values))
    ):
        raise Unadaptable(f"{where}.logprobs.token_logprobs is not one number for each of {len(tokens)} tokens")
    return {"tokens": tokens, "logprobs": values, "stop_reason": reason}


def _token_ids(choice: dict[str, Any], details: dict[str, Any]) -> list[int] | None:
    ids = choice.get("token_ids")
    if ids is None:
        texts = details.get("tokens")
        if not isinstance(texts, list):
            return None
        ids = [_id_of(text) for text in texts]
    return ids if isinstance(ids, list) and asample.are_tokens(ids) else None


def _id_of(text: Any) -> int | None:
    """Of `token_id:17`, as of `17`; None of anything else."""
    digits = text.removeprefix(_AS_TOKEN_ID) if isinstance(text, str) else ""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 10 and digits != text else None


def _of_prompt(choice: dict[str, Any], wanted: Asample) -> tuple[list[Any] | None, list[Any] | None]:
    """The log probability of each token of the prompt, and those of the likeliest in its place, as far as asked for.

    None stands at the first token, before which there is nothing. Every choice repeats them; one is read.
    """
    if not wanted.prompt_logprobs and not wanted.topk_prompt_logprobs:
        return None, None
    found = choice.get("prompt_logprobs")
    if not isinstance(found, list):
        raise Unadaptable(
            "choices[0] has no prompt_logprobs, which this request asks for: of the servers known here, vLLM tells them"
        )
    if len(found) != len(wanted.tokens):
        raise Unadaptable(f"choices[0].prompt_logprobs has {len(found)} entries for {len(wanted.tokens)} tokens")
    own: list[float | None] = []
    top: list[list[tuple[int, float]] | None] = []
    most = wanted.topk_prompt_logprobs
    for index, (token, entry) in enumerate(zip(wanted.tokens, found, strict=True)):
        if entry is None and index == 0:
            own.append(None)
            top.append(None)
            continue
        try:
            own.append(_number(entry[str(token)]["logprob"]))
            if most:
                likely = [(int(name), _number(value["logprob"])) for name, value in entry.items()]
                top.append(sorted(likely, key=_by_likelihood)[:most])
        except (AttributeError, TypeError, KeyError, ValueError):
            raise Unadaptable(f"choices[0].prompt_logprobs[{index}] does not tell that of token {token}") from None
    return own if wanted.prompt_logprobs else None, top if most else None


def _by_likelihood(pair: tuple[int, float]) -> float:
    return -pair[1]


def _number(value: Any) -> float:
    if not asample.is_number(value):
        raise ValueError
    return float(value)


def _dumps(content: dict[str, Any]) -> bytes:
    return pydantic_core.to_json(content)  # a sixth of what json.dumps takes for a long prompt
