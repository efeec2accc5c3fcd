"""PROTOCOL.md says what the code does: routes, roles, members, words, errors, limits, examples, clients, tests."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug import exceptions

import config
from eas_queue import auth
from eas_queue.dialects import failure, members
from eas_queue.dialects.tinker import (
    account,
    answers,
    dialect,
    names,
    parameters,
    pending,
    protobuf,
    sampling,
    training,
)
from eas_queue.dialects.tinker.parameters import About
from eas_queue.engine import errors, eta, ids
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request, State
from eas_queue.engine.service import ALIAS, ALIAS_PARTS_MOST, Services, ServiceSettings
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.web import make_app
from tests.dialects.tinker.conftest import Gate, Tinker
from tests.support.installation import ROOT
from tests.support.installation import TOKEN as INSTALLED_TOKEN
from tests.support.own_target import OwnTarget

FOLDER = Path(sampling.__file__).parent
TEXT = (FOLDER / "PROTOCOL.md").read_text()
HERE = Path(__file__).parent
TOKEN = "tml-of-the-document"
ID = ids.new_id(1)
SESSION = names.session_id("q", "")
EXAMPLE_ID = "00041b77-775a-8226-babe-ceef349ec306"
ASKS_NOBODY = {  # routes that need no Redis
    "create_sampling_session",
    "samplers/<session>",
    "client/config",
    "client/dynamic_config",
    "create_session",
    "session_heartbeat",
    "sessions/<session>/finish",
    "telemetry",
    "get_server_capabilities",
}
BODIES = {
    "create_sampling_session": {"base_model": "q"},
    "join_sampling_session": {"sampling_session_id": SESSION},
    "asample": {"sampling_session_id": SESSION},
    "retrieve_future": {"request_id": ID},
    "cancel_future": {"request_id": ID},
}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M)
    assert found is not None, title
    return found[1]


def plain(title: str) -> str:
    return re.sub(r"\s+", " ", section(title))


def tables(title: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, heads and rules left out."""
    found = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", section(title), re.M)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in each.splitlines()] for each in found]


def cells(title: str, table: int = 0) -> list[str]:
    return [row[0].strip("`") for row in tables(title)[table]]


def examples(title: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section(title), re.S)]


def token_of(role: str) -> str:
    return f"tml-{role}"


@pytest.fixture(scope="module")
def app() -> Flask:
    """The dialect before a server that is not there."""
    services = Services(
        {"q": ServiceSettings(aliases=("Qwen/Qwen3-0.6B",))},
        ServiceSettings(target_url="http://127.0.0.1:9/{path}"),
        allow_unlisted=False,
        result_ttl_s=60,
    )
    engine = Engine(Store(Client("redis://127.0.0.1:1/0")), services)
    tokens = [auth.Token.plain(TOKEN)]
    tokens += [auth.Token(auth.Token.plain(token_of(role)).digest, frozenset({role})) for role in auth.Role]
    access = auth.Access(tuple(tokens))
    return make_app(engine, [dialect(engine, access, max_wait_s=1)], max_payload_bytes=100_000, sweep_s=3600)


def test_it_names_its_version_and_nothing_outside_of_the_project() -> None:
    assert re.search(r"^Version: tinker/1\b", TEXT, re.M)
    assert "shared/" not in TEXT


def test_every_link_leads_somewhere() -> None:
    def anchors(text: str) -> set[str]:
        return {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)}

    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        path = FOLDER / (file or "PROTOCOL.md")
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), target


# ----------------------------------------------------------------------------------------------------------- routes
def routes() -> Iterator[tuple[str, str, str]]:
    """Method, path below the prefix, role."""
    for first, role, _ in tables("Routes")[0]:
        method, _, path = first.strip("`").partition(" ")
        yield method, path, role


