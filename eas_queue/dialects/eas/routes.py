"""The operations of the PAI-EAS queue service on the four queues of a service. See PROTOCOL.md."""

from __future__ import annotations

import json
from dataclasses import replace

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound
from eas_queue.dialects.eas import codec, parameters, schema, watch
from eas_queue.engine import errors, tags
from eas_queue.engine.engine import Engine
from eas_queue.engine.items import Queue
from eas_queue.engine.queues import Put
from eas_queue.engine.request import Caller

PREFIX = "/~eas/"  # where requests come that this dialect has claimed
WAIT_MOST_S = 60.0  # gateways cut longer calls
_PATHS = ("/<service>", "/<service>/", "/<service>/<path:rest>")


def blueprint(engine: Engine, access: Access, *, max_payload_bytes: int, max_wait_s: float) -> Blueprint:
    """The operations under PREFIX."""
    routes = Blueprint("eas", __name__, url_prefix=PREFIX.rstrip("/"))

    def allow(role: Role, service: str) -> Caller:
        return access.check(request.headers, request.remote_addr or "", role, service)

    def put(service: str, rest: str = "") -> Response:
        if parameters.is_set(request, "_eos_"):
            allow(Role.ADMIN, service)
            engine.services.get(service)
            return _ok()  # see PROTOCOL.md: queues here do not end
        queue = parameters.queue_of(request, rest)
        if queue is Queue.INPUT:
            return put_request(service, rest)
        allow(Role.CONSUME, service)
        query, headers = inbound.forwarded(request)
        data = inbound.whole_body(request)
        kind = request.headers.get("Content-Type", "")
        found = inbound.item_tags(query, headers, kind or inbound.sniffed(data))
        found["requestId"] = _chosen_id(found)
        index, request_id = engine.queues.put(service, queue, Put(data, found, parameters.priority(request), kind))
        return _text(str(index), request_id)

    def put_request(service: str, rest: str) -> Response:
        caller = allow(Role.SUBMIT, service)
        path, priority = inbound.raw_subpath(request, "/api/predict/x/", rest), parameters.priority(request)
        submission = inbound.submission(request, path, caller, priority=priority)
        name = _chosen_id(parameters.tags(request))
        if name:
            packed = f"{submission.tags}requestId={tags.quoted(name)}&"
            submission = replace(submission, tags=packed, name=name)
        receipt = engine.submit(service, submission)
        return _text(str(receipt.index), name or receipt.request_id)

    def read(service: str, rest: str = "") -> Response:
        queue = parameters.queue_of(request, rest)
        if request.method == "HEAD":
            raise errors.InvalidRequest("a queue can't be read by HEAD")
        if parameters.is_set(request, "_attrs_"):
            allow(Role.READ, service)
            return attributes(service, queue)
        if parameters.is_set(request, "_search_"):
            allow(Role.READ, service)
            return search(service, queue)
        if parameters.is_set(request, "_count_"):
            allow(Role.READ, service)
            found = engine.queues.count(
                service, queue, priority=parameters.priority(request), having=parameters.tags(request)
            )
            return _text(str(found))
        if parameters.is_set(request, "_watch_"):
            allow(Role.CONSUME, service)
            return watch.response(engine, service, queue, request)
        return get(service, queue)

    def get(service: str, queue: Queue) -> Response:
        removes = parameters.flag(request, "_auto_delete_", True) is not False
        allow(Role.CONSUME if removes else Role.READ, service)
        chosen = codec.negotiate(request.headers.get("Accept", ""), parameters.flag(request, "_raw_", None))
        items = engine.queues.get(
            service,
            queue,
            parameters.selection(request),
            removes=removes,
            timeout_s=parameters.timeout_s(request, min(WAIT_MOST_S, max_wait_s)),
            is_gone=inbound.gone_check(request),
        )
        if not items:
            nothing = Response(status=204)
            del nothing.headers["Content-Type"]
            return nothing
        if chosen is codec.Codec.RAW and len(items) == 1:
            response = Response(items[0].data, content_type=codec.raw_content_type(items[0]))
            response.headers[parameters.REQUEST_ID_HEADER] = _header_value(items[0].tags.get("requestId", ""))
            return response
        body, kind = codec.encode_items(items, codec.Codec.JSON if chosen is codec.Codec.RAW else chosen)
        return Response(body, content_type=kind)

    def attributes(service: str, queue: Queue) -> Response:
        settings = engine.services.get(service)
        found = schema.attributes(
            settings.name if queue is Queue.INPUT else f"{settings.name}/{queue.replace('_', '/')}",
            engine.queues.view(service, queue),
            max_length=settings.max_queue_length if queue is Queue.INPUT else settings.max_sink_length,
            max_payload_bytes=max_payload_bytes,
        )
        is_protobuf = parameters.PROTOBUF in request.headers.get("Accept", "")
        body, kind = codec.encode_attributes(found, protobuf=is_protobuf)
        return Response(body, content_type=kind)

    def search(service: str, queue: Queue) -> Response:
        text = request.args.get("_index_", "")
        found = engine.queues.search(service, queue, parameters.index(text, "_index_"), parameters.consumer(request))
        if found is None:
            return Response("no data in stream", 404, content_type="text/plain; charset=utf-8")
        content = {"ConsumerId": found.consumer, "IsPending": found.is_pending, "WaitCount": found.ahead}
        return Response(json.dumps(content) + "\n", mimetype="application/json")

    def remove(service: str, rest: str = "") -> Response:
        allow(Role.CONSUME, service)
        queue = parameters.queue_of(request, rest)
        if parameters.is_set(request, "_trunc_"):
            below = parameters.index(request.args.get("_index_", ""), "_index_")
            engine.queues.truncate(service, queue, below)
        else:
            engine.queues.remove(service, queue, parameters.indexes(request))
        return _ok()

    def settle(service: str, rest: str = "") -> Response:
        allow(Role.CONSUME, service)
        queue, group = parameters.queue_of(request, rest), parameters.named_group(request)
        indexes = parameters.indexes(request)
        if parameters.is_set(request, "_negative_"):
            code, reason = parameters.refusal(request)
            engine.queues.refuse(service, queue, indexes, group, code=code, reason=reason)
        else:
            engine.queues.commit(service, queue, indexes, group)
        return _ok()

    for path in _PATHS:
        for method, view in (("POST", put), ("GET", read), ("DELETE", remove), ("PUT", settle)):
            routes.add_url_rule(path, view.__name__, view, methods=[method])
        # for werkzeug, a GET that would become a WebSocket is another one
        routes.add_url_rule(path, "read_upgraded", read, methods=["GET"], websocket=True)
    return routes


def _chosen_id(found: dict[str, str]) -> str:
    """The requestId that the client gives an item: a parameter, else the header; '' where it leaves it to the queue."""
    name = found.get("requestId") or parameters.named_request(request)
    if len(name) > 1000 or "\0" in name:
        raise errors.InvalidRequest("requestId must have at most 1,000 characters, and no NUL")
    return name


def _text(text: str, request_id: str = "") -> Response:
    response = Response(text, content_type="text/plain; charset=utf-8")
    if request_id:
        response.headers[parameters.REQUEST_ID_HEADER] = _header_value(request_id)
    return response


def _header_value(text: str) -> str:
    """What a header can carry of a tag."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _ok() -> Response:
    return _text("OK")
