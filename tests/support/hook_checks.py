"""The invariants of webhooks, on what the server holds now. Those of requests: drive.py."""

from __future__ import annotations

from typing import Any

from eas_queue.store import keys
from tests.support.held import Held


class HookChecks:
    """Made first, it checks the receivers; then ``check`` each service."""

    def __init__(self, held: Held) -> None:
        self._held = held
        turns = held.zset(keys.HOOKS)
        self._due = {to: held.zset(keys.HOOKS_DUE_PREFIX + to) for to in turns}
        self._out = {to: held.zset(keys.HOOKS_OUT_PREFIX + to) for to in turns}
        begin = keys.HOOKS + ":"
        found = {name for name in held.names(begin) if ":" in name.removeprefix(begin)}
        expected = {keys.HOOKS_DUE_PREFIX + to for to, entries in self._due.items() if entries}
        expected |= {keys.HOOKS_OUT_PREFIX + to for to, entries in self._out.items() if entries}
        assert found == expected, "H1: something is due or out at a receiver that is not in the row"
        failing = held.set(keys.HOOKS_FAILING)
        assert failing <= set(turns), "H1: failing, and nothing is to be sent"
        if not turns:
            return
        now = held.time_ms + int(held.fields(keys.SYS, "skew_ms")[0] or 0)
        for to, at in turns.items():
            due, out = self._due[to], self._out[to]
            assert due or out, f"H1: {to} is in the row for nothing"
            assert not set(due) & set(out), "H2: due, and being sent"
            has_room = len(out) < (2 if to in failing else 16)
            moments = [*out.values(), *(due.values() if has_room else [])]
            assert at <= max(min(moments), now) + 1, f"H3: {to} would be looked at too late"

    def check(self, service: str, states: dict[str, list[Any]]) -> None:
        """*states*: state, .., the webhook by request id."""
        listed, failed = (self._held.zset(keys.service_key(service, name)) for name in ("hooks", "hooks_failed"))
        assert set(failed) <= set(listed), "H4: given up, and in no list"
        assert len(set(listed.values())) == len(listed), "H4: an index was given twice"
        for request_id, (state, *_, hook) in states.items():
            is_over = state not in (b"queued", b"running")
            assert (request_id in listed) == (is_over and hook is not None), f"H5: {request_id} is {state!r}, {hook!r}"
        for request_id in set(listed) & set(states):  # the sweep is about to drop the others
            found = self._held.hash(keys.hook_key(service, request_id))
            state, to, entry = found[b"state"], found[b"to"].decode(), f"{service} {request_id}"
            places = [entry in self._due.get(to, {}), entry in self._out.get(to, {})]
            assert sum(places) == (state == b"pending"), f"H6: {request_id} is {state!r}, due and out: {places}"
            assert places[1] == (b"token" in found), f"H6: {request_id} is being sent, or has a token, not both"
            assert (request_id in failed) == (state == b"failed"), f"H7: {request_id} is {state!r}"
            assert (b"next_ms" in found) == (state == b"pending"), f"H7: {request_id} is {state!r}"