@pytest.mark.parametrize(("method", "path", "role"), list(routes()), ids=lambda value: value)
def test_every_route_is_served_to_its_role_and_503_without_redis(app: Flask, method: str, path: str, role: str) -> None:
    def answer(token: str) -> Any:
        url = dialect_url(path.replace("<session>", SESSION))
        headers = {"X-API-Key": token} if token else {}
        return app.test_client().open(url, method=method, json=BODIES.get(path, {}), headers=headers)

    found = answer(TOKEN)
    opened = {each.value for each in auth.Role if answer(token_of(each)).status_code != 403}

    assert found.content_type == "application/json"
    assert found.headers["Cache-Control"] == "no-store"
    assert found.status_code == (200 if path in ASKS_NOBODY else 503)
    assert path in ASKS_NOBODY | {"healthz"} or int(found.headers["Retry-After"]) >= 1
    assert (answer("").status_code == 401) == (role != "none")
    assert opened == {"any": {"submit", "read"}, "none": set(auth.Role)}.get(role, {role})


def dialect_url(path: str) -> str:
    return f"/api/v1/{path}"


def test_no_route_is_left_out(app: Flask) -> None:
    written = {(method, path) for method, path, _ in routes()} | {("POST", call) for call in training.CALLS}
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule).removeprefix("/api/v1/"))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/")
    }

    assert served == written


@pytest.mark.parametrize("call", training.CALLS)
def test_training_is_refused_once(app: Flask, call: str) -> None:
    assert f"`{call}`" in " ".join(row[0] for row in tables("What is not there")[0][:3])
    assert f"`{training.SDK_METHOD_HEADER}`" in section("What is not there")
    for headers, code in (({}, 501), ({training.SDK_METHOD_HEADER: "TrainingClient.forward"}, 404)):
        answer = app.test_client().post(dialect_url(call), json={}, headers={"X-API-Key": TOKEN, **headers})

        assert (answer.status_code, answer.headers["x-should-retry"]) == (code, "false")
        assert answer.json is not None and call in answer.json["detail"]
        assert set(answer.json) == set(examples("Errors")[0])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "auth/token"),
        ("GET", "training_runs"),
        ("GET", "checkpoints"),
        ("GET", "sessions"),
        ("GET", "sessions/s"),
        ("GET", "billing/usage/events"),
        ("GET", "audit"),
    ],
)
def test_what_is_not_there_is_404_and_says_so(app: Flask, method: str, path: str) -> None:
    answer = app.test_client().open(dialect_url(path), method=method, headers={"X-API-Key": TOKEN})

    assert answer.status_code == 404
    assert answer.json is not None and answer.json["detail"] and "error" not in answer.json


def test_the_answers_around_sampling_are_those_of_the_document(app: Flask) -> None:
    client, headers = app.test_client(), {"X-API-Key": TOKEN}
    for row in tables("Around sampling")[0]:
        call, [told] = row[0].strip("`"), re.findall(r"`(\{.*\})`", row[1])
        method = "GET" if call == "get_server_capabilities" else "POST"
        answer = client.open(dialect_url(call.replace("<session>", "s")), method=method, json={}, headers=headers)
        expected = json.loads(told.replace("<session>", "s"))
        found = answer.json
        assert found is not None
        if call == "create_session":
            assert re.fullmatch("[0-9a-f]{32}", found["session_id"]) and "<32 hex digits>" in told
            expected["session_id"] = found["session_id"]

        assert found == expected
        assert list(found) == list(expected)

    assert f"at most {account.CLIENT_CONFIG['sample_max_concurrent_requests']:,} requests" in plain("Around sampling")


def test_sessions_are_as_the_document_says(app: Flask) -> None:
    headers = {"X-API-Key": TOKEN}
    [body] = examples("Sessions and models")
    answer = app.test_client().post(dialect_url("create_sampling_session"), json=body, headers=headers).json
    assert answer is not None
    session = answer["sampling_session_id"]
    sampler = app.test_client().get(dialect_url(f"samplers/{session}"), headers=headers).json

    assert set(body) - {"sampling_session_seq_id"} | {"model_path"} == set(cells("Sessions and models"))
    assert re.fullmatch(r"[0-9a-f]{32}\.[A-Za-z0-9_-]+", session)
    assert names.of_session(session) == body["base_model"]
    assert sampler == {"sampler_id": session, "base_model": body["base_model"]}
    assert names.of_session(examples("asample")[0]["sampling_session_id"]) == body["base_model"]
    assert ALIAS.fullmatch("openai/gpt-oss-20b:peft:131072") and ALIAS_PARTS_MOST == 3
    assert f"at most {names.NAME_MOST} characters" in plain("Sessions and models")
    assert f"`{names.PATH_SCHEME}<path>`" in section("Sessions and models")


