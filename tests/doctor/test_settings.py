"""What is wrong with the settings is named, with the mend, and no secret is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import config
from eas_queue.doctor import settings
from eas_queue.doctor.result import Result, Status

TOKEN = "tml-00112233445566778899aabbccddeeff"
SOUND = {
    "REDIS_URL": "redis://:s3cret-of-redis@redis.example:6380/2",
    "API_TOKENS": f"{TOKEN},another-token-of-ours",
    "FLOWER_BASIC_AUTH": "ann:s3cret-of-flower",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's folder with sound settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    config.settings.cache_clear()
    yield tmp_path
    config.settings.cache_clear()


def check() -> tuple[list[Result], settings.Found]:
    found = settings.Found()
    results = list(settings.check(found))
    shown = repr(results)
    assert "s3cret" not in shown
    assert TOKEN not in shown
    assert "another-token-of-ours" not in shown
    return results, found


def complaints() -> list[Result]:
    return [result for result in check()[0] if result.status is not Status.OK]


def test_sound_settings_raise_no_complaint_and_are_handed_on() -> None:
    results, found = check()

    assert [(result.name, result.status.value) for result in results] == [
        ("settings", "OK"),
        ("services", "OK"),
        ("tokens", "OK"),
        ("flower", "OK"),
        ("webhooks", "OK"),
    ]
    assert results[2].fact == "2 tokens"
    assert found.redis_url == SOUND["REDIS_URL"]
    assert found.services is not None


def test_every_wrong_setting_is_named_and_the_others_are_still_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("LEASE_S", "0")
    monkeypatch.setenv("API_TOKENS", "s3cret")

    results, found = check()

    assert [result.fact.partition(":")[0] for result in results if result.status is Status.FAIL] == [
        "PORT",
        "API_TOKENS",
        "LEASE_S",
    ]
    assert all(result.mend and "correct" in result.mend for result in results if result.status is Status.FAIL)
    assert found.redis_url == SOUND["REDIS_URL"]


def test_behind_a_wrong_redis_url_no_other_server_is_examined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".run").mkdir()
    (folder / ".run/redis.url").write_text("redis://127.0.0.1:1/0")
    monkeypatch.setenv("REDIS_URL", "http://:s3cret@nonsense")

    results, found = check()

    assert results[0].fact.startswith("REDIS_URL: must be like redis://")
    assert found.redis_url is None


def test_without_any_setting_it_says_how_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SOUND:
        monkeypatch.delenv(name)

    found = {result.name: result for result in complaints()}

    assert {name: result.status.value for name, result in found.items()} == {
        "tokens": "FAIL",
        "flower": "WARN",
        "redis": "FAIL",
    }
    assert found["tokens"].fact == "API_TOKENS is not set, so nobody could use the API"
    assert "secrets.token_hex" in str(found["tokens"].mend)
    assert "make run" in str(found["redis"].mend)
    assert "FLOWER_BASIC_AUTH" in str(found["flower"].mend)


def test_an_open_service_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH", "off")

    results, _ = check()

    assert "AUTH=off" in results[2].fact
    assert results[2].status is Status.OK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[services.a\n", "can't be read"),
        ("[defaults]\nmax_concurency = 3\n", "[defaults] max_concurency: there is no such setting"),
        ("[defaults]\n", "lists no service"),
        ('[services.a]\n[tokens]\n"tml-s3cret" = {}\n', "each name must be sha256:"),
    ],
)
def test_a_bad_services_file_is_one_complaint_with_its_place(folder: Path, text: str, expected: str) -> None:
    (folder / "services.toml").write_text(text)

    [complaint] = complaints()

    assert complaint.status is Status.FAIL
    assert expected in complaint.fact
    assert complaint.mend


def test_a_services_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICES_FILE", "elsewhere.toml")

    [complaint] = complaints()

    assert complaint.fact == "SERVICES_FILE: there is no file elsewhere.toml"


def test_a_misspelt_name_in_the_env_file_is_shown_with_the_one_that_is_meant(folder: Path) -> None:
    (folder / ".env").write_text(
        "# ours\nPORT=5000\n\nAPI_TOKEN=s3cret\nexport redis_uri=redis://:s3cret@h\nREDIS_HOST=h\nlog_level=INFO\n"
    )

    found = complaints()

    assert [result.status for result in found] == [Status.WARN, Status.WARN]
    assert found[0].fact == "line 4: there is no setting API_TOKEN; it has no effect"
    assert str(found[0].mend).startswith("if API_TOKENS is meant")
    assert found[1].fact == "line 5: there is no setting redis_uri; it has no effect"
    assert str(found[1].mend).startswith("if REDIS_URL is meant")


def test_a_line_of_the_env_file_that_is_no_setting_is_named_but_not_shown(folder: Path) -> None:
    (folder / ".env").write_text(f"PORT=5000\n{TOKEN}\nLOG_LEVEL='INFO\n")

    assert [result.fact for result in complaints()] == [
        "line 2 is not NAME=value and is ignored",
        "line 3 is not NAME=value and is ignored",
    ]


def test_an_env_file_that_is_no_text_is_one_complaint(folder: Path) -> None:
    (folder / ".env").write_bytes(b"PORT=5000\nSECRET_KEY=\xff\xfe\n")

    [complaint] = complaints()

    assert complaint.fact == ".env can't be read as text in UTF-8"
