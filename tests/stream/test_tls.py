"""Over TLS: calls and watches trust the same certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stream.conftest import Call
from tests.support import tls
from tests.support.queue_stub import Pusher, QueueStub


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[QueueStub, Path]]:
    bundle, context = tls.made(tmp_path)
    stub = QueueStub(context)
    yield stub, bundle
    stub.stop()


def push(pusher: Pusher) -> None:
    pusher.push(4, b"data4")
    pusher.await_end()


def test_a_bundle_of_ones_own_is_trusted_by_calls_and_watches(call: Call, encrypted: tuple[QueueStub, Path]) -> None:
    stub, bundle = encrypted
    stub.pushes = [push]
    env = {"EAS_QUEUE_STREAM_URL": stub.url, "REQUESTS_CA_BUNDLE": str(bundle)}

    assert call("delete", "3", "-y", env=env).exit_code == 0
    assert "[0 - 4] tags[] data4\n" in call("watch", env=env).stdout


@pytest.mark.parametrize("command", [["info"], ["watch"]])
def test_a_certificate_that_is_not_trusted_is_5(
    call: Call, encrypted: tuple[QueueStub, Path], command: list[str]
) -> None:
    done = call(*command, env={"EAS_QUEUE_STREAM_URL": encrypted[0].url})

    assert done.exit_code == 5
    assert "its certificate is not trusted (self-signed certificate" in done.stderr
    assert "REQUESTS_CA_BUNDLE" in done.stderr
    assert encrypted[0].asked == []