# ----------------------------------------------------------------------------------------------------------- asample
def test_the_members_of_asample_are_those_that_are_read(app: Flask) -> None:
    asked, answered = examples("asample")
    read = set(re.findall(r'values(?:\.get\(|, )"(\w+)"', inspect.getsource(parameters) + inspect.getsource(names)))
    own = {name for name, value in vars(parameters).items() if name.endswith("_HEADER") and isinstance(value, str)}

    assert read - {"base_model", "model_path"} == set(cells("asample")) <= set(asked)
    assert list(answered) == ["type", "request_id", "model_id", "sample_sequence_ids"]
    assert answered["sample_sequence_ids"] == [f"{answered['request_id']}:{i}" for i in range(asked["num_samples"])]
    assert f"1 to {parameters.SAMPLES_MOST}, default 1" in plain("asample")
    assert f"more than {members.VALUES_MOST:,} values" in plain("asample")
    assert own == {"BACKPRESSURE_HEADER", "IDEMPOTENCY_HEADER", "MODEL_HEADER"}
    assert f"`{parameters.BACKPRESSURE_HEADER}: 1`" in plain("asample")
    assert f"`{parameters.IDEMPOTENCY_HEADER}`" in plain("asample")
    assert f"`{parameters.MODEL_HEADER}`" in plain("Targets")
    withheld = re.findall(
        r"`(X-(?:Tinker|Stainless|Sdk|Idempotency)-\w*)`", plain("Targets").partition("and besides")[0]
    )
    assert {name.lower() for name in withheld} == set(parameters._OWN_HEADERS)


# ----------------------------------------------------------------------------------------------------------- polls
def request_in(state: State, **more: Any) -> Request:
    told = {"about": About(1, True).packed()} | more
    return Request("demo", EXAMPLE_ID, state, 1, 100, 1, told.pop("position", None), told.pop("depth", 0), 0, **told)


