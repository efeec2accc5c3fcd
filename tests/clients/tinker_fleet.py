"""Samples by tinker's official client, any number of them at the same time, as standard input asks for them.

Runs in that package's environment (tests/support/clients.py). A line of JSON in begins one sample, whose number comes
back with its end: ``{"n": 1, "kind": "high", "prompt": [1, 2], "samples": 1}``. *kind* high: one `SamplingClient` for
all of them; script: by the low-level client, as scripts do that read queue fields from each 408, in a sampling session
of its own. Ends when standard input does and all that was begun has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import tinker
from tinker import types
from tinker._client import AsyncTinker  # the only place that it has

MODEL = sys.argv[1]
PARAMETERS = types.SamplingParams(max_tokens=int(sys.argv[2]))
MARK = {"X-Tinker-Sampling-Backpressure": "1"}
_facts = os.dup(1)
os.dup2(2, 1)  # from here on only facts go where facts are read


def say(**fact: Any) -> None:
    """One line, in one write: it is there even if the process is killed right after it."""
    os.write(_facts, json.dumps(fact).encode() + b"\n")


async def high(sampler: tinker.SamplingClient, asked: dict[str, Any]) -> dict[str, Any]:
    found = await sampler.sample(types.ModelInput.from_ints(asked["prompt"]), asked["samples"], PARAMETERS)
    return {
        "tokens": [list(sequence.tokens) for sequence in found.sequences],
        "ids": [sequence.sequence_id for sequence in found.sequences],
    }


async def script(client: AsyncTinker, asked: dict[str, Any]) -> dict[str, Any]:
    named = types.CreateSamplingSessionRequest(
        session_id=f"script_{int(time.time())}", sampling_session_seq_id=0, base_model=MODEL
    )
    session = await client.service.create_sampling_session(request=named)
    request = types.SampleRequest(
        sampling_session_id=session.sampling_session_id,
        seq_id=1,
        num_samples=asked["samples"],
        prompt=types.ModelInput.from_ints(asked["prompt"]),
        sampling_params=PARAMETERS,
    )
    future = await client.sampling.asample(request=request, extra_headers=MARK)
    say(n=asked["n"], submitted=future.request_id)
    wanted = types.FutureRetrieveRequest(request_id=future.request_id)
    pending = 0
    while True:
        try:
            answer = await client.futures.with_raw_response.retrieve(request=wanted)
        except tinker.APIStatusError as exc:
            if exc.status_code != 408:
                raise
            pending += 1
            await asyncio.sleep(max(1, int(exc.response.headers["Retry-After"])))
            continue
        content: Any = json.loads(await answer.read())
        return {
            "tokens": [sequence["tokens"] for sequence in content["sequences"]],
            "ids": future.sample_sequence_ids,
            "request_id": content["request_id"],
            "pending": pending,
        }


async def run(asked: dict[str, Any], sampler: tinker.SamplingClient, client: AsyncTinker) -> None:
    try:
        found = await (high(sampler, asked) if asked["kind"] == "high" else script(client, asked))
    except Exception as exc:  # the test says what it wants
        found = {"error": f"{type(exc).__name__}: {exc}"}
    say(n=asked["n"], **found)


async def main() -> None:
    sampler = await tinker.ServiceClient().create_sampling_client(base_model=MODEL)
    async with AsyncTinker() as client:
        say(ready=tinker.__version__)
        begun = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            begun.append(asyncio.create_task(run(json.loads(line), sampler, client)))
        await asyncio.gather(*begun)


asyncio.run(main())
