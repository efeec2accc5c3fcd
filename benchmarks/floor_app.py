"""A Flask view that does nothing, for the floor under every submit."""

from __future__ import annotations

from flask import Flask, request

app = Flask(__name__)


@app.post("/")
def nothing() -> str:
    request.get_data()  # an unread body would end the connection
    return "ok"
