"""Where the target is kept, and which value goes before which."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from eas_queue.stream import target
from tests.stream.conftest import TOKEN

URL = "http://127.0.0.1:5000/api/predict/demo"
NOTHING: dict[str, str | None] = dict.fromkeys(target.KEYS)


def test_what_is_stored_is_chosen_again_and_only_its_owner_can_read_it(home: Path) -> None:
    target.store({"url": URL, "token": 'a "quoted\\ token', "group": "g", "user": "u"})

    file = home / ".config" / "eas_queue" / "stream.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert target.chosen(NOTHING) == {"url": URL, "token": 'a "quoted\\ token', "group": "g", "user": "u"}
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_others_could_read_is_so_no_longer_once_stored_again(home: Path) -> None:
    target.store({"url": URL})
    target.path().chmod(0o644)

    target.store({"url": URL, "token": TOKEN})

    assert stat.S_IMODE(target.path().stat().st_mode) == 0o600


def test_without_a_file_there_are_the_defaults_of_eascmd(home: Path) -> None:
    assert target.chosen(NOTHING) == {"url": "", "token": "", "group": "default_group", "user": "default_user"}


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("http://127.0.0.1:5000/api/predict/other", True),
        ("http://127.0.0.1:5000", True),
        ("http://127.0.0.1:5001/api/predict/demo", False),
        ("https://127.0.0.1:5000/api/predict/demo", False),
        ("http://elsewhere:5000/api/predict/demo", False),
    ],
)
def test_a_stored_token_is_for_its_host_only(home: Path, url: str, is_sent: bool) -> None:
    target.store({"url": URL, "token": TOKEN})

    assert target.chosen(NOTHING | {"url": url})["token"] == (TOKEN if is_sent else "")
    assert target.chosen(NOTHING | {"url": url, "token": "given"})["token"] == "given"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "demo",
        "127.0.0.1:5000/x",
        "ftp://h/x",
        "ws://h/x",
        "http://",
        "http:///x",
        "http://h:99999/x",
        "http://h/x?token=secret",
        "http://h/x#y",
        "http://h/a b",
        "http://h/é",
        "http://[::1/x",
        "http://ann:secret@h/x",
    ],
)
def test_what_is_no_url_of_a_queue_is_refused(url: str) -> None:
    with pytest.raises(target.Wrong) as refused:
        target.checked("url", url)

    assert "secret" not in str(refused.value)


def test_a_slash_at_the_end_of_the_url_means_nothing() -> None:
    assert target.checked("url", f" {URL}/ ") == URL


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Evil: 1", f" {TOKEN}", f"{TOKEN}\x00", f"{TOKEN}é"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(target.Wrong) as refused:
        target.checked("token", token)

    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("text", [f"token = {TOKEN}", f'token = ["{TOKEN}"]', "url = 3", "\xff"])
def test_a_file_that_is_wrong_names_itself_and_the_mend_but_not_the_token(home: Path, text: str) -> None:
    target.store({"url": URL})
    target.path().write_text(text, "latin-1")

    with pytest.raises(target.Wrong) as refused:
        target.chosen(NOTHING)

    assert TOKEN not in str(refused.value)


def test_the_sink_is_added_once() -> None:
    assert target.queue_url(URL, sink=True) == f"{URL}/sink"
    assert target.queue_url(f"{URL}/sink", sink=True) == f"{URL}/sink"
    assert target.queue_url(URL, sink=False) == URL
