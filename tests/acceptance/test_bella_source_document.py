"""The two examples of bella-queue's page "Get Task" are answered in the shapes that the page shows.

The curl lines stand here as on that page; host and key are replaced before each run. curl itself runs them where it is
installed, else the same goes over HTTP. The answers that stand beside them say which fields there are, and their types.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import Bella, bella
from tests.support.installation import TOKEN, await_condition

OFFLINE = """
curl -X POST "https://${Host}/v1/queue/take" \\
-H "Content-Type: application/json" \\
-H "Authorization: Bearer ${apikey}" \\
-d '{
"queues": [
"test-queue:1"
],
"strategy": "active_passive",
"endpoint": "/v1/chat/completions",
"size": 1
}'
"""
OFFLINE_ANSWER = """
{
"test-queue:1": [
{
"ak": "xxx",
"endpoint": "/v1/chat/completions",
"queue": "test-queue",
"level": 1,
"data": {
"k": "v"
},
"status": "waiting",
"task_id": "TASK-X-X-X-XXXXXXXXXXXX-XXXX-XXXXXX",
"batch_id": "BATCH-X-X-XXXXXXXXXXXX-XXXX-XXXXXX",
"trace_id": "BATCH-X-X-XXXXXXXXXXXX-XXXX-XXXXXX",
"start_time": 1762863595000,
"running_time": 0,
"expire_time": 1762949994000,
"completed_time": 0,
"callback_url": "",
"response_mode": "batch"
}
]
}
"""
ONLINE = """
curl -X POST "https://${Host}/v1/queue/take" \\
-H "Content-Type: application/json" \\
-H "Authorization: Bearer ${apikey}" \\
-d '{
"queues": [
"test-queue:0"
],
"strategy": "fifo",
"endpoint": "/v1/chat/completions",
"size": 1
}'
"""
ONLINE_ANSWER = """
{
"test-queue:0": [
{
"ak": "xxx",
"endpoint": "/v1/chat/completions",
"queue": "test-queue",
"level": 0,
"data": {
"model": "deepseek-r1-20250401",
"messages": [
{
"role": "user",
"content": "Hello"
}
],
"stream": false
},
"status": "waiting",
"task_id": "TASK-X-X-X-XXXXXXXXXXXX-XXXX-XXXXXX",
"instance_id": "xx.xx.xx.xx:xxx",
"start_time": 1762863595000,
"running_time": 0,
"expire_time": 1762949994000,
"completed_time": 0,
"callback_url": "",
"response_mode": "blocking"
}
]
}
"""
QUEUE = "test-queue"
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella(max_wait_s=600) as made:
        made.register(QUEUE)
        yield made


def run(place: Bella, example: str) -> Any:
    """The answer to a curl line of the page."""
    host = place.installation.url.removeprefix("http://")
    for placeholder, value in {"https://": "http://", "${Host}": host, "${apikey}": TOKEN}.items():
        assert placeholder in example
        example = example.replace(placeholder, value)
    words = shlex.split(example.replace("\\\n", ""))
    if shutil.which("curl"):
        done = subprocess.run([*words, "-sS", "--fail-with-body", "--noproxy", "*"], capture_output=True, timeout=15)
        assert (done.returncode, done.stderr) == (0, b""), done
        return json.loads(done.stdout)
    options = list(itertools.pairwise(words))
    headers = dict(value.split(": ", 1) for name, value in options if name == "-H")
    [body] = [value for name, value in options if name == "-d"]
    connection = http.client.HTTPConnection(host, timeout=15)
    connection.request("POST", "/v1/queue/take", body, headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    found = json.loads(response.read())
    connection.close()
    return found


def shape(value: Any) -> Any:
    """Its keys and types, without what the submitter chose."""
    if isinstance(value, dict):
        return {name: shape(item) if name != "data" else dict for name, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


def test_the_offline_example_is_answered_in_its_shape(place: Bella) -> None:
    expected = json.loads(OFFLINE_ANSWER)
    before_ms = time.time() * 1000
    place.put(QUEUE, {"k": "v"}, response_mode="batch")

    answer = run(place, OFFLINE)

    assert shape(answer) == shape(expected)
    [task], [shown] = answer[f"{QUEUE}:1"], expected[f"{QUEUE}:1"]
    same = ("endpoint", "queue", "level", "data", "status", "running_time", "completed_time", "callback_url")
    assert {name: task[name] for name in same} == {name: shown[name] for name in same}
    assert task["response_mode"] == "batch"
    assert re.fullmatch(r"TASK-\d+-1-P-\d{12}-[0-9a-f]{4}-[0-9a-f]{28}", task["task_id"])
    assert before_ms - 1 <= task["start_time"] <= time.time() * 1000 + 1
    assert task["expire_time"] - task["start_time"] == DAY_MS
    assert (task["ak"], task["batch_id"], task["trace_id"]) == ("", "", "")


def test_the_online_example_is_answered_in_its_shape(place: Bella) -> None:
    expected = json.loads(ONLINE_ANSWER)
    before_ms = time.time() * 1000
    waiting = place.begin_put(QUEUE, "blocking", expected[f"{QUEUE}:0"][0]["data"])

    answer = await_condition(lambda: run(place, ONLINE), what="the task is there")

    assert shape(answer) == shape(expected)
    [task], [shown] = answer[f"{QUEUE}:0"], expected[f"{QUEUE}:0"]
    same = ("endpoint", "queue", "level", "data", "status", "running_time", "completed_time", "callback_url")
    assert {name: task[name] for name in same} == {name: shown[name] for name in same}
    assert task["response_mode"] == "blocking"
    assert re.fullmatch(r"TASK-\d+-0-B-\d{12}-[0-9a-f]{4}-[0-9a-f]{28}", task["task_id"])
    assert re.fullmatch(r"[^\s:]+:\d+", task["instance_id"])
    assert before_ms - 1 <= task["start_time"] <= time.time() * 1000 + 1
    assert task["expire_time"] - task["start_time"] == 600_000
    assert task["ak"] == ""
    place.complete(task["task_id"], {"choices": []})
    assert waiting.result(timeout=10).json == {"choices": []}


@pytest.mark.parametrize("example", [OFFLINE, ONLINE])
def test_both_are_answered_with_an_empty_object_where_nothing_waits(place: Bella, example: str) -> None:
    assert run(place, example) == {}


def test_a_trace_of_the_submitter_is_handed_on_at_both_levels(place: Bella) -> None:
    queue = place.register()
    for level in (0, 1):
        place.put(queue, trace_id=f"trace-{level}", level=level)

    found = [place.take_one(f"{queue}:{level}")["trace_id"] for level in (0, 1)]

    assert found == ["trace-0", "trace-1"]
