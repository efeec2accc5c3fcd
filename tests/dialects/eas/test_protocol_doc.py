"""PROTOCOL.md says what the code does: routes, roles, headers, parameters, attributes, status codes, limits, tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from flask import Flask
from werkzeug import exceptions

from eas_queue import auth
from eas_queue.auth import Access
from eas_queue.dialects import eas, failure
from eas_queue.dialects.eas import codec, parameters, routes, schema, watch, websocket
from eas_queue.engine import errors, items, queues, watching
from eas_queue.engine.engine import Engine
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store import scripts
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.dialects.eas.test_access import OPERATIONS
from tests.support.installation import ROOT

TEXT = Path(eas.__file__).with_name("PROTOCOL.md").read_text()
HERE = Path(__file__).parent
WEB_SERVER = {414, 431}  # gunicorn's own


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M)
    assert found is not None, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of all table rows of a section, heads and rules left out."""
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", section(title), re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def first_cells(title: str) -> list[str]:
    return [row[0].strip("`") for row in rows(title)]


def test_it_names_its_version_and_nothing_outside_of_the_project() -> None:
    assert re.search(r"^Version: pai-eas/1\b", TEXT, re.M)
    assert "shared/" not in TEXT


def test_every_link_leads_somewhere() -> None:
    anchors = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target in anchors
        else:
            assert (Path(eas.__file__).parent / target).exists(), target


def test_every_route_is_in_the_document_and_no_other() -> None:
    made = Flask("doc")
    engine = Engine(
        Store(Client("redis://127.0.0.1:1/0")),  # opens no connection
        Services({}, ServiceSettings(), allow_unlisted=True, result_ttl_s=60),
    )
    made.register_blueprint(routes.blueprint(engine, Access(()), max_payload_bytes=1, max_wait_s=1))
    served = {
        f"{method} /api/predict/{rule.rule.removeprefix(routes.PREFIX).replace('<path:rest>', '<path>').rstrip('/')}"
        for rule in made.url_map.iter_rules()
        if rule.endpoint.startswith("eas.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert set(first_cells("Routes")) == served


def test_every_operation_is_there_with_its_role() -> None:
    assert {row[0]: {row[1]} for row in rows("Operations")} == {name: each[3] for name, each in OPERATIONS.items()}


def test_the_headers_are_those_that_are_read_and_sent() -> None:
    keys = {f"HTTP_{name.upper().replace('-', '_')}" for name in first_cells("Headers")}

    assert keys == {*parameters._MARKS, parameters._REQUEST_ID_KEY}
    assert {
        parameters.USER_HEADER,
        parameters.GROUP_HEADER,
        parameters.PRIORITY_HEADER,
        parameters.REAR_HEADER,
        parameters.REQUEST_ID_HEADER,
    } <= set(first_cells("Headers"))


def test_the_parameters_are_those_that_are_read() -> None:
    code = inspect.getsource(parameters) + inspect.getsource(routes)

    assert set(first_cells("Parameters")) == set(re.findall(r'"(_[a-z_]+_)"', code))


def test_the_booleans_are_those_that_are_understood() -> None:
    [written] = [row[1] for row in rows("Values") if row[0] == "boolean"]

    assert set(re.findall(r"`(\w+)`", written)) == parameters._TRUE | parameters._FALSE


def test_the_attributes_are_those_that_are_sent() -> None:
    consumer = items.ConsumerView("g.u", "g", 1, 0, 0, None, 1, 1, False, {})
    view = items.QueueView(0, 0, 0, 0, (consumer,), (items.GroupView("g", 0, 0, 0, 1, 0),))

    assert set(first_cells("Attributes")) == set(schema.attributes("s", view, max_length=1, max_payload_bytes=1))


def test_every_status_code_is_in_the_document_and_no_other() -> None:
    raised = {failure._STATUS[kind][0] for kind in failure._STATUS}
    others = (
        auth.Unauthorized(""),
        auth.Forbidden(""),
        exceptions.MethodNotAllowed(),
        exceptions.RequestEntityTooLarge(),
    )
    raised |= {failure.of(exc, max_payload_bytes=1).status for exc in (*others, RuntimeError())}
    handshake = {int(code) for code in re.findall(r"BadHandshake\(.*?, (\d{3})", inspect.getsource(websocket))}

    assert {int(code) for code in first_cells("Status codes")} == raised | handshake | WEB_SERVER | {101, 200, 204}


@pytest.mark.parametrize("kind", failure._STATUS, ids=lambda kind: kind.__name__)
def test_every_error_is_a_line_of_text_without_retry_after(kind: type[Exception]) -> None:
    status, title = failure._STATUS[kind]

    with Flask("doc").app_context():
        response = importlib.import_module("eas_queue.dialects.eas.dialect").render_error(
            failure.Failure(status, "code", title, "what", 7)
        )

    assert response.status_code == status
    assert response.get_data() == b"what\n"
    assert response.content_type == codec.TEXT_TYPE
    assert "Retry-After" not in response.headers


def test_the_limits_are_those_in_force() -> None:
    found = {row[0].strip("`"): row[1].replace(",", "") for row in rows("Limits")}
    lua = (scripts.FOLDER / "parts/consumers.lua").read_text()
    [groups_most] = re.findall(r"^local GROUPS_MOST = (\d+)", lua, re.M)

    assert found["_timeout_"].startswith(f"{routes.WAIT_MOST_S:g} s")
    assert found["items of one get"].startswith(f"{items.ITEMS_MOST} and {queues.ANSWER_BYTES_MOST} bytes")
    assert found["indexes of one call"].startswith(f"{queues.INDEXES_MOST} ")
    assert found["_window_"] == str(parameters.WINDOW_MOST)
    assert found["groups of a queue"] == groups_most
    assert found["user, group"] == f"{items.NAME_MOST} characters"


def test_the_times_in_the_text_are_those_in_force() -> None:
    text = re.sub(r"\s+", " ", TEXT)

    assert f"after {watch.SILENT_S:g} s without a frame" in text
    assert f"after {watch.NEVER_PINGED_S:g} s from one that has not" in text
    assert f"pinged after {watch.PING_EVERY_S:g} s" in text
    assert f"silent for {watch.CHALLENGED_S:g} s" in text
    assert f"waited for {watching.BUSY_S:g} s" in text
    assert f"killed, within {watching.LEASE_MS / 1000:g} s" in text
    assert f"`{parameters.DEFAULT_GROUP}`" in text
    assert f"`max_attempts`, {ServiceSettings().max_attempts} " in text
    assert dict(zip(first_cells("Parameters"), (row[2] for row in rows("Parameters")), strict=True))["_window_"] == str(
        parameters.DEFAULT_WINDOW
    )


def test_idle_connections_outlive_the_pools_of_clients() -> None:
    [seconds] = re.findall(r"^keepalive = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.M)

    assert int(seconds) >= 75


def test_every_rule_is_held_by_tests_that_there_are() -> None:
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row[1]) for row in rows("Rules")]

    assert len(named) > 80
    assert all(named)
    for file, name in (each for some in named for each in some):
        path = ROOT / file if "/" in file else HERE / file
        tests = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{file}::{name}"


def test_every_engine_error_is_translated() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EngineError)}

    assert set(failure._STATUS) == kinds - {errors.EngineError, errors.QueueError}
