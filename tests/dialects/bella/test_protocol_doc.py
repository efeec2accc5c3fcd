"""PROTOCOL.md says what the code does: routes, roles, members, errors, limits, examples, tests."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from flask import Flask
from werkzeug import exceptions

import config
from eas_queue import auth
from eas_queue.dialects import bella, failure, members
from eas_queue.dialects.bella import dialect, parameters, routes
from eas_queue.engine import errors, ids
from eas_queue.engine.engine import Engine
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.web import make_app
from tests.support.installation import ROOT

TEXT = Path(bella.__file__).with_name("PROTOCOL.md").read_text()
HERE = Path(__file__).parent
TOKEN = "a token for the document"
ID = ids.new_id(1)
ALL_ROLES = {role.value for role in auth.Role}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M)
    assert found is not None, title
    return found[1]


def tables(title: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, heads and rules left out."""
    found = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", section(title), re.M)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in each.splitlines()] for each in found]


def cells(title: str, table: int = 0) -> list[str]:
    return [row[0].strip("`") for row in tables(title)[table]]


def example(title: str) -> dict[str, object]:
    [found] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section(title), re.S)]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def app() -> Flask:
    """The dialect before a server that is not there."""
    services = Services({"q": ServiceSettings(mode="pull")}, ServiceSettings(), allow_unlisted=True, result_ttl_s=60)
    engine = Engine(Store(Client("redis://127.0.0.1:1/0")), services)
    access = auth.Access((auth.Token.plain(TOKEN),))
    return make_app(
        engine,
        [dialect(engine, access, max_wait_s=1, max_result_bytes=1000, fifo_most=10)],
        max_payload_bytes=1000,
        sweep_s=3600,
    )


def test_it_names_its_version_and_nothing_outside_of_the_project() -> None:
    assert re.search(r"^Version: bella/1\b", TEXT, re.M)
    assert "shared/" not in TEXT


def test_every_link_leads_somewhere() -> None:
    anchors = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        if not file:
            assert target in anchors
            continue
        text = (Path(bella.__file__).parent / file).read_text()
        assert not anchor or anchor in [
            title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)
        ]


BODIES = {
    "register": {"queue": "q", "endpoint": "/e"},
    "put": {"queue": "q", "endpoint": "/e", "data": {}},
    "take": {"queues": ["q:1"], "size": 1},
    "<task_id>/renew": {"process_timeout": 1},
    "<task_id>/progress": {"progress": {}},
}


@pytest.mark.parametrize("row", tables("Routes")[0], ids=lambda row: row[0])
def test_every_route_is_served_and_503_without_redis(app: Flask, row: list[str]) -> None:
    method, _, path = row[0].strip("`").partition(" ")
    assert row[1] in ALL_ROLES
    tail = path.removeprefix("/v1/queue/")
    url = path.replace("<queue>", "q").replace("<level>", "1").replace("<task_id>", ID)

    answer = app.test_client().open(
        url, method=method, json=BODIES.get(tail, {}), headers={"Authorization": f"Bearer {TOKEN}"}
    )

    if tail == "eventbus":  # which asks nobody
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.content_type) == (503, "application/json")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json is not None and answer.json["code"] == 503


