"""Asks the queue what it thinks of a sentence, through fal's own client: submits, follows, and prints the result.

    FAL_KEY=$(cat .run/token) python examples/fal/python_client.py "A lovely, friendly hotel."

FAL_KEY is a token of the queue. QUEUE_URL is where the queue is, if not at http://127.0.0.1:5000.
"""

from __future__ import annotations

import os
import sys

import fal_client

# Over plain HTTP these two lines point the client here. Over TLS leave them out: FAL_QUEUE_RUN_HOST and FAL_RUN_HOST in
# the environment are enough then, and the program is the one that you have already (README.md shows how).
if "FAL_QUEUE_RUN_HOST" not in os.environ:
    url = os.environ.get("QUEUE_URL", "http://127.0.0.1:5000").rstrip("/")
    fal_client.client.QUEUE_URL_FORMAT, fal_client.client.RUN_URL_FORMAT = f"{url}/fal/", f"{url}/fal-run/"

APP = "local/sentiment"  # the service local.sentiment, or the one that has this name among its aliases


def ask(text: str) -> str:
    """The answer in words. What happens until it is there is printed."""
    handle = fal_client.submit(APP, arguments={"text": text})
    print(f"request {handle.request_id}")

    shown, logs_shown = "", 0
    for event in handle.iter_events(with_logs=True):
        if isinstance(event, fal_client.Queued):
            state, logs = f"waiting, {event.position} before it", []
        else:
            state, logs = "done" if isinstance(event, fal_client.Completed) else "at work", event.logs
        for entry in logs[logs_shown:]:
            print(f"  log: {entry['message']}")
        logs_shown = max(logs_shown, len(logs))
        if state != shown:
            print(state)
            shown = state

    result = handle.get()
    return f"{result['label']}, {result['probability']:.0%}: {result['text']}"


def main() -> None:
    if "FAL_KEY" not in os.environ:
        sys.exit("FAL_KEY is not set: it is a token of the queue; `make run` keeps one in .run/token")
    try:
        print(ask(" ".join(sys.argv[1:]) or "A lovely, friendly hotel."))
    except fal_client.FalClientHTTPError as exc:
        sys.exit(f"{exc.status_code}: {exc}")


if __name__ == "__main__":
    main()
