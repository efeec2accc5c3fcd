"""Who may do what, which requests are this dialect's, and the default service."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.dialects.eas.conftest import Lone
from tests.support.eas_client import PROTOBUF, REQUEST_ID, Query, Queue
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS, Front
from tests.support.installation import TOKEN

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]
FAMILIES = ["Redis-", ""]

OPERATIONS: dict[str, tuple[str, str, Query, set[str]]] = {
    # method, queue, query, roles that may
    "put": ("POST", "", "", {"submit"}),
    "put to the sink": ("POST", "/sink", "", {"consume"}),
    "end": ("POST", "", "_eos_=true", {"admin"}),
    "attributes": ("GET", "", "_attrs_=true", {"read"}),
    "search": ("GET", "", "_search_=true&_index_=1", {"read"}),
    "count": ("GET", "/sink", "_count_=true", {"read"}),
    "get and leave": ("GET", "/sink", "_auto_delete_=false", {"read"}),
    "get": ("GET", "/sink", "", {"consume"}),
    "watch": ("GET", "/sink", "_watch_=true&_window_=x", {"consume"}),  # the window is refused, after the token
    "delete": ("DELETE", "", "_index_=99", {"consume"}),
    "truncate": ("DELETE", "", "_index_=0&_trunc_=true", {"consume"}),
    "commit": ("PUT", "", "_indexes_=99", {"consume"}),
    "negative": ("PUT", "", "_indexes_=99&_negative_=true", {"consume"}),
}


class TestTokens:
    @pytest.mark.parametrize(
        "authorization", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Key {TOKEN}", f" {TOKEN} "]
    )
    def test_a_raw_token_is_as_good_as_one_with_a_scheme(self, each: Queue, authorization: str) -> None:
        answer = each.call("GET", "_attrs_=true", headers={"Authorization": authorization})

        assert (answer.status, answer.json["stream.length"]) == (200, "0")

    def test_one_in_x_api_key_too(self, sink: Queue) -> None:
        assert sink.call("GET", "_attrs_=true", headers={"Authorization": "", "X-API-Key": TOKEN}).status == 200

    @pytest.mark.parametrize("authorization", ["", "wrong", "Bearer wrong", f"{TOKEN}x", f"EAS {TOKEN}"])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_without_a_good_one_nothing_is_done_and_nothing_told(
        self, input_: Queue, operation: str, authorization: str
    ) -> None:
        method, path, query, _ = OPERATIONS[operation]

        answers = [
            input_.call(method, query, headers={"Authorization": authorization}, path=path),
            Queue(input_.port, "/api/predict/nobody", authorization=authorization).call(method, query, path=path),
        ]

        assert {answer.status for answer in answers} == {401}
        assert answers[0].body == answers[1].body
        assert answers[0].body.count(b"\n") == 1
        assert input_.put() == 1

    @pytest.mark.parametrize("role", ROLE_TOKENS)
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_token_does_what_its_roles_are_for(self, input_: Queue, operation: str, role: str) -> None:
        method, path, query, roles = OPERATIONS[operation]

        answer = input_.call(method, query, headers={"Authorization": ROLE_TOKENS[role]}, path=path)

        assert (answer.status != 403) == (role in roles), answer.body
        assert answer.status in (200, 204, 400, 403, 404)
        if answer.status == 403:
            assert answer.body.startswith(b"this token may not ")

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_token_of_another_service_is_refused(self, input_: Queue, operation: str) -> None:
        method, path, query, _ = OPERATIONS[operation]

        answer = input_.call(method, query, headers={"Authorization": LIMITED_TOKEN}, path=path)

        assert answer.status == 403

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_service_that_is_not_listed_is_404(self, queue_of: QueueOf, operation: str) -> None:
        method, path, query, _ = OPERATIONS[operation]
        query = str(query).replace("_window_=x", "")

        answer = queue_of("nobody").call(method, query, path=path)

        assert answer.status == 404
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert b"'nobody' is not served here" in answer.body

    def test_a_service_name_may_have_a_dot(self, queue_of: QueueOf) -> None:
        queue = queue_of("test_group.qservice").sink

        assert queue.put() > 0
        assert queue.get()

    def test_without_tokens_an_empty_header_will_do_and_none_and_any(self, lone: Lone) -> None:
        queue = lone.queue().sink
        for authorization in ("", "anything", None):
            other = Queue(queue.port, queue.path, authorization=authorization)

            assert other.put() > 0
            assert len(other.get()) == 1


class TestIdentity:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_both_families_of_headers_name_user_and_group(self, each: Queue, family: str) -> None:
        one = each.as_("u", "g", family=family)
        each.puts(1)
        with one.watching() as watch:
            watch.next()
            assert each.consumer("g.u")["Pending"] == "1"
            assert one.search(1)["ConsumerId"] == "g.u"

            each.as_("v", "g", family=FAMILIES[family == FAMILIES[0]]).commit(1)

            assert each.length == 0

    def test_who_names_none_is_somebody_else_each_time_in_the_default_group(self, sink: Queue) -> None:
        anonymous = sink.as_(None, None)
        with anonymous.watching(), anonymous.watching():
            assert sink.in_group("default_group")["Consumers"] == "2"

    def test_an_empty_name_is_none(self, sink: Queue) -> None:
        with sink.as_("", "").watching():
            assert sink.in_group("default_group")["Consumers"] == "1"

    @pytest.mark.parametrize("value", ["true", "1", "T", "TRUE"])
    def test_the_rear_is_another_queue(self, each: Queue, value: str) -> None:
        service_rear = each.call("POST", "", b"r", {"X-EAS-QueueService-Access-Rear": value})

        assert service_rear.status == 200
        assert [item.data for item in each.rear.peek()] == [b"r"]

    @pytest.mark.parametrize("value", ["false", "0"])
    def test_the_rear_is_not_meant_by_false(self, sink: Queue, value: str) -> None:
        sink.call("POST", "", b"r", {"X-EAS-QueueService-Access-Rear": value})

        assert (sink.length, sink.rear.length) == (1, 0)


class TestWhose:
    """The paths are the native dialect's too."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": TOKEN},
            {"Accept": PROTOBUF},
            {"X-EAS-QueueService-Uid": "u"},
            {"X-EAS-QueueService-Redis-Gid": "g"},
            {"X-EAS-QueueService-Priority": "1"},
            {"X-EAS-QueueService-Access-Rear": "false"},
        ],
    )
    def test_a_put_answers_the_index_to_clients_of_this_one(self, front: Front, headers: Mapping[str, str]) -> None:
        answer = front.post("demo", b"{}", headers)

        assert int(answer.body) >= 1
        assert answer.request_id

    @pytest.mark.parametrize("query", ["", "?_priority_=1", "?requestId=r"])
    def test_a_put_answers_its_id_to_native_ones(self, front: Front, query: str) -> None:
        answer = front.post(f"demo{query}", b"{}")

        assert answer.body.decode() == answer.request_id
        assert "Location" in answer.headers

    @pytest.mark.parametrize("headers", [{}, {"Authorization": TOKEN}])
    def test_native_paths_stay_native(self, front: Front, headers: Mapping[str, str]) -> None:
        request_id = front.ended().json["request_id"]
        base = "/api/predict/demo"

        for path in (f"{base}/requests/{request_id}", f"{base}/sink?request_id={request_id}"):
            assert front.call("GET", path, headers=headers).json["status"] == "SUCCESS"
        assert front.call("GET", f"{base}/requests/{request_id}/result", headers=headers).json == {"ok": True}
        assert front.call("DELETE", f"{base}/requests/{request_id}", headers=headers).status == 409

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_a_bearer_that_names_no_operation_removes_nothing(self, input_: Queue, method: str) -> None:
        input_.puts(1)
        bearer = Queue(input_.port, input_.path, user=None, group=None, authorization=f"Bearer {TOKEN}")

        assert bearer.call(method).status in (404, 405)
        assert bearer.sink.call(method).status in (400, 404, 405)

        assert input_.indexes == [1]

    def test_a_bearer_that_names_one_is_served(self, input_: Queue) -> None:
        bearer = Queue(input_.port, input_.path, user=None, group=None, authorization=f"Bearer {TOKEN}").sink

        assert bearer.put(b"x", "requestId=mine") == 1
        assert len(bearer.get(index_=0, auto_delete_="false")) == 1
        assert bearer.call("GET", "requestId=mine").body == b"x"
        bearer.delete(1)


class TestDefaultService:
    def test_its_queues_are_at_the_root(self, front: Front, queue_of: QueueOf) -> None:
        named, root = queue_of("root"), Queue(front.port, "/")
        root.sink.truncate(2**53)

        answer = root.call("POST", "echo=1&requestId=mine", b"{}")
        [result] = root.sink.get(requestId="mine", timeout_="3s", auto_delete_="false")

        assert answer.headers[REQUEST_ID] == "mine"
        assert named.sink.indexes == [result.index]
        assert root.attributes["meta.name"] == "root"
        with root.sink.watching() as watch:
            assert watch.next().index == result.index
            root.sink.commit(result.index)
        assert named.sink.length == 0

    def test_go_reads_it_by_protobuf(self, front: Front) -> None:
        answer = Queue(front.port, "/").call("GET", "_attrs_=true", headers={"Accept": PROTOBUF})

        assert answer.headers["Content-Type"] == PROTOBUF

    def test_without_one_there_is_nothing(self, lone: Lone) -> None:
        assert Queue(lone.port, "/", authorization="").call("GET", "_attrs_=true").status == 404
