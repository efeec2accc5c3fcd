"""The smallest HTTP target for `eas-queue pull --call`: `python -m examples.worker.target http://127.0.0.1:9000`.

It counts the words of `{"text": ".."}`, and answers what it makes of it under the path it was called at.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            status, answer = 200, {"words": len(json.loads(body)["text"].split()), "path": self.path}
        except (ValueError, KeyError, TypeError, AttributeError):
            status, answer = 422, {"error": 'send {"text": ".."}', "path": self.path}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    address = urlsplit(sys.argv[1])
    server = ThreadingHTTPServer((address.hostname or "127.0.0.1", address.port or 9000), Handler)
    print(f"listens at {address.geturl()}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
