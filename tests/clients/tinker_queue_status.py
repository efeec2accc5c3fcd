"""Polls samples as MinT's queue status demo does, so that each poll's queue fields can be read: one line per fact.

The same calls with the same headers, the same checks of what comes back, and the same kinds of lines; --count does it
all so many times at once, each with a client of its own. Environment: MINT_API_KEY or TINKER_API_KEY, MINT_BASE_URL or
TINKER_BASE_URL, MINT_BASE_MODEL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import inspect
import os
import time
from collections.abc import Mapping
from typing import Any

if importlib.util.find_spec("mint"):
    import mint  # noqa: F401  it passes MINT_* on as TINKER_*

import tinker
from tinker import types
from tinker._client import AsyncTinker

FIELDS = (
    *("request_id", "type", "status", "queue_state", "queue_state_reason"),
    *("queue_depth", "queue_position", "estimated_wait_s", "progress", "retry_after_s"),
)


class Unexpected(Exception):
    """An answer that the demo does not accept."""


def say(kind: str, *facts: str) -> None:
    print(kind, *facts, flush=True)


def number(headers: Mapping[str, str], name: str, kind: type[int] | type[float]) -> int | float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise Unexpected(f"{name} is {text!r}, no {kind.__name__}") from None


async def polled(client: AsyncTinker, request_id: str) -> tuple[int, Any, Mapping[str, str]]:
    """Status, content and headers of one answer, whether the client takes it for an error or not."""
    request = types.FutureRetrieveRequest(request_id=request_id)
    try:
        raw = await client.futures.with_raw_response.retrieve(request=request)
    except tinker.APIStatusError as exc:
        content = exc.body
        if not isinstance(content, dict):
            content = {"error": str(exc)}
            with contextlib.suppress(ValueError):
                content = exc.response.json()
        return exc.status_code, content, exc.response.headers
    content = raw.json()
    return raw.status_code, await content if inspect.isawaitable(content) else content, raw.headers


def show(request_id: str, content: dict[str, Any], headers: Mapping[str, str]) -> int:
    """Print the queue fields of a 408; for how many seconds it asks."""
    retry_after_s = number(headers, "Retry-After", int)
    if retry_after_s is None:
        raise Unexpected("Retry-After is missing")
    twins = {
        "x_queue_depth": number(headers, "X-Queue-Depth", int),
        "x_queue_position": number(headers, "X-Queue-Position", int),
        "x_queue_status": headers.get("X-Queue-Status"),
        "x_queue_eta_s": number(headers, "X-Queue-ETA-S", float),
        "retry_after": retry_after_s,
    }
    fields = {name: content.get(name) for name in FIELDS} | twins
    say("queue_fields", *(f"{name}={value!r}" for name, value in fields.items()))
    told = content.get("request_id")
    if isinstance(told, str) and told and told != request_id:
        raise Unexpected(f"asked for {request_id!r}, told of {told!r}")
    return int(retry_after_s)


async def follow() -> None:
    session_id = f"queue_status_{int(time.time())}"
    base_model = os.environ.get("MINT_BASE_MODEL", "Qwen/Qwen3-0.6B")
    async with AsyncTinker() as client:
        created = await client.service.create_sampling_session(
            request=types.CreateSamplingSessionRequest(
                session_id=session_id, sampling_session_seq_id=0, base_model=base_model
            )
        )
        say("sampling_session_created", f"sampling_session_id={created.sampling_session_id}")
        future = await client.sampling.asample(
            request=types.SampleRequest(
                sampling_session_id=created.sampling_session_id,
                seq_id=1,
                num_samples=1,
                prompt=types.ModelInput.from_ints([1] * 256),
                sampling_params=types.SamplingParams(max_tokens=128, temperature=0.7, top_k=-1, top_p=1.0),
            ),
            extra_headers={"X-Tinker-Sampling-Backpressure": "1"},
        )
        say("request_submitted", f"request_id={future.request_id}")
        while True:
            status, content, headers = await polled(client, future.request_id)
            if status == 200:
                keys = [f"keys={list(content)[:8]}"] if isinstance(content, dict) else []
                return say("result_received", f"request_id={future.request_id}", *keys)
            if status != 408:
                raise Unexpected(f"status {status}, {str(content)[:500]!r}")
            await asyncio.sleep(max(1, show(future.request_id, content, headers)))


async def main(count: int) -> None:
    await asyncio.gather(*(follow() for _ in range(count)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1)
    asyncio.run(main(parser.parse_args().count))
