"""Paths that dialects give to what they claim can't be asked for from outside."""

from __future__ import annotations

import pytest

from eas_queue.auth import Access
from eas_queue.dialects import eas
from eas_queue.engine.engine import Engine
from eas_queue.web import make_app


@pytest.mark.parametrize("path", ["/~eas/demo", "//~eas/demo", "///~eas/demo/sink", "/~eas"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_own_paths_are_not_there(engine: Engine, path: str, method: str) -> None:
    dialect = eas.dialect(engine, Access(()), max_payload_bytes=1000, max_wait_s=1)
    app = make_app(engine, [dialect], max_payload_bytes=1000, sweep_s=60)

    answer = app.test_client().open("/", method=method, environ_overrides={"PATH_INFO": path})

    assert answer.status_code == 404
