"""PROTOCOL.md says what the code does: ways in, routes, roles, names on the wire, errors, limits, tests."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug import exceptions

import config
from eas_queue import auth
from eas_queue.dialects import failure, fal, outbound
from eas_queue.dialects.fal import dialect, entrance, names, parameters, routes, schema, webhook
from eas_queue.dialects.inbound import WITHHELD
from eas_queue.engine import errors, following, ids, peeking, retry
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import LogLine, Request, State, Webhook
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store import scripts, store
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.web import make_app
from tests.support.installation import ROOT

TEXT = Path(fal.__file__).with_name("PROTOCOL.md").read_text()
HERE = Path(__file__).parent
TOKEN = "a token for the document"
ID = ids.new_id(1)
OURS = ("ForwardFailed", "ResultTooLarge")  # not the target's doing
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


def plain(title: str) -> str:
    return re.sub(r"\s+", " ", section(title))


def request_in(state: State, **more: Any) -> Request:
    told = {"from_target": True, "status_code": 200, "started_ms": 0, "finished_ms": 1} | more
    return Request("s", "id", state, 1, 100, 1, None, 0, 0, **told)


ENDS = [
    request_in(State.SUCCEEDED),
    request_in(State.CANCELLED),
    request_in(State.EXPIRED),
    *(request_in(State.FAILED, status_code=code) for code in (302, 422, 500, 503)),
    *(
        request_in(State.FAILED, from_target=False, status_code=502, error_type=error_type)
        for error_type in (*schema._PLATFORM, *OURS)
    ),
]


@pytest.fixture(scope="module")
def app() -> Flask:
    """The dialect before a server that is not there."""
    services = Services(
        {}, ServiceSettings(target_url="http://127.0.0.1:9/{path}"), allow_unlisted=True, result_ttl_s=60
    )
    engine = Engine(Store(Client("redis://127.0.0.1:1/0")), services)
    access = auth.Access((auth.Token.plain(TOKEN),))
    return make_app(engine, [dialect(engine, access, base_url="", max_wait_s=1)], max_payload_bytes=100, sweep_s=3600)


def test_it_names_its_version_and_nothing_outside_of_the_project() -> None:
    assert re.search(r"^Version: fal/1\b", TEXT, re.M)
    assert "shared/" not in TEXT


def test_every_link_leads_somewhere() -> None:
    anchors = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target in anchors
        else:
            assert (Path(fal.__file__).parent / target.partition("#")[0]).exists(), target


def test_the_ways_in_are_those_that_there_are() -> None:
    prefix, host, proxy = tables("Ways in")[0]

    assert [cell.strip("`") for cell in prefix[1:]] == [entrance.QUEUE_PREFIX, entrance.RUN_PREFIX]
    assert {cell.strip("`").lower() for cell in host[1:]} <= set(config.Settings.model_fields)
    assert [cell.strip("`") for cell in proxy[1:]] == [f"https://{name}/" for name in entrance._PROXIED]
    assert f"`{entrance.PROXY_PATH}`" in section("Ways in")
    assert all(f"`{path}`" in section("Ways in") for path in entrance._NOT_OF_HOST)


def test_the_namespaces_are_those_that_are_known() -> None:
    assert set(re.findall(r"`(\w+)/`", section("Names"))) == names.NAMESPACES


def test_every_route_is_served_and_every_action_is_a_route(app: Flask) -> None:
    client, actions = app.test_client(), set()
    for route, role, _ in tables("Routes")[0]:
        method, _, path = route.strip("`").partition("`")[0].partition(" ")
        if method == "OPTIONS":
            continue
        assert role in ALL_ROLES
        actions.add(path.partition("<id>")[2])
        url = path.replace("<endpoint>", "acme/demo").replace("<id>", ID).replace("<path>", "a/b")
        answer = client.open(url, method=method, headers={"Authorization": f"Key {TOKEN}"})
        assert answer.status_code == 503, (url, answer.get_data())  # it asked for Redis, which is away

    [known] = re.findall(r"\(\?:/\((.*?)\)\)\?", names._OPERATION.pattern)
    assert actions == {""} | {f"/{action}" for action in known.split("|")}


def test_without_redis_every_route_is_503(app: Flask) -> None:
    client, headers = app.test_client(), {"Authorization": f"Key {TOKEN}"}
    for method, path in (
        ("POST", "/fal/a/b"),
        ("GET", f"/fal/a/b/requests/{ID}/status"),
        ("PUT", f"/fal/a/b/requests/{ID}/cancel"),
    ):
        answer = client.open(path, method=method, headers=headers)

        assert (answer.status_code, answer.content_type) == (503, "application/json")
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.json is not None and answer.json["detail"] == answer.json["message"]


def test_the_parameters_and_headers_are_those_that_are_read() -> None:
    code = inspect.getsource(parameters)
    written = set(re.findall(r"`([A-Za-z-]+)`", " ".join(row[0] for row in tables("Submit")[1])))

    assert set(cells("Submit", 0)) == parameters.OWN
    assert {name for name in written if name.startswith("X-Fal-")} == set(re.findall(r'"(X-Fal-[A-Za-z-]+)"', code)) - {
        parameters._ENDPOINT_HEADER
    }
    assert f"`{parameters._ENDPOINT_HEADER}`" in section("Submit")
    assert {f"`{name}`" for name in parameters._WITHHELD - {"x-fal-endpoint"}} <= set(
        re.findall(r"`[a-z-]+`", section("Submit"))
    )
    assert {"authorization", "x-fal-request-id", "x-request-attempt"} <= WITHHELD


def test_the_conditions_of_retries_are_those_that_are_read() -> None:
    assert set(cells("Retries")) == parameters._CONDITIONS
    assert f"at most {parameters.RETRIES_MOST}," in plain("Retries")
    assert f"(`max_attempts`, {ServiceSettings().max_attempts})" in plain("Retries")
    assert ", ".join(str(code) for code in ServiceSettings().retry_on) in plain("Retries")
    assert "`X-Fal-Needs-Retry`" in section("Retries") and retry.NEEDS_RETRY == "x-fal-needs-retry"


def test_the_words_are_those_that_are_sent() -> None:
    written = {row[0].strip("`"): int(row[1]) for row in tables("Status")[0]}
    sent = {schema.word(each): schema.status_code(each) for each in map(request_in, State)}

    assert written == sent


def test_the_members_of_the_status_are_in_the_document_in_their_order() -> None:
    links = schema.Links.of("http://h/fal", "a/b", "id")
    queued = schema.status_json(request_in(State.QUEUED), links, None)
    failed = schema.status_json(request_in(State.CANCELLED), links, [])

    assert cells("Status", 1) == [*queued, *(name for name in failed if name not in queued)]


def test_the_levels_are_those_that_are_written() -> None:
    [example] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section("Status"), re.S)]

    assert schema.log_json(LogLine(1, 1_795_214_401_204, "info", "weights loaded")) == example
    for level, name in schema._LEVELS.items():
        assert re.search(rf"`{name}` for [a-z ]*{level}", plain("Status"))


def test_the_examples_have_the_shape_that_is_sent() -> None:
    [submitted] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section("Submit"), re.S)]
    [error] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section("Errors"), re.S)]
    links = schema.Links.of("http://127.0.0.1:5000/fal", "acme/demo", submitted["request_id"])

    assert {name: submitted[name] for name in links._fields} == links._asdict()
    assert error == json.loads(schema.error_json(error["detail"], error["error_type"]))


def test_what_is_not_relayed_is_in_the_document() -> None:
    sentence = section("Result").partition("Not relayed:")[2].partition(". ")[0]

    assert set(re.findall(r"`([a-z0-9-]+)`", sentence)) == outbound._NOT_RELAYED | set(routes._NOT_RELAYED)


def test_pages_may_read_what_is_in_the_document() -> None:
    assert set(re.findall(r"`(x-fal-[a-z-]+)`", section("Browsers"))) == set(routes._EXPOSED.split(", "))


def test_every_error_type_is_in_the_document_with_its_code() -> None:
    written = {row[0].strip("`"): row[1] for row in tables("Errors")[0]}
    told = {
        name: (row[0].strip("`"), int(row[1]))
        for row in tables("Errors")[0]
        for name in re.findall(r"`([A-Z]\w+)`", row[2])
        if name in known_ends()
    }
    found = [schema.fault(each) for each in ENDS]
    codes = {each.error_type: str(each.status_code) for each in found if each is not None and each.error_type}
    codes["bad_request"], codes["runner_server_error"] = "400", "500 to 599"

    assert written == codes
    assert told == schema._PLATFORM | dict.fromkeys(OURS, ("internal_error", 500))


def known_ends() -> set[str]:
    """The error types with which requests fail that have no answer of their target."""
    found = {"ConnectionClosed"}  # of an attempt that never began; nothing is kept of it but this word
    for file in (ROOT / "eas_queue").rglob("*.py"):
        found |= set(re.findall(r'NoAnswer\(\s*\d+,\s*"(\w+)"', file.read_text()))
    for file in scripts.FOLDER.rglob("*.lua"):
        text = file.read_text()
        found |= set(re.findall(r"\b(?:fail_request|hand_back)\(s, .*?'([A-Z][a-z]\w+)'", text))
        found |= set(re.findall(r"'failed', \{.*?'error_type', '(\w+)'", text))
    return found


def test_every_way_to_fail_is_known() -> None:
    assert known_ends() == set(schema._PLATFORM) | set(OURS)


@pytest.mark.parametrize("request_", ENDS, ids=lambda each: f"{each.state}-{each.status_code}-{each.error_type}")
def test_an_error_is_told_where_the_result_is_none(request_: Request) -> None:
    content = schema.status_json(request_, schema.Links.of("", "a/b", "id"), None)
    found = schema.fault(request_)

    assert ("error" in content) == (found is not None) == (request_.state is not State.SUCCEEDED)
    assert "error_type" not in content or "error" in content
    if found is not None:
        assert 300 <= found.status_code <= 599
        assert content["error"] == found.text != ""


def test_every_status_code_is_in_the_document_and_no_other() -> None:
    raised = {failure._STATUS[kind][0] for kind in failure._STATUS if kind in _REACHED}
    others = (
        auth.Unauthorized(""),
        auth.Forbidden(""),
        exceptions.MethodNotAllowed(),
        exceptions.RequestEntityTooLarge(),
    )
    raised |= {failure.of(exc, max_payload_bytes=1).status for exc in others}
    raised |= {routes._ForeignTarget.code, routes._UnknownEndpoint.code}

    assert {int(code) for code in cells("Errors", 1)} == raised


_REACHED = set(failure._STATUS) - {
    errors.ConsumerBusy,  # of consumers, which this dialect has none of
    errors.FilterMismatch,
    errors.TooManyGroups,
    errors.NotPulled,
    errors.NotTaken,
    errors.NotCancellable,  # told as 400
}


@pytest.mark.parametrize("kind", failure._STATUS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_shape_that_is_documented(kind: type[Exception]) -> None:
    status, title = failure._STATUS[kind]
    code = kind.code if issubclass(kind, errors.EngineError) else "code"

    with Flask("doc").app_context():
        response = routes.render_error(failure.Failure(status, code, title, "what", 7))

    content = json.loads(response.get_data())
    assert content["detail"] == content["message"] == ("Queue is full" if kind is errors.QueueFull else "what")
    assert content.get("error_type") == response.headers.get("X-Fal-Error-Type") == {400: "bad_request"}.get(status)
    assert (response.status_code, response.content_type) == (status, "application/json")
    assert response.headers["Retry-After"] == "7"


def test_the_limits_are_those_in_force() -> None:
    fields = {name.upper(): field.default for name, field in config.Settings.model_fields.items()}
    found = {row[0]: row[1].replace(",", "") for row in tables("Limits")[0]}

    assert found["body"] == f"`MAX_PAYLOAD_BYTES` {fields['MAX_PAYLOAD_BYTES']} bytes"
    assert found["result"] == f"`MAX_RESULT_BYTES` {fields['MAX_RESULT_BYTES']} bytes"
    assert found["a call of the synchronous host"] == f"`MAX_WAIT_S` {fields['MAX_WAIT_S']:g} s"
    assert found["start timeout"] == (
        f"above {parameters.START_TIMEOUT_LEAST_S:g} s at most {parameters.START_TIMEOUT_MOST_S} s"
    )
    assert found["log lines of a request"] == str(store.LOG_LINES_KEPT)
    assert f"the latest {store.LOG_LINES_KEPT}." in plain("Status")
    assert found["retries of a condition"].startswith(f"{parameters.RETRIES_MOST};")


def test_the_times_in_the_text_are_those_in_force() -> None:
    assert f"After {following.HEARTBEAT_S:g} s of silence" in plain("Status stream")
    assert f"away for {following.AWAY_MAX_S:g} s" in plain("Status stream")
    assert f"{parameters.START_TIMEOUT_MOST_S:,} s" in plain("Deadlines")
    assert f"more than {parameters.CHECKED_VALUES_MOST:,} values" in plain("Submit")
    assert f"log lines included, {parameters.BRIEF_S:,.0f} s later" in plain("Retention")
    assert peeking.POSITIONS_S == 0.5 and "at most twice a second" in plain("Status stream")


def test_every_rule_is_held_by_tests_that_there_are() -> None:
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row[1]) for row in tables("Rules")[0]]

    assert len(named) > 90
    assert all(named)
    for file, name in {each for some in named for each in some}:
        path = ROOT / file if "/" in file else HERE / file
        tests = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{file}::{name}"


def test_the_headers_of_webhooks_are_those_that_are_sent() -> None:
    sent = webhook.headers(Webhook("http://h/", webhook.STYLE), "id", 1, b"", sign=lambda message: message.hex())

    assert cells("Webhooks") == list(sent)
    assert f"`{webhook.ANONYMOUS}`" in tables("Webhooks")[0][1][1]
    assert f"{webhook.PAYLOAD_MOST:,} bytes" in plain("Webhooks")


def test_the_clients_are_those_that_were_run() -> None:
    python = (ROOT / "tests/clients/fal_client.txt").read_text()
    javascript = (ROOT / "tests/clients/fal_js/package.json").read_text()
    [python_version] = re.findall(r"^fal[-_]client==(\S+)", python, re.M)
    [javascript_version] = re.findall(r'"@fal-ai/client": "([^"]+)"', javascript)

    assert f"`fal-client` {python_version} " in TEXT
    assert f"`@fal-ai/client` {javascript_version} " in TEXT
