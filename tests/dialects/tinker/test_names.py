"""Names of models, the services behind them, and ids of sessions, for all that can be written."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_queue.dialects.tinker import names
from eas_queue.engine import errors
from eas_queue.engine.service import NAME, Services, ServiceSettings

PART = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=names.NAME_MOST)
ALIASES = {"demo": ("a/b", "one"), "deep": ("a/b/c",), "colons": ("a:1/b:2",)}


SERVICES = Services(
    {name: ServiceSettings(target_url="http://t/", aliases=aliases) for name, aliases in ALIASES.items()},
    ServiceSettings(target_url="http://t/"),
    allow_unlisted=True,
    result_ttl_s=60,
)


@given(PRINTABLE, st.one_of(st.just(""), st.text(max_size=40)))
@settings(max_examples=100, deadline=None)
def test_a_session_stands_for_its_name(name: str, seed: str) -> None:
    found = names.session_id(name, seed)

    assert names.of_session(found) == name
    assert re.fullmatch(r"[0-9a-f]{32}\.[A-Za-z0-9_-]+", found), "it can stand in a path"
    assert (names.session_id(name, seed) == found) is bool(seed)


@given(PRINTABLE, PRINTABLE, st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_two_sessions_are_the_same_only_for_the_same_model_and_call(one: str, other: str, seed: str, more: str) -> None:
    is_same = (one, seed) == (other, more)

    assert (names.session_id(one, seed) == names.session_id(other, more)) is is_same


@given(st.one_of(st.text(max_size=200), st.from_regex(r"[0-9a-f]{32}\.[A-Za-z0-9_-]{0,300}", fullmatch=True)))
@settings(max_examples=150, deadline=None)
def test_any_other_text_is_no_session_or_one_with_a_name_that_can_be_sent(text: str) -> None:
    found = names.of_session(text)

    assert found is None or (0 < len(found) <= names.NAME_MOST and found.isascii() and found.isprintable())


@pytest.mark.parametrize("name", ["x" * 513, "\u00e9", "\u20ac", "a\nb", "a\x00", "\x7f", ""])
def test_nor_is_one_with_a_name_that_nobody_can_have(name: str) -> None:
    assert names.of_session(names.session_id(name, "")) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text + "\n", lambda text: " " + text, lambda text: text + "="]
)
def test_an_id_that_was_changed_is_none(change: Any) -> None:
    assert names.of_session(change(names.session_id("demo/a", ""))) is None


def test_bytes_that_are_no_text_are_no_name() -> None:
    coded = base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode()

    assert names.of_session(f"{'0' * 32}.{coded}") is None


@given(st.one_of(PRINTABLE, st.text(max_size=60), st.lists(PART, min_size=1, max_size=6).map("/".join)), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_name_leads_to_a_name_of_a_service_or_is_unknown(text: str, is_path: bool) -> None:
    name = names.PATH_SCHEME + text if is_path else text
    found, refused = "", ""
    try:
        found = names.service_of(SERVICES, name)
    except names.UnknownModel as exc:
        refused = f"{exc.code} {exc.description}"
    assert NAME.fullmatch(found) or (refused.startswith("404 ") and 10 < len(refused) < 600)


@given(st.lists(PART, min_size=1, max_size=6), st.sampled_from([alias for each in ALIASES.values() for alias in each]))
@settings(max_examples=100, deadline=None)
def test_of_a_path_the_longest_beginning_that_is_an_alias_counts(rest: list[str], alias: str) -> None:
    parts = [*alias.split("/"), *rest]
    known = {alias: service for service, aliases in ALIASES.items() for alias in aliases}
    beginnings = ["/".join(parts[:count]) for count in (3, 2, 1)]

    expected = next(known[beginning] for beginning in beginnings if beginning in known)
    assert names.service_of(SERVICES, names.PATH_SCHEME + "/".join(parts)) == expected


@given(st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_is_no_alias_is_a_service_by_its_own_name(parts: list[str]) -> None:
    name = "/".join(parts)
    if name not in ("a/b", "a/b/c", "one") and len(parts) <= 3:
        assert names.service_of(SERVICES, name) == ".".join(parts)
    if "/".join(parts[:2]) != "a/b" and parts[0] != "one":
        assert names.service_of(SERVICES, names.PATH_SCHEME + name) == parts[0]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.just("tinker://a"),
    st.just("x" * 513),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.fixed_dictionaries({}, optional={"base_model": VALUES, "model_path": VALUES}))
@settings(max_examples=150, deadline=None)
def test_whatever_a_body_names_is_a_text_that_can_be_sent_or_is_refused(values: dict[str, Any]) -> None:
    path, model = values.get("model_path"), values.get("base_model")
    found, refused = None, ""
    try:
        found = names.asked(values)
    except errors.InvalidRequest as exc:
        refused = str(exc)
    if refused:
        assert 10 < len(refused) < 600
    else:
        assert found == (path or model or None)
        assert found is None or (isinstance(found, str) and found.isascii() and found.isprintable())
        assert not path or names.is_path(str(found))
