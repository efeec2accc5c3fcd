"""Where a sampling request stands in the queue, with Tinker's low-level client: submit, ask until it is there, print.

    TINKER_BASE_URL=http://127.0.0.1:5000 TINKER_API_KEY=$(cat .run/token) python examples/tinker/queue_status.py

While a request has not ended, a poll for its result is answered with status 408, and says in its body where the request
stands, and in `Retry-After` when to ask again. The high-level client keeps that to itself; this one is told at once,
because it asks for it by a header at the submit.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from typing import Any

import tinker
from tinker import types
from tinker._client import AsyncTinker  # the low-level client has no other name

AT_ONCE = {"X-Tinker-Sampling-Backpressure": "1"}  # polls are not to be held until the result is there


async def main() -> None:
    parser = argparse.ArgumentParser(description="Shows where a sampling request stands until it has ended.")
    parser.add_argument("text", nargs="?", default="The soup was")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--ahead", type=int, default=0, help="submit so many others before it")
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--token-delay-s", type=float, default=0.0, help="how slow the example target is to be")
    asked = parser.parse_args()

    async with AsyncTinker() as client:
        session = await client.service.create_sampling_session(
            request=types.CreateSamplingSessionRequest(
                session_id=str(uuid.uuid4()), sampling_session_seq_id=0, base_model=asked.model
            )
        )
        headers = AT_ONCE | ({"X-Token-Delay-S": str(asked.token_delay_s)} if asked.token_delay_s else {})
        for number in range(asked.ahead + 1):
            future = await client.sampling.asample(
                request=types.SampleRequest(
                    sampling_session_id=session.sampling_session_id,
                    seq_id=number,
                    num_samples=1,
                    prompt=types.ModelInput.from_ints(list(asked.text.encode())),
                    sampling_params=types.SamplingParams(max_tokens=asked.max_tokens, stop=[]),
                ),
                extra_headers=headers,
            )
        print(f"request {future.request_id}", flush=True)
        result = await ended(client, future.request_id)
    if "error" in result:
        sys.exit(f"failed, {result['category']}: {result['error']}")
    print(f"done: {asked.text + bytes(result['sequences'][0]['tokens']).decode(errors='replace')!r}")


async def ended(client: AsyncTinker, request_id: str) -> dict[str, Any]:
    """The result. Each answer until then is printed."""
    while True:
        try:
            # "raw": the typed call would take a sample for something else.
            answer = await client.futures.with_raw_response.retrieve(
                request=types.FutureRetrieveRequest(request_id=request_id)
            )
        except tinker.APIStatusError as exc:
            if exc.status_code != 408:
                raise
            print(told(exc.response.json()), flush=True)
            await asyncio.sleep(int(exc.response.headers["Retry-After"]))
        else:
            return dict(await answer.json())


def told(body: dict[str, Any]) -> str:
    """What a 408 says, in words. Where the queue does not know something, it is null there and left out here."""
    words = [body["queue_state"]]
    if body["queue_position"] is None:
        words.append(body["queue_state_reason"])
    elif body["queue_state"] == "waiting":
        words.append(f"{body['queue_position']} before it")
    words.append(f"{body['queue_depth']} in all")
    if body["progress"] is not None:
        words.append("{tokens_generated} of {max_tokens} tokens".format(**body["progress"]))
    if body["estimated_wait_s"] is not None:
        words.append(f"done in about {body['estimated_wait_s']:.0f} s")
    return ", ".join(words)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except tinker.TinkerError as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
