"""What the programs here share that speak the take API with bella-openapi's models.

They run in that package's environment (tests/support/clients.py); tests start them by tests/support/bella_sdk.py. The
package's own client is not in what it publishes, so HTTP is done here; what is sent and what comes goes through its
models, strictly: no text is taken for a number.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_facts = os.dup(1)
os.dup2(2, 1)  # from here on only facts go where facts are read


def say(**fact: Any) -> None:
    os.write(_facts, json.dumps(fact).encode() + b"\n")


def _loaded() -> Any:
    """The module by its path: the packages around it import what is not there."""
    package = importlib.util.find_spec("bella_openapi")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "worker", "models.py")
    spec = importlib.util.spec_from_file_location("bella_models", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


models = _loaded()


class Refused(Exception):
    """An answer that is none of a success."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


class Server:
    """The take API at BELLA_HOST, with the key BELLA_API_KEY: the names that the package's settings have."""

    def __init__(self) -> None:
        self._url, self._key = os.environ["BELLA_HOST"], os.environ["BELLA_API_KEY"]

    def _call(self, method: str, path: str, content: Any = None) -> Any:
        """Raises Refused."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self._url}/v1/queue/{path}", data, headers, method=method)
        try:
            with _opener.open(request, timeout=10) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as exc:
            with exc:
                raise Refused(exc.code, exc.read().decode(errors="replace")) from None

    def eventbus(self) -> Any:
        return models.EventBusConfig.model_validate(self._call("GET", "eventbus"), strict=True)

    def take(self, **asked: Any) -> dict[str, list[dict[str, Any]]]:
        """The tasks as they came. Raises pydantic's ValidationError, or ValueError for what no model knows."""
        its_own = {name: asked[name] for name in models.TaskRequest.model_fields if name in asked}
        content = models.TaskRequest.model_validate(its_own, strict=True).model_dump()
        answer: dict[str, list[dict[str, Any]]] = self._call("POST", "take", asked | content)
        for queue, tasks in answer.items():
            if queue not in asked["queues"] or not tasks:
                raise ValueError(f"{queue!r} has {tasks} in the answer")
            for task in tasks:
                parsed = models.QueueTask.model_validate(task, strict=True)
                if parsed.model_dump(exclude_unset=True) != task:
                    raise ValueError(f"the model has {parsed} of {task}")
                if f"{parsed.queue}:{parsed.level}" != queue:
                    raise ValueError(f"{parsed.task_id} of {parsed.queue}:{parsed.level} is in {queue}")
        return answer

    def complete(self, task_id: str, status_code: int, body: dict[str, Any]) -> Any:
        made = models.TaskResponse(status_code=status_code, request_id=task_id, body=body)
        return self._call("POST", f"{task_id}/complete", made.model_dump())

    def tell(self, task_id: str, event_id: str, name: str, data: dict[str, Any]) -> Any:
        """Of a streaming task."""
        made = models.ProgressEventPayload(taskId=task_id, eventId=event_id, eventName=name, eventData=data)
        return self._call("POST", f"{task_id}/progress", made.model_dump())
