"""What `make run` prints: the banner for each way of running, and who is named when something does not come up."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

import config
from eas_queue import ready
from tests.support.server import RedisServer

PLAIN = ready.Style(is_coloured=False)
ALL = {f"EAS_QUEUE_{name}": "true" for name in ("REDIS", "FLOWER", "TARGET")}
TOKEN = "tml-00112233445566778899aabbccddeeff"
REDIS_URL = "redis://:s3cret-of-redis@127.0.0.1:6390/0"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path(".run")
    folder.mkdir()
    (folder / "redis.url").write_text(REDIS_URL)
    return folder


def banner(started: dict[str, str], **values: object) -> str:
    settings = config.Settings(_env_file=None, **values)  # type: ignore[arg-type]
    return "\n".join(ready.banner(settings, started, PLAIN))


def test_a_token_of_our_own_is_shown_in_lines_ready_to_paste(run_dir: Path) -> None:
    (run_dir / "token").write_text(TOKEN)

    shown = banner(ALL)

    assert shown.count(f"-H 'Authorization: Bearer {TOKEN}'") == 3
    assert "http://127.0.0.1:5000/api/predict/sentiment -H 'Prefer: wait=10'" in shown
    assert "kept in .run/token" in shown
    assert "user admin, the token is the password" in shown
    assert "s3cret-of-redis" not in shown


@pytest.mark.parametrize(
    "values",
    [{}, {"auth": "off"}, {"api_tokens": "operators-own-token", "flower_basic_auth": "ann:a-password"}],
)
def test_it_fits_a_terminal_of_100_columns(run_dir: Path, values: dict[str, str]) -> None:
    (run_dir / "token").write_text(TOKEN)

    assert max(len(line) for line in banner(ALL, **values).splitlines()) <= 100


def test_tokens_and_passwords_of_the_operator_are_not_shown(run_dir: Path) -> None:
    (run_dir / "token").write_text(TOKEN)  # from before; it opens nothing now

    shown = banner(ALL, api_tokens="operators-own-token", flower_basic_auth="ann:operators-password")

    assert "operators-own-token" not in shown
    assert "operators-password" not in shown
    assert TOKEN not in shown
    assert '-H "Authorization: Bearer $TOKEN"' in shown
    assert "user ann, password: see FLOWER_BASIC_AUTH" in shown


def test_tokens_of_the_services_file_put_an_earlier_own_token_out_of_force(run_dir: Path) -> None:
    (run_dir / "token").write_text(TOKEN)
    Path("services.toml").write_text(f'[tokens]\n"sha256:{"0" * 64}" = {{ roles = ["read"] }}\n')

    shown = banner(ALL)

    assert TOKEN not in shown
    assert "the services file" in shown


def test_with_auth_off_the_lines_carry_no_token(run_dir: Path) -> None:
    shown = banner(ALL | {"EAS_QUEUE_FLOWER": "false"}, auth="off")

    assert "Authorization" not in shown
    assert "it needs FLOWER_BASIC_AUTH=user:password" in shown


def test_another_target_and_another_server_are_named(run_dir: Path) -> None:
    (run_dir / "token").write_text(TOKEN)

    shown = banner({}, target_api_base_url="http://gpu1:8000", redis_url="rediss://user:pw-of-redis@redis.example/3")

    assert "http://gpu1:8000" in shown
    assert "redis.example:6379" in shown
    assert "pw-of-redis" not in shown
    assert "/api/predict/demo" in shown


def test_colours_only_where_asked_for() -> None:
    assert ready.Style(is_coloured=True).good("x") == "\x1b[1;32mx\x1b[0m"
    assert PLAIN.good("x") == "x"


@pytest.mark.parametrize("values", [{}, {"auth": "off"}, {"api_tokens": "operators-own-token"}])
def test_what_it_shows_to_paste_is_valid_shell(run_dir: Path, values: dict[str, str]) -> None:
    (run_dir / "token").write_text(TOKEN)
    lines = banner({"EAS_QUEUE_TARGET": "true"}, **values).splitlines()
    first = next(i for i, line in enumerate(lines) if line.lstrip().startswith("curl"))
    pasted = "\n".join(line for line in lines[first:] if line.startswith("  "))

    subprocess.run(["/bin/sh", "-n", "-c", pasted], check=True)


# ---------------------------------------------------------------------------------------------------------- waiting
def test_it_waits_for_one_after_the_other_and_says_nothing() -> None:
    answers = [("a", "not yet"), ("a", None), ("b", None)]
    asked, said = iter(answers), list[str]()

    def problem_of(name: str) -> str | None:
        expected, answer = next(asked)
        assert name == expected
        return answer

    parts = [ready.Part(name, partial(problem_of, name), "") for name in ("a", "b")]
    ready.wait_for(parts, said.append, PLAIN)

    assert next(asked, None) is None
    assert said == []


def test_who_does_not_come_up_is_named_with_the_end_of_its_log_and_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("".join(f"line {i}\n" for i in range(100)))
    said: list[str] = []
    problems = {
        "web": lambda: None if said else "it does not answer",
        "worker": lambda: None if said else "no worker answers a ping",
        "flower": lambda: None,
    }
    waiting = [ready.Part(name, problem, f"advice for {name}", log) for name, problem in problems.items()]

    ready.wait_for(waiting, said.append, PLAIN, patience_s=0)

    assert len(said) == 1
    assert "Not ready after 0 s: web, worker" in said[0]
    assert "web: it does not answer\n  advice for web" in said[0]
    assert "| line 99" in said[0]
    assert "| line 88" in said[0]
    assert "| line 87\n" not in said[0]
    assert "flower" not in said[0]


def test_while_redis_is_away_only_redis_is_named() -> None:
    away = ready.Part("redis", lambda: "no PING", "check REDIS_URL", others_need_it=True)
    follows = ready.Part("web", lambda: "it answers 503", "")

    assert ready.problems([away, follows]) == [(away, "no PING")]


def test_a_server_that_is_away_and_one_that_wants_another_password_are_told_apart(redis_server: RedisServer) -> None:
    url = redis_server.url

    assert ready.redis_problem(url) is None
    assert "no PING" in str(ready.redis_problem("redis://127.0.0.1:1/0"))
    assert "invalid username-password" in str(ready.redis_problem(url.replace("test-password", "wrong")))
