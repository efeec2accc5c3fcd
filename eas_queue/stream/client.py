"""The calls of a queue's HTTP API. Every answer that is not the wanted one is raised as one of `errors`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import requests

from eas_queue.stream import durations, errors, items, reasons
from eas_queue.stream.items import Item
from eas_queue.stream.target import Target

CONNECT_S = 5.0
ANSWER_S = 30.0
# A get that waits is answered a little early, so that clients with a timeout of the same length get it; what is left
# then is not worth another call.
_REST_S = 0.5
_PAUSE_S = 1.0

T = TypeVar("T")


class Client:
    """Keeps its connection between calls. Threads may not share one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"

    def close(self) -> None:
        self._session.close()

    # ------------------------------------------------------------------------------------------------------- calls
    def attributes(self) -> dict[str, str]:
        answer = self._call("GET", "look at the attributes of", {"_attrs_": "true"})
        return self._read(answer, _attributes, "attributes of a queue")

    def put(self, data: bytes, *, tags: Mapping[str, str], priority: int) -> tuple[int, str]:
        """Index and request id of the new item. Not repeated when its answer is lost: it could be stored twice."""
        query = dict(tags) | ({"_priority_": str(priority)} if priority else {})
        answer = self._call("POST", "put to", query, data=data)
        return self._number(answer, "an index"), answer.headers.get("X-Eas-Queueservice-Request-Id", "")

    def get(
        self, *, index: int, length: int, timeout_ns: int, auto_delete: bool, tags: Mapping[str, str]
    ) -> list[Item]:
        """The items found in time; none: an empty list. A queue that waits less long than asked is asked again."""
        until_s = time.monotonic() + timeout_ns / 1e9
        while True:
            query = dict(tags) | {
                "_index_": str(index),
                "_length_": str(length),
                "_timeout_": durations.to_text(timeout_ns),
                "_auto_delete_": "true" if auto_delete else "false",
                "_raw_": "false",
            }
            asked_s = time.monotonic()
            answer = self._call("GET", "get from", query, wanted=(200, 204), within_s=timeout_ns / 1e9 + 10)
            if answer.status_code == 200:
                return self._items(answer)
            left_s = until_s - time.monotonic()
            if left_s < _REST_S:
                return []
            if time.monotonic() - asked_s < _PAUSE_S:  # one that does not wait at all
                time.sleep(min(_PAUSE_S, left_s))
            timeout_ns = max(0, round((until_s - time.monotonic()) * 1e9))

    def delete(self, indexes: Sequence[int]) -> None:
        self._call("DELETE", "delete from", {"_indexes_": ",".join(map(str, indexes))})

    def truncate(self, index: int) -> None:
        self._call("DELETE", "truncate", {"_index_": str(index), "_trunc_": "true"})

    def commit(self, index: int) -> None:
        self._call("PUT", f"commit {index} of", {"_indexes_": str(index)})

    def negative(self, index: int, *, code: str, reason: str) -> None:
        query = {"_indexes_": str(index), "_negative_": "true"}
        # Go's SDK always sends both, empty or not; a dict makes requests declare a form
        self._call("PUT", f"reject {index} of", query, data={"_code_": code, "_reason_": reason})

    def search(self, index: int) -> dict[str, Any]:
        """ConsumerId, IsPending and WaitCount of an item."""
        answer = self._call("GET", f"search {index} in", {"_search_": "true", "_index_": str(index)})
        return self._json(answer, "what is known of an item")

    def count(self, *, tags: Mapping[str, str], priority: int) -> int:
        query = dict(tags) | {"_count_": "true"} | ({"_priority_": str(priority)} if priority else {})
        return self._number(self._call("GET", "count the items of", query), "a number")

    # ------------------------------------------------------------------------------------------------------ inside
    def _call(
        self,
        method: str,
        verb: str,
        query: Mapping[str, str],
        *,
        data: bytes | Mapping[str, str] | None = None,
        wanted: tuple[int, ...] = (200,),
        within_s: float | None = None,
    ) -> requests.Response:
        within_s = ANSWER_S if within_s is None else within_s
        tried = f"{verb} {self.target.url}"
        url = self.target.url + "?" + "&".join(f"{quote(key, '')}={quote(query[key], '')}" for key in query)
        try:
            answer = self._session.request(
                method,
                url,
                data=data,
                # as `auth`, so that a ~/.netrc does not put a password for this host in the token's place
                auth=self._signed,
                timeout=(CONNECT_S, within_s),
                allow_redirects=False,  # the token is for this URL
            )
        except requests.RequestException as exc:
            raise _unreachable(tried, exc, within_s) from exc
        if answer.status_code not in wanted:
            raise errors.from_status(
                tried, answer.status_code, answer.content, self.target, location=answer.headers.get("Location")
            )
        return answer

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.target.headers)
        return request

    def _items(self, answer: requests.Response) -> list[Item]:
        return self._read(answer, items.from_json, "a list of items")

    def _json(self, answer: requests.Response, what: str) -> dict[str, Any]:
        def read(body: bytes) -> dict[str, Any]:
            content = json.loads(body)
            if not isinstance(content, dict):
                raise ValueError("no object")  # noqa: TRY004  whatever it is
            return content

        return self._read(answer, read, what)

    def _number(self, answer: requests.Response, what: str) -> int:
        return self._read(answer, int, what)

    def _read(self, answer: requests.Response, read: Callable[[bytes], T], what: str) -> T:
        try:
            return read(answer.content)
        except (ValueError, RecursionError) as exc:
            raise errors.Refused(
                f"{answer.request.method} {self.target.url}: the answer is not {what}",
                "this is no queue of PAI-EAS, or something stands in front of it; check the URL",
            ) from exc


def _attributes(body: bytes) -> dict[str, str]:
    content = json.loads(body)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError("not an object of strings")
    return content


def _unreachable(tried: str, exc: requests.RequestException, within_s: float) -> errors.Unreachable:
    if isinstance(exc, requests.ReadTimeout):
        return errors.Unreachable(f"{tried}: no answer within {within_s:g} s", reasons.UNKNOWN)
    if isinstance(exc, requests.Timeout):
        return errors.Unreachable(f"{tried}: no connection within {CONNECT_S:g} s", reasons.ABSENT)
    return errors.Unreachable(f"{tried}: {reasons.of(exc)}", reasons.advice(exc))
