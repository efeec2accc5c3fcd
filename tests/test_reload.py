"""Changed settings are taken over all at once or not at all, and every forked process hears of them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from eas_queue.auth import Access, Role, Token, Unauthorized
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission
from eas_queue.engine.service import Service, Services, ServiceSettings
from eas_queue.reload import NAMES_MOST, Bell, Reload, changes
from eas_queue.store import keys
from eas_queue.store.errors import StoreUnavailable

ONE, TWO = "tml-00112233445566778899aabbccddeeff", "tml-ffeeddccbbaa99887766554433221100"
URL = "http://127.0.0.1:9/{service}"
BODY = Submission(body=b"{}")


def services(*, unlisted: int | None = None, **caps: int) -> Services:
    """*caps*: max_concurrency by name; *unlisted*: that of all others, None where only these are served."""
    listed = {name: ServiceSettings(target_url=URL, max_concurrency=cap) for name, cap in caps.items()}
    defaults = ServiceSettings(target_url=URL, max_concurrency=unlisted or 64)
    return Services(listed, defaults, allow_unlisted=unlisted is not None, result_ttl_s=60)


def cap(engine: Engine, name: str) -> int:
    """What Redis holds."""
    found: Any = engine.store.client.redis.hget(keys.service_key(name, "cfg"), "cap")
    return int(found)


# ---------------------------------------------------------------------------------------------------------- the bell
@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


def in_child(act: Callable[[], bytes | None]) -> bytes:
    """What *act* returns in a forked process."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = act()
        os.write(theirs, b"nothing" if found is None else b"heard " + found)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(theirs)
    answer = os.read(ours, 100)
    os.close(ours)
    return answer


def test_a_ring_is_heard_once_in_each_process_and_the_latest_message_counts(bell: Bell) -> None:
    assert bell.heard() is None

    bell.ring(b"one")
    bell.ring(b"two, a longer one")
    bell.ring(b"three")

    assert in_child(bell.heard) == b"heard three"
    assert in_child(bell.heard) == b"heard three", "another child has its own ears"
    assert (bell.heard(), bell.heard()) == (b"three", None)
    assert in_child(bell.heard) == b"nothing", "what its parent has heard, a child begins with"


def test_a_child_hears_what_is_rung_after_the_fork(bell: Bell) -> None:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        while (found := bell.heard()) is None:
            pass
        os.write(theirs, found)
        os._exit(0)
    bell.ring(b"x" * 1000)
    os.waitpid(pid, 0)

    assert os.read(ours, 2000) == b"x" * 1000
    os.close(ours)
    os.close(theirs)


def test_a_message_that_is_being_written_or_overwritten_is_not_heard_yet(bell: Bell) -> None:
    pid = os.fork()
    if pid == 0:
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            bell.ring(b"b" * 50_000)
            bell.ring(b"ccc")
        bell.ring(b"the last")
        os._exit(0)
    heard = []
    while not os.waitpid(pid, os.WNOHANG)[0]:
        heard.append(bell.heard() or b"")
    heard.append(bell.heard() or heard[-1])

    assert set(heard) <= {b"", b"b" * 50_000, b"ccc", b"the last"}
    assert [message for message in heard if message][-1] == b"the last"


# --------------------------------------------------------------------------------------------------------- the reload
class Refused(Exception):
    pass


class Change:
    """A Reload whose reading is a test's."""

    def __init__(self, engine: Engine) -> None:
        self.access = Access((Token.plain(ONE),))
        self.found: tuple[Services, Access] | Exception = Refused("not set")
        self.reload = Reload(self._read, Refused, engine, self.access, logging.getLogger("eas_queue.test"))

    def _read(self, message: bytes) -> tuple[Services, Access]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def change(engine: Engine) -> Change:
    engine.services = services(demo=1)
    return Change(engine)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.INFO, "eas_queue.test"):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == "eas_queue.test"]


def check(access: Access, token: str) -> None:
    access.check(Headers({"Authorization": f"Bearer {token}"}), "10.0.0.1", Role.READ, None)


def test_services_and_tokens_are_replaced_and_the_log_says_what_changed(
    engine: Engine, change: Change, lines: Callable[[], list[str]]
) -> None:
    engine.register_listed()
    change.found = services(demo=8, fresh=2), Access((Token.plain(TWO),))

    assert change.reload()

    assert (cap(engine, "demo"), cap(engine, "fresh")) == (8, 2)
    check(change.access, TWO)
    with pytest.raises(Unauthorized):
        check(change.access, ONE)
    assert lines() == ["reloaded added=fresh removed=- changed=demo tokens=1"]


