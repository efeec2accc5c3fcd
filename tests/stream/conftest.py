"""The commands as people call them, with a home of their own, and a queue that does as the test says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from eas_queue.stream.group import stream
from tests.support.queue_stub import QueueStub

TOKEN = "tml-0f0e0d0c0b0a09080706050403020100"
Call = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's settings but the test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "EAS_QUEUE_STREAM_URL",
        "EAS_QUEUE_STREAM_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def call(home: Path) -> Call:
    """`call("put", "-d", "text", input="y\\n", env={...})`: exit code, stdout and stderr."""

    def act(*arguments: str, input: str | bytes | None = "", env: dict[str, str] | None = None) -> Result:
        done = CliRunner(catch_exceptions=False).invoke(stream, arguments, input=input, env=env)
        assert TOKEN not in done.output, "a token is never shown"
        return done

    return act


@pytest.fixture
def stub() -> Iterator[QueueStub]:
    made = QueueStub()
    yield made
    made.stop()


@pytest.fixture
def call_stub(call: Call, stub: QueueStub) -> Call:
    """`call` for the stub's queue, by the environment."""
    return functools.partial(call, env={"EAS_QUEUE_STREAM_URL": stub.url, "EAS_QUEUE_STREAM_TOKEN": TOKEN})
