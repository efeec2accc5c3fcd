"""Makes calls of Tinker's client as they are asked for, any number at a time: lines of JSON in, lines of JSON out.

    {"n": 1, "do": "sampler", "kwargs": {"base_model": "acme/m1"}, "key": "another one", "service": "of its own"}
    {"n": 2, "do": "sample", "on": 1, "prompt": [1, 2], "num_samples": 4, "params": {..}, "kwargs": {..}}
    {"n": 3, "do": "result", "on": 2, "timeout": 0.5}
    {"n": 4, "do": "raw_sample", "session": "..", "seq_id": 1, "prompt": [1], "params": {..}}

A line with *on* is about what call *on* made. Each line out repeats *n*, with *result*, or *error* and what the
exception carries. The names of what can be done are those of the functions below; raw ones use the low-level client,
the others the one for users. The package is used as it is, through ``mint`` where that is installed.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import inspect
import json
import os
import pickle
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

if importlib.util.find_spec("mint"):
    import mint as tinker
else:
    import tinker
from tinker import types
from tinker._client import AsyncTinker

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
services: dict[tuple[str | None, str], Any] = {}
raw_clients: dict[str | None, AsyncTinker] = {}
made: dict[int, Any] = {}
_facts = os.dup(1)
os.dup2(2, 1)  # from here on only facts go where facts are read
_one_at_a_time = threading.Lock()


def say(n: int, **fact: Any) -> None:
    with _one_at_a_time:
        os.write(_facts, json.dumps({"n": n, **fact}).encode() + b"\n")


def error(exc: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {"error": type(exc).__name__, "text": str(exc)}
    for name in ("status_code", "body", "request_id"):
        if name in vars(exc):
            found[name] = getattr(exc, name)
    if "category" in vars(exc):
        found["category"] = str(getattr(exc, "category").value)  # noqa: B009  mypy knows no type of exc
    if isinstance(exc, tinker.APIStatusError):
        found |= {"status_code": exc.status_code, "headers": dict(exc.response.headers)}
    return found


# ------------------------------------------------------------------------------------------------- the client for users


def service(key: str | None = None, service: str = "") -> Any:
    """The one of this key and name; made when it is asked for first."""
    if (key, service) not in services:
        services[key, service] = tinker.ServiceClient(api_key=key)
    return services[key, service]


def keep_sampler(n: int, sampler: Any) -> dict[str, Any]:
    made[n] = sampler
    return {"session": sampler._sampling_session_id}  # its one way to say it, before 0.38 none at all


def sampler(n: int, kwargs: dict[str, Any], **where: Any) -> dict[str, Any]:
    found = service(**where).create_sampling_client(**kwargs)
    return keep_sampler(n, found.result() if hasattr(found, "result") else found)  # a future since 0.38


def sample(
    n: int, on: int, prompt: list[int], params: dict[str, Any], num_samples: int = 1, **more: Any
) -> dict[str, Any]:
    """The result; ``begin`` does the same without waiting for it."""
    begin(n, on, prompt, params, num_samples, **more)
    return shown(made[n].result())


def begin(
    n: int,
    on: int,
    prompt: list[int],
    params: dict[str, Any],
    num_samples: int = 1,
    kwargs: dict[str, Any] | None = None,
) -> None:
    made[n] = made[on].sample(
        prompt=types.ModelInput.from_ints(prompt),
        num_samples=num_samples,
        sampling_params=types.SamplingParams(**params),
        **kwargs or {},
    )


def result(n: int, on: int, timeout: float | None = None) -> dict[str, Any]:
    return shown(made[on].result(timeout=timeout))


def result_async(n: int, on: int, timeout: float) -> dict[str, Any]:
    waiting = asyncio.run_coroutine_threadsafe(made[on].result_async(timeout=timeout), loop)
    return shown(waiting.result())


def cancel(n: int, on: int) -> bool:
    return bool(made[on].future().cancel() if hasattr(made[on], "future") else made[on].cancel())


def logprobs(n: int, on: int, prompt: list[int]) -> Any:
    return made[on].compute_logprobs(types.ModelInput.from_ints(prompt)).result()


def shown(response: Any) -> dict[str, Any]:
    sequences = [
        {
            "tokens": list(sequence.tokens),
            "logprobs": None if sequence.logprobs is None else list(sequence.logprobs),
            "stop_reason": sequence.stop_reason,
            "sequence_id": getattr(sequence, "sequence_id", None),
        }
        for sequence in response.sequences
    ]
    names = ("prompt_logprobs", "topk_prompt_logprobs")
    return {"sequences": sequences} | {name: getattr(response, name) for name in names}


def as_bytes(n: int, on: int) -> str:
    """For another process, as the client's documentation has it."""
    return base64.b64encode(pickle.dumps(made[on])).decode()


