"""The example target: an HTTP server that answers `POST /api/predict/<service>[/<path>]` with a sentiment.

Sampling requests of Tinker's clients get samples instead: examples/tinker/asample.py.

    python -m examples.sentiment.target --port 5001
    gunicorn -c python:examples.sentiment --no-control-socket -k gevent -b 127.0.0.1:5001 examples.sentiment.target:app

`-c` names a module without settings; otherwise gunicorn would take up those of the queue, from `gunicorn.conf.py`.

It knows nothing of the queue. Every service name and subpath gets the same model, trained once when the module loads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import run_simple

from examples.sentiment.model import HELDOUT_FILE, TRAIN_FILE, Model
from examples.tinker import asample

MAX_DELAY_S = 60.0
WHAT_TO_SEND = 'send {"text": "..."}, {"texts": ["...", "..."]}, other JSON with a string in it, or plain text'


class Refused(Exception):
    """A request that gets no prediction: the HTTP status, a stable code and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def create_app() -> Flask:
    """Train the model and build the app around it. Reads two files beside this module, nothing else."""
    started = time.perf_counter()
    model = Model.train(_lines(TRAIN_FILE))
    training_ms = (time.perf_counter() - started) * 1000
    heldout = _lines(HELDOUT_FILE)
    facts = {
        "training_sentences": model.training_sentences,
        "training_ms": round(training_ms, 1),
        "heldout_sentences": len(heldout),
        "heldout_accuracy": model.accuracy(heldout),
    }

    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # sequences come first

    # Two routes, not strict_slashes=False: with that a GET without the slash is answered 404 instead of 405.
    @app.post("/api/predict/<service>")
    @app.post("/api/predict/<service>/")
    @app.post("/api/predict/<service>/<path:subpath>")
    def predict(service: str, subpath: str = "") -> Response:
        delay_s = read_delay_s(request.args.get("delay_s", "0"))
        body = read_body(request.get_data(), request.mimetype)
        answer = sample(body) if asample.is_asked(body) else classify(model, body)
        time.sleep(delay_s)
        return jsonify(answer)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok", model=facts)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        return jsonify(error=error.code, message=error.message), error.status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        # The exception's own response is kept for its headers: a 405 must carry Allow.
        response = Response(headers=error.get_headers(), status=error.code)
        response.set_data(json.dumps({"error": error.name.lower().replace(" ", "_"), "message": error.description}))
        response.content_type = "application/json"
        return response

    return app


def read_delay_s(value: str) -> float:
    """The query parameter `delay_s` in seconds. Raises Refused unless it is a number from 0 to 60."""
    try:
        delay_s = float(value)
    except ValueError:
        delay_s = -1.0
    # Written so that nan, which compares false with everything, is refused too.
    if not 0 <= delay_s <= MAX_DELAY_S:
        raise Refused(400, "invalid_delay", f"delay_s must be a number from 0 to {MAX_DELAY_S:g}, got {value!r}")
    return delay_s


def read_body(body: bytes, mimetype: str) -> object:
    """The JSON value in *body*, or its text where it is not JSON and does not claim to be. Raises Refused."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Refused(400, "invalid_encoding", f"the body is not UTF-8: {exc}") from exc
    if not text.strip():
        raise Refused(422, "nothing_to_classify", f"the body is empty; {WHAT_TO_SEND}")
    if mimetype == "text/plain":
        return text
    try:
        return json.loads(text)
    # RecursionError: brackets nested a thousand deep are the sender's mistake, not ours.
    except (ValueError, RecursionError) as exc:
        if mimetype == "application/json" or mimetype.endswith("+json"):
            raise Refused(400, "invalid_json", f"the body is not JSON: {exc}") from exc
        return text


def sample(body: Any) -> dict[str, Any]:
    """The answer to a sampling request. Raises Refused."""
    try:
        return asample.answer(body, request.headers)
    except asample.NotSampled as exc:
        raise Refused(422, "not_sampled", str(exc)) from exc


def classify(model: Model, body: object) -> dict[str, Any]:
    """The answer to *body*: `predictions` for a list of texts, else one prediction. Raises Refused without a text."""
    if isinstance(body, dict) and "texts" in body:
        texts = body["texts"]
        # One bad entry refuses all: callers match predictions to texts by position.
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise Refused(422, "nothing_to_classify", f"texts must be a list of non-empty strings; {WHAT_TO_SEND}")
        return {"predictions": [_prediction(model, text) for text in texts]}

    if isinstance(body, dict) and isinstance(body.get("text"), str):
        body = body["text"]
    text = " ".join(strings_in(body))
    if not text.strip():
        raise Refused(422, "nothing_to_classify", f"no text in the body; {WHAT_TO_SEND}")
    return _prediction(model, text)


def strings_in(value: object) -> Iterator[str]:
    """Yield every string value in a JSON value, in the order of the document; the keys of objects do not count."""
    # A stack instead of recursion: the depth is the sender's choice.
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))


def _prediction(model: Model, text: str) -> dict[str, Any]:
    prediction = model.predict(text)
    return {"label": prediction.label, "probability": round(prediction.probability, 4), "text": text}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def main() -> None:
    """Serve on 127.0.0.1 with a thread per request until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.sentiment.target", description=main.__doc__)
    parser.add_argument("--port", type=int, default=5001, help="port on 127.0.0.1 (default: %(default)s)")
    port = parser.parse_args().port
    if not 0 < port < 65536:
        parser.error(f"argument --port: must be from 1 to 65535, got {port}")
    run_simple("127.0.0.1", port, app, threaded=True)


app = create_app()

if __name__ == "__main__":
    main()
