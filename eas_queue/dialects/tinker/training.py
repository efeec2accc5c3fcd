"""Training is not what a queue does: its calls get a clear refusal, and get it once."""

from __future__ import annotations

from flask import Blueprint, Response, request

from eas_queue.auth import Access
from eas_queue.dialects.tinker import answers
from eas_queue.dialects.tinker.account import check_any

SDK_METHOD_HEADER = "X-Sdk-Method"  # on calls of the high-level client
# By the SDK's resources. What is not here either, such as checkpoints' lists, is 404 like any other path.
CALLS = (
    "create_model",
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "load_weights",
    "unload_model",
    "get_info",
    "weights_info",
    "copy_weights",
    "save_weights_external",
    "create_custom_loss",
    "retrieve_futures",
)


def blueprint(access: Access) -> Blueprint:
    routes = Blueprint("tinker_training", __name__, url_prefix="/api/v1")

    def refuse() -> Response:
        """501. To the high-level client 404: it goes on trying for five minutes whatever begins with a 5."""
        check_any(access)
        code = 404 if SDK_METHOD_HEADER in request.headers else 501
        name = request.path.rpartition("/")[2]
        detail = f"{name} is not served here: this is a queue for sampling, which trains no models and keeps no weights"
        content = {"detail": detail, "code": "not-served", "title": "Training is not served", "status": code}
        response = answers.json_response(content, code)
        response.headers["x-should-retry"] = "false"
        return response

    for call in CALLS:
        routes.add_url_rule(f"/{call}", call, refuse, methods=["POST"])
    return routes