def test_no_route_is_left_out(app: Flask) -> None:
    written = {tuple(row[0].strip("`").split(" ")) for row in tables("Routes")[0]}
    served = {
        (method, re.sub(r"<(?:\w+(?:\(.*?\))?:)?(\w+)>", r"<\1>", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/v1/")
    }

    assert len(served) == len(written)
    assert {method for method, _ in served} == {"GET", "POST"}


def test_without_a_token_the_answer_is_empty(app: Flask) -> None:
    answer = app.test_client().get("/v1/queue/eventbus")

    assert (answer.status_code, answer.get_data()) == (401, b"")


def test_every_status_code_is_in_the_document_and_no_other() -> None:
    raised = {failure._STATUS[kind][0] for kind in _REACHED}
    others = (
        auth.Unauthorized(""),
        auth.Forbidden(""),
        exceptions.MethodNotAllowed(),
        exceptions.RequestEntityTooLarge(),
        RuntimeError(),
    )
    raised |= {failure.of(exc, max_payload_bytes=1).status for exc in others}
    raised |= {408, 409}  # a blocking put that waited in vain; a lease that is none

    assert {int(code) for code in cells("Errors")} == raised


_REACHED = set(failure._STATUS) - {
    errors.AttemptOver,  # of targets
    errors.ConsumerBusy,  # of consumers, which this dialect has none of
    errors.FilterMismatch,
    errors.TooManyGroups,
    errors.NotCancellable,  # no mistake here
}


@pytest.mark.parametrize("kind", failure._STATUS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_shape_that_is_documented(app: Flask, kind: type[Exception]) -> None:
    status, title = failure._STATUS[kind]
    code = kind.code if issubclass(kind, errors.EngineError) else "code"

    with app.app_context():
        response = routes.render_error(failure.Failure(status, code, title, "what", 7))

    content = json.loads(response.get_data())
    assert list(content) == list(example("Errors"))
    assert content["code"] == response.status_code == status
    assert content["message"] == ("Queue full" if kind is errors.QueueFull else "what")
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Retry-After"] == "7"


def test_the_members_are_those_of_the_examples() -> None:
    assert set(example("Put")) == set(cells("Put"))
    assert set(example("Take")) <= set(cells("Take"))
    assert set(example("Complete")) == set(cells("Complete"))
    assert set(cells("Task")) - set(example("Task")) == {"instance_id", "result"}
    assert set(example("Task")) <= set(cells("Task"))
    assert set(cells("Other protocols")) <= set(example("Task"))


def test_the_limits_are_those_in_force() -> None:
    fields = {name.upper(): field.default for name, field in config.Settings.model_fields.items()}
    found = {row[0]: row[1].replace(",", "") for row in tables("Limits")[0]}

    assert found["body of a put"] == f"`MAX_PAYLOAD_BYTES` {fields['MAX_PAYLOAD_BYTES']} bytes"
    limit = f"a body of `MAX_RESULT_BYTES` {fields['MAX_RESULT_BYTES']} bytes in base64"
    assert found["body of a complete"].partition(";")[0] == limit
    assert found["body of a report"] == f"{routes._PROGRESS_BYTES} bytes and `MAX_PAYLOAD_BYTES`"
    assert found["other bodies"] == f"{routes._SMALL_BYTES} bytes"
    assert found["values of a body"].startswith(f"{members.VALUES_MOST}:")
    assert found["events of a report"] == str(parameters.EVENTS_MOST)
    assert found["a number of seconds"] == str(parameters.SECONDS_MOST)
    assert f"up to {parameters.TRACE_MOST} characters" in section("Put")
    assert f"up to {parameters.ENDPOINT_MOST} characters" in section("Put")
    assert (
        found["tasks of a take"]
        == f"{parameters.SIZE_MOST}; of a `fifo` one {fields['BELLA_FIFO_MOST']} (`BELLA_FIFO_MOST`)"
    )
    assert found["queues of a take"] == str(parameters.QUEUES_MOST)
    assert found["wait of a take"] == f"{parameters.WAIT_MOST_S:g} s"
    assert found["name of a queue"] == "64 characters"


def test_every_rule_is_held_by_tests_that_there_are() -> None:
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row[2]) for row in tables("Rules")[0]]

    assert [int(row[0]) for row in tables("Rules")[0]] == list(range(1, len(named) + 1))
    assert len(named) > 80
    assert all(named)
    for file in {file for some in named for file, _ in some}:
        path = ROOT / file if "/" in file else HERE / file
        tests = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert {name for some in named for its_file, name in some if its_file == file} <= tests


def test_every_test_of_the_wire_is_named_by_a_rule() -> None:
    named = {name for row in tables("Rules")[0] for _, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row[2])}
    for path in sorted(HERE.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef)
                and node.name.startswith("test_")
                and node.name != "test_the_table_is_read"
            ):
                assert node.name in named, f"{path.name}::{node.name}"