def told(found: Request, *, high_level: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    answer = pending.response(found, high_level=high_level)
    assert answer.status_code == 408
    content = json.loads(answer.get_data())
    assert isinstance(content, dict)
    return content, dict(answer.headers)


def test_the_408_is_that_of_the_document() -> None:
    [example] = examples("Pending")
    content, headers = told(request_in(State.QUEUED, position=1, depth=2, running=1, eta_s=5.25))

    assert content == example
    assert list(content) == list(example) == cells("Pending")
    assert headers["x-should-retry"] == "false" and "`x-should-retry: false`" in section("Pending")


def test_the_headers_of_a_408_are_those_of_the_document() -> None:
    written = {name for row in tables("Pending")[0] for name in re.findall(r"`([XR][\w-]+)`", row[2])}
    progress = {"tokens_generated": 3, "max_tokens": 16}
    _, headers = told(request_in(State.RUNNING, running=1, eta_s=5.25, progress=progress))
    _, fewest = told(request_in(State.QUEUED, depth=1, progress={"tokens_generated": 1.5, "max_tokens": True}))

    assert written == {name for name in headers if name.startswith("X-") or name == "Retry-After"}
    assert headers["X-Queue-ETA-S"] == "5.250"
    assert (headers["X-Queue-Tokens-Generated"], headers["X-Queue-Max-Tokens"]) == ("3", "16")
    assert written - set(fewest) == {
        "X-Queue-Position",
        "X-Queue-ETA-S",
        "X-Queue-Tokens-Generated",
        "X-Queue-Max-Tokens",
    }


def test_the_two_vocabularies_are_those_of_the_document() -> None:
    for row, high_level in zip(tables("Two vocabularies")[0], (False, True), strict=True):
        found = [
            told(request_in(state, position=0, depth=1), high_level=high_level)[0]["queue_state"]
            for state in (State.QUEUED, State.RUNNING)
        ]
        assert [cell.strip("`") for cell in row[1:]] == found

    assert f"`{sampling.HIGH_LEVEL_HEADER}`" in tables("Two vocabularies")[0][1][0]
    again = told(request_in(State.QUEUED, depth=1))[0]
    assert f"`{again['queue_state_reason']}`" in plain("Two vocabularies")
    assert again["queue_state"] == "waiting" and again["queue_position"] is None


@pytest.mark.parametrize(
    ("eta_s", "position", "retry_after_s"),
    [(11.9, 3, 2), (0.1, 3, 1), (1000.0, 3, 30), (None, 0, 1), (None, 3, 4), (None, 50, 10), (None, None, 1)],
)
def test_retry_after_is_as_the_document_says(eta_s: float | None, position: int | None, retry_after_s: int) -> None:
    content, headers = told(request_in(State.QUEUED, position=position, depth=99, eta_s=eta_s))

    assert headers["Retry-After"] == str(retry_after_s)
    assert content["retry_after_s"] == retry_after_s and type(content["retry_after_s"]) is float
    assert f"1 to {pending.RETRY_AFTER_MOST_S};" in plain("Pending")
    assert f"at most {pending.BLIND_RETRY_AFTER_MOST_S};" in plain("Pending")


def test_the_times_in_the_text_are_those_in_force() -> None:
    least_s = sampling.HOLD_MOST_S * sampling.HOLD_LEAST
    assert f"at the latest after {least_s:g} to {sampling.HOLD_MOST_S:g} s" in plain("Polls")
    assert f"than after {sampling.PENDING_LEAST_S:g} s, and no error" in plain("Polls")
    assert f"than after {sampling.BROKEN_LEAST_S:g} s, also" in plain("Polls")
    assert f"before {eta.RUNS_MIN} runs" in plain("Pending")
    assert f"from 1 to {answers.RETRY_AFTER_MOST_S}," in plain("asample")


# ----------------------------------------------------------------------------------------------------------- ends
def shown(found: Request, body: bytes = b"", accept: str = "") -> tuple[dict[str, Any], Response]:
    answer = answers.result(found, body, accept, high_level=False)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    content = json.loads(answer.get_data())
    assert isinstance(content, dict)
    return content, answer


def failed(code: int, *, from_target: bool = True) -> Request:
    said = f"the target answered {code}" if from_target else "no answer within 600 s"
    return request_in(State.FAILED, status_code=code, from_target=from_target, error=said)


def test_a_failure_is_that_of_the_document() -> None:
    [example] = examples("Failures")

    assert shown(failed(422), b'{"detail": "no such token"}')[0] == example
    assert list(example) == ["error", "category", "request_id"]
    assert f"at most {answers.QUOTED_MOST} characters" in plain("Failures")


def test_every_failure_is_in_the_document_with_its_category() -> None:
    rows = tables("Failures")[0]
    done = request_in(State.SUCCEEDED, status_code=200, from_target=True)
    found = [
        [shown(failed(code), b"why")[0] for code in (400, 404, 422, 499)],
        [shown(request_in(State.CANCELLED))[0]],
        [shown(failed(code), b"why")[0] for code in (302, 408, 429, 500, 503)],
        [shown(failed(code, from_target=False))[0] for code in (500, 502, 504)],
        [shown(request_in(State.EXPIRED))[0]],
        [shown(done, b"hello")[0], shown(done, b"{}", "application/json, application/x-protobuf")[0]],
    ]

    assert len(found) == len(rows)
    for (category, _, error), contents in zip(rows, found, strict=True):
        begin = "service demo: the target answered " if error == "as above" else re.findall("`([^`]*)`", error)[0]
        begin = begin.replace("<name>", "demo").partition("<")[0]
        for content in contents:
            assert content["category"] == category.strip("`")
            assert content["error"].startswith(begin)
            assert content["request_id"] == EXAMPLE_ID


def test_what_is_no_object_comes_as_the_document_says() -> None:
    done = request_in(State.SUCCEEDED, status_code=200, from_target=True)

    assert shown(done, b"[1]")[0] == {"result": [1], "request_id": EXAMPLE_ID}
    assert f"more than {answers.READ_MOST:,} bytes" in plain("Results")
    assert answers.result(done, b'{"a": 1.50}', "", high_level=False).get_data() == (
        f'{{"a": 1.50, "request_id": "{EXAMPLE_ID}"}}\n'.encode()
    )


# --------------------------------------------------------------------------------------------------------- targets
def test_the_answer_of_a_target_is_one() -> None:
    [example] = examples("Targets")
    [sequence] = example["sequences"]
    written = {name for name in cells("Targets") if "[]" not in name}
    of_sequence = {name.partition("[].")[2] for name in cells("Targets") if "[]" in name}
    done = request_in(State.SUCCEEDED, status_code=200, from_target=True)
    answer = answers.result(done, json.dumps(example).encode(), answers.PROTOBUF_TYPE, high_level=True)

    assert written == set(example)
    assert of_sequence == set(sequence)
    assert answer.content_type == answers.PROTOBUF_TYPE
    assert f"`{answers.PROTOBUF_TYPE}`" in section("Results")


@pytest.mark.parametrize("row", tables("Targets")[0], ids=lambda row: row[0])
def test_what_a_target_must_say_is_required_and_the_rest_is_not(row: list[str]) -> None:
    [example] = examples("Targets")
    name, is_required = row[0].strip("`"), row[1].startswith("required")
    of_sequence = name.partition("[].")[2]
    (example["sequences"][0] if of_sequence else example).pop(of_sequence or name)

    if is_required:
        with pytest.raises(protobuf.NotSample):
            protobuf.sample(json.dumps(example).encode(), 1)
    else:
        assert protobuf.sample(json.dumps(example).encode(), 1)


def test_the_reasons_to_stop_are_those_of_the_document() -> None:
    [row] = [row for row in tables("Targets")[0] if row[0] == "`sequences[].stop_reason`"]

    assert set(re.findall(r"`(\w+)`", row[1])) == set(protobuf.STOP_REASONS)


# ---------------------------------------------------------------------------------------------------------- errors
_REACHED = set(failure._STATUS) - {
    errors.NotPulled,  # of takers
    errors.NotTaken,
    errors.WebhookNotFound,
    errors.NotCancellable,  # no mistake here
    errors.SinkFull,  # of who puts items into it
    errors.ConsumerBusy,  # of consumers, which this dialect has none of
    errors.FilterMismatch,
    errors.TooManyGroups,
    errors.AttemptOver,  # of targets
}


def test_every_status_code_is_in_the_document_and_no_other() -> None:
    raised = {failure._STATUS[kind][0] for kind in _REACHED}
    others = (
        auth.Unauthorized(""),
        auth.Forbidden(""),
        names.UnknownModel("x"),
        names.UnknownSession("x"),
        exceptions.MethodNotAllowed(),
        exceptions.RequestEntityTooLarge(),
        RuntimeError(),
    )
    raised |= {failure.of(exc, max_payload_bytes=1).status for exc in others}
    raised |= {408, 501}  # pending; training

    assert [int(code) for code in cells("Errors")] == sorted(raised)


@pytest.mark.parametrize("kind", failure._STATUS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_shape_that_is_documented(kind: type[Exception]) -> None:
    status, title = failure._STATUS[kind]
    code = kind.code if issubclass(kind, errors.EngineError) else "code"
    with Flask("doc").app_context():
        response = answers.render_error(failure.Failure(status, code, title, "what", 77))

    content = json.loads(response.get_data())
    assert list(content) == list(examples("Errors")[0])
    detail = answers.ANOTHER_BODY if kind is errors.IdempotencyConflict else "what"
    assert content == {"detail": detail, "code": code, "title": title, "status": status}
    assert (response.status_code, response.content_type) == (status, "application/json")
    assert response.headers["Retry-After"] == ("60" if status == 429 else "77")
    assert "x-should-retry" not in response.headers


def test_the_limits_are_those_in_force() -> None:
    fields = {name.upper(): field.default for name, field in config.Settings.model_fields.items()}
    found = {row[0]: row[1].replace(",", "") for row in tables("Limits")[0]}

    assert found == {
        "body of asample": f"`MAX_PAYLOAD_BYTES` {fields['MAX_PAYLOAD_BYTES']} bytes",
        "other bodies": f"{parameters.SMALL_BYTES} bytes",
        "values of a body besides lists of numbers": str(members.VALUES_MOST),
        "samples of a request": str(parameters.SAMPLES_MOST),
        "name of a model": f"{names.NAME_MOST} characters",
        "hold of a poll": f"{sampling.HOLD_MOST_S:g} s and `MAX_WAIT_S`",
        "`Retry-After` of a 408": (
            f"{pending.RETRY_AFTER_MOST_S} s; without an estimate {pending.BLIND_RETRY_AFTER_MOST_S} s"
        ),
        "`Retry-After` of a 429": f"{answers.RETRY_AFTER_MOST_S} s",
        "result": f"`MAX_RESULT_BYTES` {fields['MAX_RESULT_BYTES']} bytes",
        "values of a result as protobuf; its lists and members": f"{protobuf.VALUES_MOST}; {protobuf.PARTS_MOST}",
        "values that fill up short rows of a result's top tokens": f"{protobuf.FILLED_MOST} and as many as there are",
    }


# -------------------------------------------------------------------------------------------------------- examples
MODEL, UNUSED = "Qwen/Qwen3-0.6B", "acme/of-the-document"  # of the latter no run is known, and so no estimate
SHOWN_SESSION = "5d1f7a0c2be94e3f8a6bd0c4f7e21935.UXdlbi9Rd2VuMy0wLjZC"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SESSION_ID = re.compile(r"\b[0-9a-f]{32}\.[A-Za-z0-9_-]+")


class Bash:
    """One that runs block after block, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, block: str) -> str:
        """What it prints."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{block}\necho; echo END\n")
        self._process.stdin.flush()
        printed = "".join(iter(self._process.stdout.readline, "END\n"))
        return printed.replace("\r", "").rstrip("\n")

    def stop(self) -> None:
        self._process.communicate()


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "token").write_text(f"{INSTALLED_TOKEN}\n")
    made = Bash(tmp_path)
    yield made
    made.stop()


