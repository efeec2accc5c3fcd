"""PROTOCOL.md says what the code does: routes, words, error codes, members, headers and limits, both ways."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug import exceptions

import config
from eas_queue import auth
from eas_queue.auth import Access
from eas_queue.dialects import failure, inbound, native, problem
from eas_queue.dialects.native import schema
from eas_queue.engine import errors
from eas_queue.engine.deliveries import Delivery
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request, State, Webhook
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.client import Client
from eas_queue.store.store import Store

TEXT = Path(native.__file__).with_name("PROTOCOL.md").read_text()
# One of each, as the engine raises them.
ENGINE_ERRORS = [
    errors.InvalidRequest("why"),
    errors.ServiceNotFound("s"),
    errors.RequestNotFound("id", 60),
    errors.WebhookNotFound("id"),
    errors.NotCancellable("id", "failed"),
    errors.IdempotencyConflict("s"),
    errors.QueueFull("s", 1, 1),
    errors.RateLimited(1, 1),
    errors.WaiterGone("id"),
    errors.AttemptOver("id"),
    errors.TooManyServices("s"),
    errors.Unavailable("why"),
]
OTHER_ERRORS = [
    auth.Unauthorized("why"),
    auth.Forbidden("why"),
    exceptions.NotFound(),
    exceptions.MethodNotAllowed(["GET"]),
    exceptions.ClientDisconnected(),
    exceptions.RequestEntityTooLarge(),
    RuntimeError("a defect"),
]


def section(title: str) -> str:
    """What stands under this heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", TEXT, re.S | re.M)
    assert found is not None, title
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows of *text*, heads and rules left out."""
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def code(cell: str) -> str:
    return cell.strip("`")


def request_in(state: State, attempts: int = 0) -> Request:
    return Request("s", "id", state, 1, 100, attempts, None, 0, 0, from_target=True, status_code=200)


def shown(request: Request) -> dict[str, Any]:
    return schema.status_json(request, b"", "/result")


def app() -> Flask:
    made = Flask("doc")
    services = Services({}, ServiceSettings(), allow_unlisted=True, result_ttl_s=60)
    engine = Engine(Store(Client("redis://127.0.0.1:1/0")), services)  # opens no connection
    for routes in native.dialect(engine, Access(()), base_url="", max_wait_s=1).routes:
        made.register_blueprint(routes)
    return made


def test_the_document_names_its_version() -> None:
    assert re.search(r"^Version: native/1\b", TEXT, re.M)


def test_every_route_is_in_the_document_and_no_other() -> None:
    written = {code(row[0]) for row in rows(section("Routes"))}
    served = {
        f"{method} {rule.rule.replace('<path:subpath>', '<path>')}"
        for rule in app().url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert written == served


def test_the_roles_of_the_routes_are_known() -> None:
    assert {row[1] for row in rows(section("Routes"))} <= {role.value for role in auth.Role} | {"target", "anybody"}


def test_every_status_word_is_in_the_document_with_its_code_and_message() -> None:
    written = {code(row[0]): (int(row[1]), row[2]) for row in rows(section("Status")) if row[1].isdecimal()}
    requests = [request_in(state, attempts) for state in State for attempts in (0, 1)]
    served = {schema.status_word(each): (schema.status_code(each), shown(each)["message"]) for each in requests}

    assert written == served


def test_the_members_of_the_status_are_in_the_document_in_their_order() -> None:
    members = list(shown(request_in(State.SUCCEEDED)))
    written = [code(row[0]) for row in rows(section("Status")) if len(row) == 2]

    assert written == members


def test_every_error_code_is_in_the_document_with_its_http_status() -> None:
    written = {code(row[0]): row[1] for row in rows(section("Errors"))}
    raised = [failure.of(exc, max_payload_bytes=1) for exc in [*ENGINE_ERRORS, *OTHER_ERRORS]]
    without_answer = {
        "request-failed": "502, 504",
        **{f"request-{state}": "410" for state in (State.CANCELLED, State.EXPIRED)},
    }

    assert {type(exc) for exc in ENGINE_ERRORS} == set(errors.EngineError.__subclasses__()) - {errors.QueueError}
    assert written == {each.code: str(each.status) for each in raised} | without_answer


@pytest.mark.parametrize("exc", [*ENGINE_ERRORS, *OTHER_ERRORS], ids=lambda exc: type(exc).__name__)
def test_every_error_is_rendered_in_the_documented_shape(exc: Exception) -> None:
    found = failure.of(exc, max_payload_bytes=1)

    with app().app_context():
        response = problem.render(found)

    content = json.loads(response.get_data())
    assert list(content)[:4] == ["type", "title", "status", "detail"]
    assert (response.status_code, response.content_type) == (content["status"], "application/problem+json")
    assert content["type"] == problem.TYPE_PREFIX + found.code
    assert problem.TYPE_PREFIX in section("Errors")
    assert ("Retry-After" in response.headers) == ("retry_after_s" in content) == (found.retry_after_s is not None)
    assert ("WWW-Authenticate" in response.headers) == (response.status_code == 401)
    assert ("Allow" in response.headers) == (response.status_code == 405)


def test_the_examples_have_the_documented_shape() -> None:
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", TEXT, re.S)]
    words = {schema.status_word(request_in(state, attempts)) for state in State for attempts in (0, 1)}
    statuses = [example for example in examples if "type" not in example]
    problems = [example for example in examples if "type" in example]

    assert len(statuses) == 3
    assert len(problems) == 1
    assert [list(example) for example in statuses] == [list(shown(request_in(State.QUEUED)))] * 3
    assert {example["status"] for example in statuses} <= words
    assert {example["type"].removeprefix(problem.TYPE_PREFIX) for example in problems} <= {
        code(row[0]) for row in rows(section("Errors"))
    }


def test_the_withheld_headers_are_in_the_document() -> None:
    sentence = section("To the target").partition("are withheld:")[2].partition("and\nthose that")[0]
    prefixes = {f"{prefix}*" for prefix in inbound.WITHHELD_PREFIXES}

    assert set(re.findall(r"`([a-z*-]+)`", sentence)) == inbound.WITHHELD | prefixes


def test_the_limits_in_the_document_are_the_defaults() -> None:
    fields = {name.upper(): field.default for name, field in config.Settings.model_fields.items()}
    fields |= {name: field.default for name, field in ServiceSettings.model_fields.items()}
    limits = {code(row[2]): row[1] for row in rows(section("Limits")) if row[2]}
    inline = [row[1] for row in rows(section("Limits")) if row[0] == "answer shown inside the status"]

    assert len(limits) == 5
    assert {name: int(re.sub(r"\D.*", "", text.replace(",", ""))) for name, text in limits.items()} == {
        name: fields[name] for name in limits
    }
    assert inline == [f"{schema.INLINE_BODY_MAX_BYTES:,} bytes"]


def test_the_members_of_a_webhook_are_in_the_document_in_their_order() -> None:
    delivery = Delivery(1, "id", Webhook("https://a.example/b?c", "native"), "pending", 0, None, None, "", None)

    written = [code(row[0]) for row in rows(section("Webhooks")) if len(row) == 2]

    assert written == list(schema.webhook_json(delivery))


def test_the_events_of_webhooks_are_in_the_document() -> None:
    written = set(re.findall(r"`request\.([a-z]+)`", section("Webhooks")))

    assert written == {state.value for state in State if state.is_terminal}
