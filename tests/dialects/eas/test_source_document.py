"""Every curl line of PAI-EAS's page "Access a queue service" (updated Apr 01, 2026) is answered as it says.

curl itself runs them. They stand here as on that page; host, token, index and request id are replaced before each run.
Where the page shows an answer, that answer's form is what is asked for.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.server import RedisServer

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

HOST = "182848887922****.cn-shanghai.pai-eas.aliyuncs.com"
DOCUMENT_TOKEN = "YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****=="
RESULT = b'[{"p_0":0.5224580736905329,"p_1":0.4775419263094671}]'
REQUEST_ID = "x-eas-queueservice-request-id"

SEND = """
curl -v http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice \\
  -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  -d '[{}]'
"""
SEND_PRIORITY = """
curl -v "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?_priority_=1" \\
  -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  -d '[{}]'
"""
DETAILS = """
curl -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?_attrs_=true"
"""
BY_INDEX = """
curl -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?_index_=1022"
"""
BY_REQUEST_ID = """
curl -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?requestId=87633037-39a4-40bf-8405-14f8e0c31896"
"""
RESULT_BY_REQUEST_ID = """
curl -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice/sink?requestId=0337f7a1-a6f6-49a6-8ad7-ff2fd12bbe2d"
"""
DELETE = """
curl -XDELETE -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?_index_=1022"
"""
TRUNCATE = """
curl -XDELETE -v -H 'Authorization: YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==' \\
  "http://182848887922****.cn-shanghai.pai-eas.aliyuncs.com/api/predict/qservice?_index_=1023&_trunc_=true"
"""
DETAILS_ANSWER = """
{"consumers.stats.total":"0","consumers.status.total":"0","meta.header.group":"X-EAS-QueueService-Gid",\
"meta.header.priority":"X-EAS-QueueService-Priority","meta.header.user":"X-EAS-QueueService-Uid",\
"stream.maxPayloadBytes":"524288","meta.name":"pmml_test","meta.state":"Normal","stream.approxMaxLength":"4095",\
"stream.firstEntry":"0","stream.lastEntry":"0","stream.length":"1"}
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def request_id(self) -> str:
        return self.headers[REQUEST_ID]

    @property
    def index(self) -> int:
        """Of a submit; the body must be its plain digits."""
        assert re.fullmatch(rb"[1-9][0-9]*", self.body), self.body
        return int(self.body)


