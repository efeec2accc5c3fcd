"""The hand-built Celery message against what Celery itself would send."""

from __future__ import annotations

import base64
import json
from typing import Any

from celery import Celery

from eas_queue.store import keys, kick
from tests.support.drive import Driver


def sent_by_celery(drive: Driver, queue: str) -> dict[str, Any]:
    app = Celery("probe", broker=drive.url, backend=drive.url)
    app.conf.update(task_ignore_result=True)
    with app.connection_for_write() as connection:
        app.send_task(kick.TASK_NAME, task_id="the-id", queue=queue, ignore_result=True, connection=connection)
    text: Any = drive.raw.lpop(queue)
    for key in drive.raw.scan_iter("_kombu*"):
        drive.raw.delete(key)
    message: dict[str, Any] = json.loads(text)
    return message


def test_the_kick_has_the_fields_that_celery_sends(drive: Driver) -> None:
    theirs = sent_by_celery(drive, keys.QUEUE_NORMAL)

    ours = kick.message("the-id", keys.QUEUE_NORMAL)

    assert set(ours) == set(theirs)
    assert set(ours["headers"]) == set(theirs["headers"])
    assert set(ours["properties"]) == set(theirs["properties"])
    for name, value in theirs["headers"].items():
        if name not in ("origin",):
            assert ours["headers"][name] == value, name
    assert json.loads(base64.b64decode(ours["body"])) == json.loads(base64.b64decode(theirs["body"]))
    assert ours["properties"]["body_encoding"] == theirs["properties"]["body_encoding"]


def test_the_script_pushes_that_message(drive: Driver) -> None:
    normal = drive.submit()
    high = drive.submit(priority_class=101)

    pushed = [drive.raw.rpop(queue) for queue in (keys.QUEUE_NORMAL, keys.QUEUE_HIGH)]

    assert json.loads(pushed[0]) == kick.message(normal, keys.QUEUE_NORMAL)
    assert json.loads(pushed[1]) == kick.message(high, keys.QUEUE_HIGH)


def test_under_light_load_the_task_has_the_id_of_the_request(drive: Driver) -> None:
    request_id = drive.submit()

    assert drive.take_kick() == request_id
