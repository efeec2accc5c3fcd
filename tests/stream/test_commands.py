"""What each command sends, what it prints, and how it ends when something is wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from eas_queue.stream import client
from tests.stream.conftest import TOKEN, Call
from tests.support.queue_stub import Answer, QueueStub, items_json
from tests.support.raw_target import RawTarget
from tests.support.server import free_port

URL = "http://127.0.0.1:5000/api/predict/demo"
TWO = items_json((1, b"data1", {"b": "2", "a": "1"}), (4, b"\xff", {}))


# ----------------------------------------------------------------------------------------------------- what is sent
def test_every_call_carries_the_token_alone_and_who_asks(call_stub: Call, stub: QueueStub) -> None:
    assert call_stub("delete", "3", "--yes", "--group", "g", "--user", "u").exit_code == 0

    (asked,) = stub.asked
    assert asked.headers["authorization"] == TOKEN
    assert asked.headers["x-eas-queueservice-gid"] == "g"
    assert asked.headers["x-eas-queueservice-uid"] == "u"
    assert "x-eas-queueservice-access-rear" not in asked.headers


def test_k_means_the_sink_and_rear_its_header(call_stub: Call, stub: QueueStub) -> None:
    call_stub("delete", "3", "-y", "-k", "--rear")

    (asked,) = stub.asked
    assert asked.path == "/api/predict/demo/sink"
    assert asked.headers["x-eas-queueservice-access-rear"] == "true"
    assert asked.headers["x-eas-queueservice-gid"] == "default_group"
    assert asked.headers["x-eas-queueservice-uid"] == "default_user"


def test_a_netrc_does_not_take_the_tokens_place(call: Call, stub: QueueStub, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    (home / ".netrc").chmod(0o600)

    call("delete", "3", "-y", env={"EAS_QUEUE_STREAM_URL": stub.url, "EAS_QUEUE_STREAM_TOKEN": TOKEN})
    call("delete", "3", "-y", env={"EAS_QUEUE_STREAM_URL": stub.url})

    assert [asked.headers.get("authorization") for asked in stub.asked] == [TOKEN, None]


@pytest.mark.parametrize(
    ("arguments", "method", "query", "body"),
    [
        ("delete 3 7 -y", "DELETE", {"_indexes_": "3,7"}, b""),
        ("trunc 4 -y", "DELETE", {"_index_": "4", "_trunc_": "true"}, b""),
        ("count --priority 2 --tags a=b", "GET", {"_count_": "true", "_priority_": "2", "a": "b"}, b""),
        ("search 5", "GET", {"_search_": "true", "_index_": "5"}, b""),
        ("info", "GET", {"_attrs_": "true"}, b""),
        ("put -d 10s", "POST", {}, b"10s"),
        ("put -d é --priority 1 --tags a=b,c=d=e", "POST", {"_priority_": "1", "a": "b", "c": "d=e"}, "é".encode()),
        ("put --data=", "POST", {}, b""),
        (
            "get -l10 --timeout=3s --auto-delete",
            "GET",
            {"_index_": "0", "_length_": "10", "_timeout_": "3s", "_auto_delete_": "true", "_raw_": "false"},
            b"",
        ),
        (
            "get --index -1 --timeout 0 --tags requestId=r --tags x=,",
            "GET",
            {"requestId": "r", "x": "", "_index_": "-1", "_length_": "1", "_timeout_": "0s", "_raw_": "false"}
            | {"_auto_delete_": "false"},
            b"",
        ),
    ],
)
def test_each_command_asks_as_the_protocol_says(
    call_stub: Call, stub: QueueStub, arguments: str, method: str, query: dict[str, str], body: bytes
) -> None:
    call_stub(*arguments.rstrip(",").split(" "))

    asked = stub.asked[0]
    assert (asked.method, asked.path, asked.query, asked.body) == (method, "/api/predict/demo", query, body)


def test_tags_may_have_any_characters(call_stub: Call, stub: QueueStub) -> None:
    call_stub("put", "-d", "x", "--tags", '"note=a,b & c",Header:X=ü/é?', "--tags", "plus=1+1")

    assert stub.asked[0].query == {"note": "a,b & c", "Header:X": "ü/é?", "plus": "1+1"}


@pytest.mark.parametrize("tags", ["a", "=b", "_index_=3", '"a=b', "a=1,,b=2"])
def test_what_is_no_tag_is_wrong_usage(call_stub: Call, stub: QueueStub, tags: str) -> None:
    assert call_stub("put", "-d", "x", "--tags", tags).exit_code == 2
    assert stub.asked == []


# ------------------------------------------------------------------------------------------------- what is printed
def test_info_sorts_and_shows_each_attribute(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(body=b'{"stream.length":"0","meta.name":"a\\u001b[2J"}')

    assert call_stub("info").stdout == "[OK] Attributes:\nmeta.name : a\\x1b[2J\nstream.length : 0\n"
    assert json.loads(call_stub("info", "--json").stdout) == {"meta.name": "a\x1b[2J", "stream.length": "0"}


def test_put_says_index_and_sum(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(body=b"1", headers={"X-Eas-Queueservice-Request-Id": "r"})

    lines = call_stub("put", "-d", "10s").stdout.splitlines()
    assert lines[:2] == ["[OK] 1", "[INFO] Put data done."]
    assert lines[2].startswith("Total time cost: ")
    assert lines[3:] == ["Total size: 3.00 B", "Total: 1, success: 1, failed: 0"]

    first, last = map(json.loads, call_stub("put", "-d", "10s", "--json").stdout.splitlines())
    assert first == {"index": 1, "requestId": "r"}
    assert last.pop("elapsed_ms") > 0
    assert last == {"total": 1, "success": 1, "failed": 0, "bytes": 3}


def test_get_numbers_the_items(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(body=TWO)

    assert call_stub("get").stdout == "[OK] [0 - 1] tags[a=1 b=2] data1\n[OK] [1 - 4] tags[] \\xff\n"
    assert [json.loads(line) for line in call_stub("get", "--json").stdout.splitlines()] == [
        {"received": 0, "index": 1, "tags": {"b": "2", "a": "1"}, "text": "data1"},
        {"received": 1, "index": 4, "tags": {}, "base64": "/w=="},
    ]


def test_search_and_count(call_stub: Call, stub: QueueStub) -> None:
    found = {"ConsumerId": "eas.u", "IsPending": False, "WaitCount": 2}
    stub.answer = lambda asked: Answer(body=json.dumps(found).encode() if "_search_" in asked.query else b"12\n")

    assert call_stub("search", "5").stdout == "[OK] ConsumerId: eas.u, IsPending: false, WaitCount: 2\n"
    assert json.loads(call_stub("search", "5", "--json").stdout) == found
    assert call_stub("count").stdout == "[OK] 12\n"
    assert json.loads(call_stub("count", "--json").stdout) == {"count": 12}


def test_delete_asks_as_in_the_document(call_stub: Call, stub: QueueStub) -> None:
    done = call_stub("delete", "3", input="y\n")

    assert done.exit_code == 0
    assert done.stderr == "Deleting index(es):\n3 [y/N]y\n"
    assert done.stdout == "[OK] deleted\n"


def test_trunc_asks_as_in_the_document(call_stub: Call, stub: QueueStub) -> None:
    done = call_stub("trunc", "4", input="y\n")

    assert done.stderr == "trunc stream from index: 4 [y/N]y\n"
    assert done.stdout == "[OK] truncated\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
@pytest.mark.parametrize("command", ["delete", "trunc"])
def test_without_a_yes_nothing_is_deleted(call_stub: Call, stub: QueueStub, command: str, answer: str) -> None:
    done = call_stub(command, "4", input=answer)

    assert done.exit_code == 1
    assert done.stdout == ""
    assert stub.asked == []


def test_questions_leave_stdout_to_json(call_stub: Call, stub: QueueStub) -> None:
    assert json.loads(call_stub("delete", "3", "4", "--json", input="y\n").stdout) == {"deleted": [3, 4]}
    assert json.loads(call_stub("trunc", "3", "--json", input="y\n").stdout) == {"truncated": 3}


# ---------------------------------------------------------------------------------------------------------- waiting
def test_get_asks_again_where_the_queue_waits_less_long_than_asked(call_stub: Call, stub: QueueStub) -> None:
    answers = [Answer(204, b""), Answer(body=TWO)]
    stub.answer = lambda asked: answers.pop(0)

    assert call_stub("get", "--timeout", "1m").exit_code == 0
    first, second = (asked.query["_timeout_"] for asked in stub.asked)
    assert first == "1m0s"
    assert second.startswith("58.")


def test_get_gives_up_when_the_time_is_over(call_stub: Call, stub: QueueStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE_S", 0.3)
    stub.answer = lambda asked: Answer(204, b"")

    done = call_stub("get", "--timeout", "700ms")

    assert (done.exit_code, done.stdout) == (3, "")
    assert f"get from {stub.url}: nothing came within 700ms" in done.stderr
    assert len(stub.asked) == 2


# ----------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 4), (403, 4), (404, 3), (400, 1), (405, 1), (409, 1), (413, 1), (429, 1), (500, 1), (503, 1), (302, 1)],
)
@pytest.mark.parametrize("command", ["info", "get", "put -d x", "delete 3 -y", "trunc 3 -y", "search 3", "count"])
def test_each_refusal_has_its_exit_code_and_says_what_to_do(
    call_stub: Call, stub: QueueStub, command: str, status: int, code: int
) -> None:
    stub.answer = lambda asked: Answer(status, f"no, \x1b[2J not\nwith {TOKEN}".encode())

    done = call_stub(*command.split())

    assert done.exit_code == code
    assert f"{stub.url}: the queue answered {status}: no, \\x1b[2J not\\nwith ****" in done.stderr
    assert done.stderr.splitlines()[1].startswith("-> ")
    assert len(stub.asked) == 1


def test_a_redirect_is_told_and_the_token_stays_here(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(307, b"", {"Location": f"{stub.url}/elsewhere"})

    done = call_stub("info")

    assert f"the URL leads to {stub.url}/elsewhere" in done.stderr
    assert len(stub.asked) == 1


def test_of_a_problem_the_detail_is_shown_and_of_a_page_nothing(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(404, b'{"title": "t", "detail": "no service `demo`"}')
    assert "404: no service `demo`\n" in call_stub("info").stderr

    stub.answer = lambda asked: Answer(502, b"<html>nginx</html>")
    assert "answered 502\n" in call_stub("info").stderr


@pytest.mark.parametrize("command", ["info", "get", "put -d x", "search 3", "count"])
def test_an_answer_of_something_else_is_no_traceback(call_stub: Call, stub: QueueStub, command: str) -> None:
    stub.answer = lambda asked: Answer(body=b"<html>hello</html>")

    done = call_stub(*command.split())

    assert done.exit_code == 1
    assert "the answer is not" in done.stderr


@pytest.mark.parametrize(
    "command", ["info", "get", "put -d x", "delete 3 -y", "trunc 3 -y", "search 3", "count", "watch"]
)
def test_nobody_there_is_5(call: Call, command: str) -> None:
    url = f"http://127.0.0.1:{free_port()}/api/predict/demo"

    done = call(*command.split(), "--url", url)

    assert done.exit_code == 5
    assert f"{url}: Connection refused\n-> check host and port" in done.stderr


def test_a_name_that_is_not_known_is_5(call: Call) -> None:
    done = call("info", "--url", "http://no-such-host.invalid/x")

    assert done.exit_code == 5
    assert "the name of the host is not known" in done.stderr


def test_a_connection_that_breaks_leaves_open_what_was_done(call: Call) -> None:
    def close(connection: socket.socket) -> None:
        target.read_request(connection)

    with RawTarget(close) as target:
        done = call("put", "-d", "x", "--url", f"{target.url}/x")

    assert done.exit_code == 5
    assert "not known whether this was done" in done.stderr


def test_silence_is_5(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = call("info", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}/x")

    assert done.exit_code == 5
    assert "no answer within 0.2 s" in done.stderr
    assert "not known whether this was done" in done.stderr


# ----------------------------------------------------------------------------------------------------------- target
def test_config_stores_what_later_commands_use(call: Call, stub: QueueStub, home: Path) -> None:
    (home / "token").write_text(f"{TOKEN}\n# of the service\n")

    done = call("config", f"--url={stub.url}", f"--token-file={home / 'token'}", "--user=ann")
    assert (done.exit_code, done.stdout) == (0, f"[OK] stored in {home}/.config/eas_queue/stream.toml\n")

    call("delete", "3", "-y")
    assert stub.asked[0].headers["authorization"] == TOKEN
    assert stub.asked[0].headers["x-eas-queueservice-uid"] == "ann"
    assert call("config").stdout == f"url : {stub.url}\ntoken : ****0100\ngroup : default_group\nuser : ann\n"


def test_config_keeps_what_is_not_given_but_no_token_for_another_host(call: Call) -> None:
    call("config", "--url", URL, "--token", TOKEN, "--group", "g")

    call("config", "--user", "ann")
    assert call("config").stdout == f"url : {URL}\ntoken : ****0100\ngroup : g\nuser : ann\n"

    done = call("config", "--url", "http://elsewhere/x")
    assert "No token is stored for this host" in done.stderr
    assert "token : (none)" in call("config").stdout


def test_an_option_goes_before_the_environment_and_that_before_the_file(call: Call, stub: QueueStub) -> None:
    call("config", "--url", stub.url, "--token", TOKEN)
    environment = {"EAS_QUEUE_STREAM_URL": f"{stub.url}/env", "EAS_QUEUE_STREAM_TOKEN": "of-env"}

    call("delete", "3", "-y")
    call("delete", "3", "-y", env=environment)
    call("delete", "3", "-y", "--url", f"{stub.url}/option", "--token", "of-option", env=environment)
    call("delete", "3", "-y", "--token-file", "-", input="of-stdin\n", env=environment)

    assert [(asked.path.rpartition("/")[2], asked.headers["authorization"]) for asked in stub.asked] == [
        ("demo", TOKEN),
        ("env", "of-env"),
        ("option", "of-option"),
        ("env", "of-stdin"),
    ]
    assert call("config", env=environment).stdout.startswith(f"url : {stub.url}/env (from the environment)\n")


def test_a_token_of_the_environment_is_stored_when_asked_for(call: Call, home: Path) -> None:
    call("config", env={"EAS_QUEUE_STREAM_URL": URL, "EAS_QUEUE_STREAM_TOKEN": TOKEN})
    assert not (home / ".config").exists()

    call("config", "--url", URL, env={"EAS_QUEUE_STREAM_TOKEN": TOKEN})
    assert "token : ****0100" in call("config").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("info", "which queue?"),
        ("config", "no queue is stored yet"),
        ("config --user ann", "the URL is missing"),
        ("config --url demo", "'demo' is not the URL of a queue"),
        (f"info --url {URL} --token {TOKEN}\n", "token may hold printable ASCII"),
        (f"info --url {URL} --token a --token-file b", "give one of them"),
        (f"info --url {URL} --token-file /nowhere/at/all", "No such file"),
        (f"put --url {URL}", "give the data"),
        (f"put --url {URL} -d x -f -", "give the data"),
        (f"put --url {URL} -f /nowhere/at/all", "does not exist"),
        (f"get --url {URL} --timeout soon", "is not a duration"),
        (f"get --url {URL} --index -2", "-2"),
        (f"delete --url {URL}", "Missing argument"),
        (f"trunc --url {URL} --tags a=b 3", "No such option"),
        ("infos", "No such command"),
    ],
)
def test_wrong_usage_is_2_and_says_why(call: Call, arguments: str, said: str) -> None:
    done = call(*arguments.split(" "))

    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_broken_file_of_the_target_is_named(call: Call, home: Path) -> None:
    call("config", "--url", URL, "--token", TOKEN)
    (home / ".config" / "eas_queue" / "stream.toml").write_text(f"token {TOKEN}")

    done = call("info")

    assert done.exit_code == 2
    assert "stream.toml can't be read: it is not TOML" in done.stderr


def asked_for_help(done_stdout: str) -> list[str]:
    return done_stdout.splitlines()[1:]


def test_help_says_what_the_option_says(call: Call) -> None:
    assert call("help").stdout == call("--help").stdout
    assert asked_for_help(call("help", "put").stdout) == asked_for_help(call("put", "-h").stdout)
    assert "ps" in call("help", "put").stdout
    assert call("help", "nothing").exit_code == 2


def test_every_command_is_in_the_help(call: Call) -> None:
    shown = call("help").stdout

    for name in ("config", "info", "put", "get", "watch", "delete", "trunc", "search", "count", "help"):
        assert f"  {name} " in shown
        assert call(name, "--help").exit_code == 0
