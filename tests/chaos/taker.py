"""A taker as a process that may be killed at any moment: it takes, works some milliseconds on each task, completes it.

What it does stands in its log, line by line and at once, so that the last one tells where it was killed: "asks" before
a take, "got <task id> <status> <n>" for each task after it, "completes <task id>" and "completed <task id>" around the
call. Some completes are made twice, the second one with another body. A task whose data has "kills" kills its taker, so
many times. Needs the standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

AGAIN = 0.1  # of the completes are repeated, as by a client that has not seen the answer


def main() -> None:
    given: dict[str, Any] = json.loads(os.environ["TAKER"])
    log = os.open(given["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    web = http.client.HTTPConnection("127.0.0.1", given["port"], timeout=30)
    headers = {"Authorization": f"Bearer {os.environ['TAKER_TOKEN']}", "Content-Type": "application/json"}

    def note(*lines: str) -> None:
        os.write(log, "".join(f"{line}\n" for line in lines).encode())

    def call(path: str, content: object) -> Any:
        web.request("POST", f"/v1/queue/{path}", json.dumps(content), headers)
        answer = web.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{path} was answered {answer.status}: {body[:300]!r}")
        return json.loads(body)

    while True:
        note("asks")
        found = call("take", given["take"])
        tasks = [task for some in found.values() for task in some]
        note(*(f"got {task['task_id']} {task['status']} {task['data']['n']}" for task in tasks), "has all")
        for task in tasks:
            perhaps_die(task["data"], Path(given["log"]).parent)
            time.sleep(random.uniform(*given["work_ms"]) / 1000)
            task_id = task["task_id"]
            body = {"by": given["name"], "n": task["data"]["n"]}
            for again in (False, True)[: 2 if random.random() < AGAIN else 1]:
                note(f"completes {task_id}")
                content = body | ({"again": True} if again else {})
                call(f"{task_id}/complete", {"status_code": 200, "request_id": task_id, "body": content})
                note(f"completed {task_id}")


def perhaps_die(data: dict[str, Any], folder: Path) -> None:
    if data.get("kills"):
        with (folder / f"deadly-{data['n']}").open("ab") as file:
            file.write(b".")
            file.flush()
            if file.tell() <= data["kills"]:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
