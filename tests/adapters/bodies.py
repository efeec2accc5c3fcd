"""Bodies of Tinker's asample, and completions that answer them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TOKENS = st.integers(0, 2**31 - 1)
CHUNKS = st.builds(
    lambda tokens, extra: {"tokens": tokens} | extra,
    st.lists(TOKENS, max_size=4),
    st.sampled_from([{}, {"type": "encoded_text"}, {"type": None, "later": 1}]),
)
STOPS = st.one_of(
    st.none(),
    st.text(min_size=1, max_size=5),
    st.lists(st.text(min_size=1, max_size=5), max_size=4),
    st.lists(TOKENS, max_size=6),
)
PARAMS = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 2**31)},
    optional={
        "temperature": st.none() | st.floats(0, 2) | st.integers(0, 2),
        "top_p": st.none() | st.floats(0, 1),
        "top_k": st.none() | st.integers(-1, 10**6),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "stop": STOPS,
        "later": st.just([1]),
    },
)
# What official clients send, sparse or whole, and what later ones may add.
ASAMPLES = st.fixed_dictionaries(
    {
        "prompt": st.builds(lambda chunks: {"chunks": chunks}, st.lists(CHUNKS, min_size=1, max_size=3)).filter(
            lambda prompt: any(chunk["tokens"] for chunk in prompt["chunks"])
        ),
        "sampling_params": PARAMS,
    },
    optional={
        "num_samples": st.none() | st.integers(1, 128),
        "prompt_logprobs": st.none() | st.booleans(),
        "topk_prompt_logprobs": st.none() | st.integers(0, 20),
        "topk_sample_logprobs": st.sampled_from([0, None]),
        "record_stability_info": st.just(False),
        "prompt_alt_tokens_k": st.just(0),
        "target_prompt_logprobs": st.none(),
        "sampling_session_id": st.just("abc"),
        "seq_id": st.integers(0, 2**63 - 1),
        "type": st.just("sample"),
    },
)


def asample(*tokens: int, params: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """A sparse one, of up to 8 tokens. *params*: of sampling, besides."""
    content: dict[str, Any] = {
        "prompt": {"chunks": [{"tokens": list(tokens or (1, 2, 3))}]},
        "sampling_params": {"max_tokens": 8} | (params or {}),
    }
    return json.dumps(content | fields).encode()


def choice(*tokens: int, index: int = 0, **fields: Any) -> dict[str, Any]:
    """One of a completion: the tokens as vLLM tells them, each as likely as an eighth of its number."""
    details = {"tokens": [f"token_id:{token}" for token in tokens], "token_logprobs": [-token / 8 for token in tokens]}
    content = {"index": index, "text": "", "finish_reason": "stop", "token_ids": list(tokens), "logprobs": details}
    return content | fields


def completion(*choices: dict[str, Any]) -> bytes:
    return json.dumps({"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": choices}).encode()
