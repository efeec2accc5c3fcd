"""The same service without eas_queue: Flask, Celery on Redis, the result kept by Celery. See README.md."""

from __future__ import annotations

import json
import os
from typing import Any

import requests
from celery import Celery
from celery.exceptions import TimeoutError as NotYet
from celery.result import AsyncResult
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from requests.adapters import HTTPAdapter

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
TARGET = os.environ.get("TARGET_API_BASE_URL", "http://localhost:8000")

celery_app = Celery("plain", broker=REDIS_URL, backend=REDIS_URL)
celery_app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    **json.loads(os.environ.get("CELERY_SETTINGS", "{}")),
)

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=1000))  # 10, its default, would throw connections away under gevent

app = Flask(__name__)


@celery_app.task(name="forward")
def forward(service: str, query: str, body: str, content_type: str) -> dict[str, Any]:
    answer = session.post(
        f"{TARGET}/api/predict/{service}",
        params=query,
        data=body.encode(),
        headers={"Content-Type": content_type},
        timeout=600,
    )
    return {"status": answer.status_code, "type": answer.headers.get("Content-Type", ""), "body": answer.text}


@app.post("/api/predict/<service>")
def submit(service: str) -> ResponseReturnValue:
    task = forward.apply_async(
        args=[service, request.query_string.decode(), request.get_data(as_text=True), request.content_type or ""],
        queue="high_priority" if request.args.get("_priority_", type=int) else "celery",
    )
    return task.id, 200


@app.get("/api/predict/<service>/<task_id>")
def result(service: str, task_id: str) -> ResponseReturnValue:
    """The target's answer; 202 when there is none yet, after waiting for it `?wait=` seconds."""
    task: AsyncResult[Any] = AsyncResult(task_id, app=celery_app)
    wait_s = float(request.args.get("wait", 0))
    if not wait_s and not task.ready():
        return jsonify(status=task.status), 202
    try:
        found = task.get(timeout=wait_s or 1)
    except NotYet:
        return jsonify(status=task.status), 202
    except requests.RequestException as exc:
        return jsonify(status="FAILURE", error=str(exc)), 502
    return found["body"], found["status"], {"Content-Type": found["type"]}