@pytest.mark.timeout(60)
def test_the_examples_print_what_the_document_shows(tinker: Tinker, model: OwnTarget, bash: Bash) -> None:
    """The request runs before the block that polls, and is answered before the one that waits."""
    blocks = re.findall(r"```bash\n(.*?)```(?:\n\n```text\n(.*?)\n```)?", section("Examples"), re.S)
    answer = json.loads(blocks[3][1])
    del answer["request_id"]  # which the queue adds
    gate = Gate((200, json.dumps(answer).encode()))
    model.act = gate
    steps = {2: gate.await_call, 3: gate.open}
    for number, (block, expected) in enumerate(blocks):
        steps.get(number, lambda: None)()
        block = block.replace("127.0.0.1:5000", f"127.0.0.1:{tinker.port}").replace(MODEL, UNUSED)
        printed = UUID.sub(EXAMPLE_ID, bash.run(block)).replace(UNUSED, MODEL)

        assert SESSION_ID.sub(SHOWN_SESSION, printed) == expected, number

    assert bash.run("echo $TINKER_API_KEY $TINKER_BASE_URL") == f"{INSTALLED_TOKEN} {tinker.front.installation.url}"


# ------------------------------------------------------------------------------------------------ clients and rules
def test_the_clients_are_those_that_were_run() -> None:
    for file, client, words in (
        ("tinker", "tinker", "`tinker` {} |"),
        ("tinker_022", "tinker", "`tinker` {} |"),
        ("mindlab_toolkit", "mindlab-toolkit", "`mindlab-toolkit` {}, with `tinker`"),
        ("mindlab_toolkit", "tinker", "with `tinker` {} |"),
    ):
        pins = (ROOT / f"tests/clients/{file}.txt").read_text()
        [version] = re.findall(rf"^{client}==(\S+)", pins, re.M)

        assert words.format(version) in TEXT


@functools.cache
def found_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def named() -> list[tuple[str, str]]:
    return [found for row in tables("Rules")[0] for found in re.findall(r"`([\w/]+\.py)::(\w+)`", row[1])]


def test_every_rule_is_held_by_tests_that_there_are() -> None:
    assert len(tables("Rules")[0]) > 50
    assert all("::" in row[1] for row in tables("Rules")[0])
    for file, name in set(named()):
        assert name in found_in(ROOT / file if "/" in file else HERE / file), f"{file}::{name}"


def test_every_test_of_the_wire_is_named_by_a_rule() -> None:
    there = {(path.name, name) for path in HERE.glob("test_*.py") for name in found_in(path)}

    assert {each for each in there if each[0] != Path(__file__).name} - set(named()) == set()