class Shell:
    """Somebody who has the page, curl, and our address and token in their place."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def run(self, line: str, *, index: int | None = None, request_id: str | None = None, add: str = "") -> Answer:
        """*add*: to the query."""
        line = line.replace(HOST, f"127.0.0.1:{self.installation.port}").replace(DOCUMENT_TOKEN, TOKEN)
        if index is not None:
            line = re.sub(r"(?<=_index_=)\d+", str(index), line)
        if request_id is not None:
            line = re.sub(r"(?<=requestId=)[-0-9a-f]+", request_id, line)
        assert "****" not in line
        command = shlex.split(line.replace("\\\n", " "))
        if add:
            (url,) = [word for word in command if word.startswith("http://")]
            command[command.index(url)] = f"{url}{'&' if '?' in url else '?'}{add}"
        # -s: no progress between the lines of -v
        done = subprocess.run(
            [*command, "-s", "--noproxy", "*", "--max-time", "30"], capture_output=True, check=True, timeout=40
        )
        received = [text[2:] for text in done.stderr.decode().splitlines() if text.startswith("< ")]
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in received[1:] if text)}
        return Answer(int(received[0].split()[1]), headers, done.stdout)

    def details(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run(DETAILS).body)
        return found


@pytest.fixture(scope="module")
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    made.act = lambda call: (200, RESULT)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def installation(target: OwnTarget) -> Iterator[Installation]:
    server = RedisServer().start()
    try:
        with Installation(server.url, target.url, services_toml="[services.qservice]\nmax_concurrency = 1\n") as made:
            made.web()
            made.worker()
            yield made
    finally:
        server.stop()


@pytest.fixture
def shell(installation: Installation) -> Shell:
    """An inference service that runs, and empty queues."""
    installation.set_paused("qservice", True)
    shell = Shell(installation)
    for line in (TRUNCATE, TRUNCATE.replace("qservice?", "qservice/sink?")):
        assert shell.run(line, index=10**15).status == 200
    installation.set_paused("qservice", False)
    return shell


@pytest.fixture
def waiting(shell: Shell) -> Iterator[Shell]:
    """The same while no inference service takes anything."""
    shell.installation.set_paused("qservice", True)
    yield shell
    shell.installation.set_paused("qservice", False)


# ------------------------------------------------------------------------------------------------------ send, details


def test_send_data(waiting: Shell) -> None:
    first, second = waiting.run(SEND), waiting.run(SEND)

    for answer in (first, second):
        assert answer.status == 200
        assert answer.headers["content-length"] == str(len(answer.body))
        assert uuid.UUID(answer.request_id)
    assert second.index == first.index + 1
    assert second.request_id != first.request_id


def test_priority_data_is_worked_on_first(waiting: Shell, target: OwnTarget) -> None:
    calls: list[Call] = []

    def act(call: Call) -> tuple[int, bytes]:
        calls.append(call)
        return 200, RESULT

    normal = [waiting.run(SEND).request_id for _ in range(2)]
    urgent = waiting.run(SEND_PRIORITY)
    assert urgent.status == 200
    assert urgent.index > 2
    target.act = act
    try:
        waiting.installation.set_paused("qservice", False)
        await_condition(lambda: len(calls) == 3)
    finally:
        target.act = lambda call: (200, RESULT)

    assert [call.headers["x-request-id"] for call in calls] == [urgent.request_id, *normal]
    assert [call.body for call in calls] == [b"[{}]"] * 3


def test_details(waiting: Shell) -> None:
    empty = waiting.details()
    sent = [waiting.run(SEND).index for _ in range(3)]
    answer = waiting.run(DETAILS)

    assert answer.status == 200
    found = json.loads(answer.body)
    shown = json.loads(DETAILS_ANSWER)
    assert set(shown) <= set(found)
    assert all(type(value) is str for value in found.values())
    for name in ("meta.header.group", "meta.header.priority", "meta.header.user", "meta.state"):
        assert found[name] == shown[name]
    for name in ("stream.maxPayloadBytes", "stream.approxMaxLength", "consumers.stats.total"):
        assert found[name].isdecimal()
    assert (empty["stream.firstEntry"], empty["stream.lastEntry"], empty["stream.length"]) == ("0", "0", "0")
    assert found["stream.length"] == "3"
    assert (found["stream.firstEntry"], found["stream.lastEntry"]) == (str(sent[0]), str(sent[-1]))


# ------------------------------------------------------------------------------------------------------------- query


def test_query_by_index(waiting: Shell) -> None:
    index = [waiting.run(SEND).index for _ in range(3)][1]

    kept = waiting.run(BY_INDEX, index=index, add="_auto_delete_=false")  # as the request that the page shows
    taken = waiting.run(BY_INDEX, index=index)

    for answer in (kept, taken):
        assert (answer.status, answer.body) == (200, b"[{}]")
        assert answer.headers["content-length"] == "4"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert waiting.details()["stream.length"] == "2"


def test_query_by_request_id(waiting: Shell) -> None:
    sent = [waiting.run(SEND) for _ in range(3)]

    found = waiting.run(BY_REQUEST_ID, request_id=sent[1].request_id)
    again = waiting.run(BY_REQUEST_ID, request_id=sent[1].request_id)

    assert (found.status, found.body) == (200, b"[{}]")
    assert (again.status, again.body) == (204, b"")  # _auto_delete_ is true where nothing is said
    details = waiting.details()
    assert (details["stream.firstEntry"], details["stream.lastEntry"]) == (str(sent[0].index), str(sent[2].index))


def test_a_query_for_what_is_not_there_is_204_at_once_or_after_its_timeout(waiting: Shell) -> None:
    index = waiting.run(SEND).index
    unknown = str(uuid.uuid4())

    for line, add, least_s, most_s in (
        (BY_INDEX, "", 0, 0.8),
        (BY_INDEX, "_timeout_=0", 0, 0.8),
        (BY_REQUEST_ID, "", 0, 0.8),
        (BY_REQUEST_ID, "_timeout_=1s", 0.7, 1.8),
        (RESULT_BY_REQUEST_ID, "_timeout_=0", 0, 0.8),
        (RESULT_BY_REQUEST_ID, "_timeout_=1s", 0.7, 1.8),
    ):
        began = time.monotonic()
        answer = waiting.run(line, index=index + 1, request_id=unknown, add=add)
        took_s = time.monotonic() - began
        assert (answer.status, answer.body) == (204, b""), (line, add)
        assert least_s <= took_s < most_s, (line, add, took_s)
    assert waiting.details()["stream.length"] == "1"


def test_a_query_for_several_loses_none_of_them(waiting: Shell) -> None:
    index, *_ = [waiting.run(SEND).index for _ in range(4)]

    answer = waiting.run(BY_INDEX, index=index, add="_length_=3")

    assert answer.status == 200
    assert [item["index"] for item in json.loads(answer.body)] == [index, index + 1, index + 2]
    assert waiting.details()["stream.length"] == "1"


def test_inference_results(shell: Shell) -> None:
    sent = shell.run(SEND)

    answer = shell.run(RESULT_BY_REQUEST_ID, request_id=sent.request_id, add="_timeout_=10s")
    again = shell.run(RESULT_BY_REQUEST_ID, request_id=sent.request_id)

    assert (answer.status, answer.body) == (200, RESULT)
    assert answer.headers["content-length"] == "53"
    assert (again.status, again.body) == (204, b"")


def test_an_inference_result_that_is_there_already_needs_no_timeout(shell: Shell) -> None:
    sent = shell.run(SEND)
    shell.installation.await_end(sent.request_id, "qservice")

    answer = shell.run(RESULT_BY_REQUEST_ID, request_id=sent.request_id)

    assert (answer.status, answer.body) == (200, RESULT)


# ------------------------------------------------------------------------------------------------------------ delete


def test_delete_a_single_item(waiting: Shell) -> None:
    sent = [waiting.run(SEND).index for _ in range(3)]

    answer = waiting.run(DELETE, index=sent[1])
    again = waiting.run(DELETE, index=sent[1])

    for each in (answer, again):
        assert (each.status, each.body) == (200, b"OK")
        assert each.headers["content-type"] == "text/plain; charset=utf-8"
    details = waiting.details()
    assert details["stream.length"] == "2"
    assert (details["stream.firstEntry"], details["stream.lastEntry"]) == (str(sent[0]), str(sent[2]))


def test_truncate_the_queue(waiting: Shell) -> None:
    sent = [waiting.run(SEND).index for _ in range(4)]

    answer = waiting.run(TRUNCATE, index=sent[2])

    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    details = waiting.details()
    assert (details["stream.firstEntry"], details["stream.length"]) == (str(sent[2]), "2")


def test_without_trunc_true_only_one_item_is_deleted(waiting: Shell) -> None:
    sent = [waiting.run(SEND).index for _ in range(3)]

    answer = waiting.run(TRUNCATE.replace("_trunc_=true", "_trunc_=false"), index=sent[2])

    assert (answer.status, answer.body) == (200, b"OK")
    details = waiting.details()
    assert (details["stream.lastEntry"], details["stream.length"]) == (str(sent[1]), "2")


def test_every_line_needs_the_token(waiting: Shell) -> None:
    sent = waiting.run(SEND)

    for line in (SEND, SEND_PRIORITY, DETAILS, BY_INDEX, BY_REQUEST_ID, RESULT_BY_REQUEST_ID, DELETE, TRUNCATE):
        answer = waiting.run(line.replace(DOCUMENT_TOKEN, "of-nobody"), index=sent.index)
        assert answer.status == 401
    assert waiting.details()["stream.length"] == "1"
