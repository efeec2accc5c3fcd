"""Who may do what: pure rules; tests/dialects hold them against real HTTP."""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from eas_queue import auth
from eas_queue.auth import Access, Forbidden, Role, Token, Unauthorized

ONE, TWO = "tml-00112233445566778899aabbccddeeff", "tml-ffeeddccbbaa99887766554433221100"
PEER = "10.0.0.1"


def name_of(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def check(access: Access, token: str, role: Role = Role.READ, service: str | None = "demo") -> None:
    access.check(Headers({"Authorization": f"Bearer {token}"}), PEER, role, service)


# -------------------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ONE}"},
        {"Authorization": f"bearer {ONE}"},
        {"Authorization": f"BEARER    {ONE}  "},
        {"Authorization": f"Key {ONE}"},
        {"Authorization": ONE},
        {"Authorization": f"  {ONE} "},
        {"X-API-Key": ONE},
        {"Authorization": "", "X-API-Key": ONE},
    ],
)
def test_every_form_that_official_clients_use_is_understood(headers: dict[str, str]) -> None:
    Access((Token.plain(TWO), Token.plain(ONE))).check(Headers(headers), PEER, Role.SUBMIT, "demo")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Key "},
        {"Authorization": f"Basic {ONE}"},
        {"Authorization": f"Bearer {ONE[:-1]}"},
        {"Authorization": f"Bearer {ONE}0"},
        {"Authorization": f"Bearer {ONE.upper()}"},
        {"Authorization": f"Bearer {ONE} {ONE}"},
        {"Authorization": f"Bearer {ONE},{TWO}"},
        {"Authorization": f"Bearer Bearer {ONE}"},
        {"Authorization": f"Bearer {name_of(ONE)}"},
        {"Authorization": "Bearer \udcff\xff"},
        {"Authorization": "Bearer nobody's", "X-API-Key": ONE},
        {"X-API-Key": "nobody's"},
        {"X-API-Key": f"Bearer {ONE}"},
        {"Cookie": ONE},
        {"Proxy-Authorization": f"Bearer {ONE}"},
    ],
)
def test_anything_else_is_unauthorized(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        Access((Token.plain(ONE),)).check(Headers(headers), PEER, Role.READ, "demo")

    assert ONE not in str(caught.value)


def test_the_missing_token_is_told_from_the_wrong_one_and_the_mend_is_named() -> None:
    access = Access((Token.plain(ONE),))

    with pytest.raises(Unauthorized, match=r"no token was sent.*Authorization: Bearer"):
        access.check(Headers(), PEER, Role.READ, "demo")
    with pytest.raises(Unauthorized, match="not one of those"):
        check(access, TWO)


def test_without_tokens_nobody_gets_in() -> None:
    with pytest.raises(Unauthorized):
        check(Access(()), ONE)
    with pytest.raises(Unauthorized):
        check(Access(()), "")


def test_a_token_is_kept_as_its_digest_only() -> None:
    token = Token.plain(ONE)

    assert token.digest == hashlib.sha256(ONE.encode()).digest()
    assert ONE not in repr(token) + repr(Access((token,)))


def test_tokens_are_compared_in_constant_time_and_always_all_of_them() -> None:
    tree = ast.parse(inspect.getsource(auth))
    [find] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_find"]
    [loop] = [node for node in ast.walk(find) if isinstance(node, ast.For)]
    calls = [ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    leaves_early = [node for node in ast.walk(loop) if isinstance(node, ast.Break | ast.Return | ast.Raise)]
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]

    assert calls == ["hmac.compare_digest"]
    assert leaves_early == []
    assert [text for text in compared if "digest" in text] == []


# ---------------------------------------------------------------------------------------------- roles and services


def test_a_plain_token_may_do_everything_everywhere() -> None:
    access = Access((Token.plain(ONE),))

    for role, service in itertools.product(Role, ["demo", "other", None]):
        check(access, ONE, role, service)


@pytest.mark.parametrize("own", list(Role))
def test_a_token_may_do_what_its_roles_say(own: Role) -> None:
    access = Access((Token.from_file(name_of(ONE), {"roles": [own.value]}),))

    check(access, ONE, own)
    for other in set(Role) - {own}:
        with pytest.raises(Forbidden, match=f"may not {other}: its roles are {own}"):
            check(access, ONE, other)


def test_a_token_reaches_its_services_only() -> None:
    access = Access((Token.from_file(name_of(ONE), {"services": ["demo", "more"]}),))

    check(access, ONE, Role.SUBMIT, "demo")
    check(access, ONE, Role.ADMIN, "more")
    for service in ("other", "Demo", "demo2", ""):
        with pytest.raises(Forbidden, match="may not use service"):
            check(access, ONE, Role.READ, service)


def test_a_token_without_roles_or_services_may_nothing() -> None:
    for name in ("roles", "services"):
        with pytest.raises(Forbidden):
            check(Access((Token.from_file(name_of(ONE), {name: []}),)), ONE)


def test_the_services_file_narrows_a_token_that_is_also_among_the_plain_ones() -> None:
    access = Access((Token.plain(ONE), Token.from_file(name_of(ONE), {"roles": ["read"]})))

    check(access, ONE, Role.READ)
    with pytest.raises(Forbidden):
        check(access, ONE, Role.SUBMIT)


@pytest.mark.parametrize(
    ("name", "rules", "mend"),
    [
        (ONE, {}, "sha256: and the 64 hex digits"),
        ("sha256:abc", {}, "sha256: and the 64 hex digits"),
        (name_of(ONE).upper(), {}, "sha256: and the 64 hex digits"),
        (name_of(ONE) + "\n", {}, "sha256: and the 64 hex digits"),
        (name_of(ONE), "all", "expected"),
        (name_of(ONE), {"role": ["read"]}, "expected"),
        (name_of(ONE), {"roles": "read"}, "roles must be some of submit, read, consume, admin"),
        (name_of(ONE), {"roles": ["write"]}, "roles must be some of submit, read, consume, admin"),
        (name_of(ONE), {"roles": [1]}, "roles must be some of submit, read, consume, admin"),
        (name_of(ONE), {"services": "demo"}, "services must be a list"),
        (name_of(ONE), {"services": [1]}, "services must be a list"),
    ],
)
def test_a_wrong_line_in_the_services_file_is_told_without_the_token(name: str, rules: Any, mend: str) -> None:
    with pytest.raises(ValueError, match=mend) as caught:
        Token.from_file(name, rules)

    assert name.removeprefix("sha256:")[:12] not in str(caught.value).removeprefix(name[:15])


# ---------------------------------------------------------------------------------------------------------- AUTH=off


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1"])
def test_without_tokens_this_hosts_clients_are_served(peer: str) -> None:
    for role in Role:
        for host in ("localhost:5000", "127.0.0.1", "[::1]:5000"):
            Access((), is_open=True).check(Headers({"Host": host}), peer, role, "demo")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"X-Real-Ip": "10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Origin": "https://example.com"},
        {"Host": "rebound.example.com"},
        {"Host": ""},
    ],
)
def test_without_tokens_proxies_and_web_pages_are_not_served(headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden, match="set API_TOKENS"):
        Access((), is_open=True).check(Headers({"Host": "localhost:5000"} | headers), "127.0.0.1", Role.READ, "demo")


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "192.168.1.2", "8.8.8.8", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1", ""]
)
def test_without_tokens_nobody_elses_clients_are_served(peer: str) -> None:
    with pytest.raises(Forbidden, match="set API_TOKENS"):
        Access((), is_open=True).check(
            Headers({"Authorization": f"Bearer {ONE}", "Host": "localhost"}), peer, Role.READ, "demo"
        )
