"""A home of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

TOKEN = "tml-0f0e0d0c0b0a09080706050403020100"


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