def from_bytes(n: int, data: str) -> dict[str, Any]:
    return keep_sampler(n, pickle.loads(base64.b64decode(data)))


def handle(n: int, on: int) -> str:
    return str(made[on].get_sampler_handle())


def from_handle(n: int, handle: str) -> dict[str, Any]:
    return keep_sampler(n, tinker.SamplingClient.from_sampler_handle(handle))


def base_model(n: int, on: int) -> str:
    return str(made[on].get_base_model())


def capabilities(n: int, key: str | None = None) -> list[dict[str, Any]]:
    if hasattr(tinker, "RestClient"):
        found = tinker.RestClient(api_key=key).get_server_capabilities().result()
    else:
        found = service(key).get_server_capabilities()
    return [model.model_dump() for model in found.supported_models]


def get_sampler(n: int, session: str) -> dict[str, Any]:
    rest = tinker.RestClient() if hasattr(tinker, "RestClient") else service().create_rest_client()
    return dict(rest.get_sampler(session).result().model_dump())


def train(n: int, model: str) -> None:
    found = service().create_lora_training_client(base_model=model)
    if hasattr(found, "result"):
        found.result()


def close(n: int, **where: Any) -> None:
    services.pop((where.get("key"), where.get("service", ""))).close("success", detail="done").result()


def in_a_block(n: int, model: str, prompt: list[int], params: dict[str, Any]) -> dict[str, Any]:
    """A sample by a client that is closed at the end of a ``with``."""
    with tinker.ServiceClient() as client:
        sampler = client.create_sampling_client(base_model=model).result()
        asked = {"prompt": types.ModelInput.from_ints(prompt), "sampling_params": types.SamplingParams(**params)}
        return shown(sampler.sample(num_samples=1, **asked).result())


# ------------------------------------------------------------------------------------------------- the low-level client


def raw_client(key: str | None) -> AsyncTinker:
    if key not in raw_clients:
        raw_clients[key] = AsyncTinker(api_key=key)
    return raw_clients[key]


async def raw_session(n: int, model: str, key: str | None = None) -> str:
    request = types.CreateSamplingSessionRequest(session_id="mine", sampling_session_seq_id=0, base_model=model)
    created = await raw_client(key).service.create_sampling_session(request=request)
    return str(created.sampling_session_id)


async def raw_sample(
    n: int,
    session: str,
    seq_id: int,
    prompt: list[int],
    params: dict[str, Any],
    *,
    num_samples: int = 1,
    backpressure: bool = True,
    max_retries: int | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    client = raw_client(key)
    future = await (client if max_retries is None else client.with_options(max_retries=max_retries)).sampling.asample(
        request=types.SampleRequest(
            sampling_session_id=session,
            seq_id=seq_id,
            num_samples=num_samples,
            prompt=types.ModelInput.from_ints(prompt),
            sampling_params=types.SamplingParams(**params),
        ),
        extra_headers={"X-Tinker-Sampling-Backpressure": "1"} if backpressure else {},
    )
    return dict(future.model_dump())


async def raw_poll(n: int, request_id: str, timeout: float = 60.0, key: str | None = None) -> dict[str, Any]:
    """One poll, whatever it answers."""
    client = raw_client(key).with_options(max_retries=0, timeout=timeout)
    try:
        request = types.FutureRetrieveRequest(request_id=request_id)
        raw = await client.futures.with_raw_response.retrieve(request=request)
    except tinker.APIStatusError as exc:
        return {"status": exc.status_code, "headers": dict(exc.response.headers), "body": exc.body}
    content = raw.json()
    content = await content if inspect.isawaitable(content) else content
    return {"status": raw.status_code, "headers": dict(raw.headers), "body": content}


async def raw_train(n: int, model: str) -> None:
    request = types.CreateModelRequest(session_id="mine", model_seq_id=0, base_model=model)
    await raw_client(None).models.create(request=request)


def act(n: int, do: Callable[..., Any], asked: dict[str, Any]) -> None:
    try:
        found = do(n, **asked)
        if inspect.iscoroutine(found):
            found = asyncio.run_coroutine_threadsafe(found, loop).result()
        say(n, result=found)
    except BaseException as exc:  # a future's CancelledError, too
        say(n, **error(exc))


DOES: dict[str, Callable[..., Any | Awaitable[Any]]] = {
    do.__name__: do
    for do in (
        *(sampler, begin, sample, result, result_async, cancel, logprobs, as_bytes, from_bytes, handle, from_handle),
        *(base_model, capabilities, get_sampler, train, close, in_a_block),
        *(raw_session, raw_sample, raw_poll, raw_train),
    )
}

for line in sys.stdin:
    asked = json.loads(line)
    arguments = (asked.pop("n"), DOES[asked.pop("do")], asked)
    threading.Thread(target=act, args=arguments, daemon=True).start()
