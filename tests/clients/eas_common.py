"""What the programs here that drive eas_prediction share.

They run in that package's environment (tests/support/clients.py) and say what happens as lines of JSON on standard
output; tests start them by tests/support/eas_sdk.py. The package is used as it is: nothing of it is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from eas_prediction import QueueClient

# The SDK prints errors to standard output; from here on that is standard error, and only facts go where facts are read.
_facts = os.dup(1)
os.dup2(2, 1)


def say(**fact: Any) -> None:
    """One line, in one write: it is there even if the process is killed right after it."""
    os.write(_facts, json.dumps(fact).encode() + b"\n")


def text(data: bytes) -> str:
    """Any bytes as a string of JSON; ``encode("latin-1")`` gives them back."""
    return data.decode("latin-1")


def frame(found: Any) -> dict[str, Any]:
    return {
        "index": found.index,
        "tags": dict(found.tags),
        "data": text(found.data),
        "message": found.message,
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--endpoint", required=True, help="host:port")
    made.add_argument("--token", required=True)
    made.add_argument("--queue", required=True, help="service, or service/sink")
    made.add_argument("--uid", help="default: the SDK's, a random one")
    made.add_argument("--gid", default="eas")
    return made


def client(options: Any) -> Any:
    made = QueueClient(options.endpoint, options.queue)
    made.set_token(options.token)
    made.init(uid=options.uid, gid=options.gid)
    return made