@pytest.mark.parametrize("problem", [Refused("line one\n  line two"), RuntimeError("a defect")])
def test_what_is_wrong_changes_nothing(
    engine: Engine, change: Change, lines: Callable[[], list[str]], problem: Exception
) -> None:
    before, tokens = engine.services, change.access.tokens
    change.found = problem

    assert not change.reload()
    assert not change.reload.silently()

    assert engine.services is before
    assert change.access.tokens is tokens
    (line,) = lines()
    assert line.endswith("; the settings before it stay in force")
    if isinstance(problem, Refused):
        assert line.startswith("reload_refused error=line one line two;")


def test_without_redis_the_new_limits_wait_for_it(
    engine: Engine, change: Change, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.register_listed()
    change.found = services(demo=8), change.access

    def away(*_: object, **__: object) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(engine.store, "register", away)
        assert change.reload()
    assert cap(engine, "demo") == 1
    assert lines()[1].startswith("limits_not_registered error=away")

    engine.register_listed()  # as each sweep does

    assert cap(engine, "demo") == 8


def test_the_line_in_the_log_shows_counts_and_bounded_lists() -> None:
    many = {f"s{number:03}": 1 for number in range(NAMES_MOST + 5)}

    assert changes(services(), services(unlisted=3, **many), Access((), is_open=True)) == (
        f"added={','.join(sorted(many)[:NAMES_MOST])},..5_more removed=- changed=- "
        "defaults=changed allow_unlisted=true tokens=off"
    )


# ------------------------------------------------------------------------------------------------------- the engine
def test_limits_are_told_once_until_the_services_are_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.services = services(unlisted=5, demo=1)
    engine.submit("other", BODY)
    told: list[str] = []
    register = engine.store.register

    def listening(name: str, **limits: Any) -> int | None:
        told.append(name)
        return register(name, **limits)

    monkeypatch.setattr(engine.store, "register", listening)

    engine.register_listed()
    engine.register_listed()
    assert told == ["demo"]

    engine.services = services(unlisted=5, demo=1)
    engine.register_listed()
    assert told == ["demo", "demo"], "what is not listed and has not changed is not told again"

    engine.services = services(unlisted=6, demo=1)
    engine.register_listed()
    assert told == ["demo", "demo", "demo", "other"]
    assert cap(engine, "other") == 6

    engine.services = services(demo=2)
    engine.register_listed()
    assert (cap(engine, "demo"), cap(engine, "other")) == (2, 6), "what is no longer served keeps its limits"


def test_old_limits_that_arrive_late_do_not_stay(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submit registers the service it began with, and is overtaken by a reload on the way to Redis."""
    engine.services = services(demo=1)
    register = engine.store.register

    def overtaken(name: str, **limits: Any) -> int | None:
        monkeypatch.setattr(engine.store, "register", register)
        engine.services = services(demo=8)
        engine.register_listed()
        return register(name, **limits)

    monkeypatch.setattr(engine.store, "register", overtaken)
    engine.submit("demo", BODY)

    assert cap(engine, "demo") == 8


def test_who_waits_gets_an_answer_though_the_service_is_taken_out(engine: Engine) -> None:
    engine.services = services(demo=1)
    receipt = engine.submit("demo", BODY)
    answers: list[object] = []
    waiter = threading.Thread(target=lambda: answers.append(engine.wait("demo", receipt.request_id, 10).state))
    waiter.start()
    engine.services = services(fresh=1)
    engine.store.cancel("demo", receipt.request_id)
    waiter.join(10)

    assert answers == ["cancelled"]
    assert engine.wait("demo", receipt.request_id, 0).state == "cancelled", "also when the wait begins after that"
    with pytest.raises(errors.ServiceNotFound):
        engine.look("demo", receipt.request_id)
    with pytest.raises(errors.InvalidRequest):
        engine.wait("../demo", receipt.request_id, 0)


def test_services_are_equal_when_their_settings_are() -> None:
    one, two = services(demo=1).get("demo"), services(demo=1).get("demo")

    assert isinstance(one, Service)
    assert one == two
    assert one != services(demo=2).get("demo")


# ------------------------------------------------------------------------------------------------------- the tokens
def test_a_check_never_sees_half_of_the_tokens() -> None:
    access = Access((Token.plain(ONE), Token.plain(TWO)))
    others = [Access((Token.plain(ONE),)), Access((Token.plain(ONE), Token.plain(TWO)))]
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for other in others:
                access.adopt(other)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(20_000):
            check(access, ONE)  # in all of them
    finally:
        stop.set()
        thread.join()
