"""Settings: a wrong value ends the start with a message that names the variable and the mend and shows no secret."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.datastructures import Headers

import config
from eas_queue.auth import Forbidden, Role, Unauthorized
from eas_queue.engine import errors
from tests.support.installation import ROOT, TOKEN, Installation
from tests.support.server import RedisServer, free_port

SECRET = "hunter2-hunter2-hunter2"
Load = Callable[..., config.Settings]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to start in: no .env, no services.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The settings of an environment with these variables."""

    def loaded(**environment: str) -> config.Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return config.settings.__wrapped__()

    return loaded


def services_file(folder: Path, text: str) -> Path:
    path = folder / "services.toml"
    path.write_text(text)
    return path


# -------------------------------------------------------------------------------------------------------- wrong values

WEBHOOK_SECRET = "whsec_" + "c2VjcmV0" * 4
WRONG = [
    ("REDIS_URL", f"http://:{SECRET}@h:6379/0", "redis://:PASSWORD@HOST:6379/0"),
    ("REDIS_URL", SECRET, "redis://:PASSWORD@HOST:6379/0"),
    ("REDIS_URL", f"redis://:{SECRET}/x@h:6379/0", "in the password write / as %2F"),
    ("REDIS_URL", f"redis://:{SECRET}#x@h:6379/0", "# as %23"),
    ("REDIS_URL", f"redis://:[{SECRET}]@h:6379/0", "redis://:PASSWORD@HOST:6379/0"),
    ("REDIS_URL", "redis://h:port/0", "redis://:PASSWORD@HOST:6379/0"),
    ("REDIS_URL", "redis://h:70000/0", "redis://:PASSWORD@HOST:6379/0"),
    ("REDIS_URL", "redis://h/first", "redis://:PASSWORD@HOST:6379/0"),
    ("PORT", "http", "valid integer"),
    ("PORT", "0", "greater than or equal to 1"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("FLOWER_PORT", "-1", "greater than or equal to 1"),
    ("EXAMPLE_TARGET_PORT", "5001.5", "valid integer"),
    ("TARGET_API_BASE_URL", "localhost:5001", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "ftp://localhost", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://:5001", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://h:port", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://h/{service}", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://h/?key=1", "a URL like http://localhost:5001"),
    ("TARGET_API_BASE_URL", "http://h /x", "a URL like http://localhost:5001"),
    ("PUBLIC_BASE_URL", "queue.example.com", "a URL like http://localhost:5001"),
    ("FAL_QUEUE_HOST", "http://queue.example.com", "a host name like queue.example.com"),
    ("FAL_QUEUE_HOST", "queue.example.com/fal", "a host name like queue.example.com"),
    ("FAL_SYNC_HOST", "-run", "a host name like queue.example.com"),
    ("FAL_SYNC_HOST", "run:port", "a host name like queue.example.com"),
    ("FAL_SYNC_HOST", "Queue.example.com", "another one than FAL_QUEUE_HOST"),
    ("API_TOKENS", SECRET[:15], "at least 16 printable characters"),
    ("API_TOKENS", f"{TOKEN},{SECRET[:15]}", "at least 16 printable characters"),
    ("API_TOKENS", f"{SECRET} {SECRET}", "without spaces"),
    ("API_TOKENS", f"{SECRET}é", "printable"),
    ("AUTH", "no", "'on' or 'off'"),
    ("FLOWER_BASIC_AUTH", SECRET, "user:password"),
    ("FLOWER_BASIC_AUTH", f":{SECRET}", "user:password"),
    ("FLOWER_BASIC_AUTH", "user:", "user:password"),
    ("RESULT_TTL_S", "0", "greater than or equal to 1"),
    ("RESULT_TTL_S", "1d", "valid integer"),
    ("MAX_PAYLOAD_BYTES", "16M", "valid integer"),
    ("MAX_PAYLOAD_BYTES", "536870913", "less than or equal to 536870912"),
    ("MAX_RESULT_BYTES", "0", "greater than or equal to 1"),
    ("MAX_WAIT_S", "-1", "greater than or equal to 0"),
    ("MAX_WAIT_S", "nan", "than or equal to"),
    ("LEASE_S", "0", "greater than or equal to 1"),
    ("LEASE_S", "inf", "less than or equal to 3600"),
    ("SWEEP_S", "0", "greater than or equal to 0.05"),
    ("STOP_GRACE_S", "soon", "valid number"),
    ("WEB_CONCURRENCY", "0", "greater than or equal to 1"),
    ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
    ("WEBHOOK_SECRET", SECRET, "whsec_ and the base64 of 24 to 64 random bytes"),
    ("WEBHOOK_SECRET", "whsec_c2hvcnQ=", "whsec_ and the base64 of 24 to 64 random bytes"),
    ("WEBHOOK_SECRET", f"{WEBHOOK_SECRET},whsec_", "whsec_ and the base64 of 24 to 64 random bytes"),
    ("WEBHOOK_ALLOW_PRIVATE", "maybe", "valid boolean"),
    ("WEBHOOK_TIMEOUT_S", "0", "greater than or equal to 0.1"),
    ("WEBHOOK_RETRY_DELAYS_S", "5,-1", "seconds like 5,60,600"),
    ("WEBHOOK_RETRY_DELAYS_S", "5,,1", "seconds like 5,60,600"),
    ("WEBHOOK_CONCURRENCY", "0", "greater than or equal to 1"),
    ("LOG_LEVEL", "loud", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
]


@pytest.mark.parametrize(("name", "value", "mend"), WRONG)
def test_a_wrong_value_is_refused_with_the_variable_and_the_mend(load: Load, name: str, value: str, mend: str) -> None:
    others = {"FAL_QUEUE_HOST": "queue.example.com"} if name == "FAL_SYNC_HOST" else {}
    with pytest.raises(config.ConfigError) as caught:
        load(**others, **{name: value})

    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert mend in message
    assert SECRET[:15] not in message
    assert (config.Settings.model_fields[name.lower()].description or "?") in message


def test_every_wrong_value_is_told_at_once(load: Load) -> None:
    with pytest.raises(config.ConfigError) as caught:
        load(PORT="0", AUTH="no", LEASE_S="x")

    assert sorted(line.partition(":")[0] for line in str(caught.value).splitlines()) == ["AUTH", "LEASE_S", "PORT"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://localhost"),
        ("REDIS_URL", "redis://localhost/"),
        ("REDIS_URL", "redis://user:pass%2Fword@10.0.0.1:6380/3"),
        ("REDIS_URL", "rediss://[::1]:6379/0?ssl_cert_reqs=none"),
        ("TARGET_API_BASE_URL", "https://[::1]:8443/base"),
        ("FAL_QUEUE_HOST", "q"),
        ("FAL_SYNC_HOST", "run.example.com:8443"),
        ("MAX_WAIT_S", "0"),
        ("SWEEP_S", "0.05"),
        ("API_TOKENS", f" {TOKEN} , {SECRET},"),
    ],
)
def test_a_value_at_the_edge_is_taken(load: Load, name: str, value: str) -> None:
    load(**{name: value})


# --------------------------------------------------------------------------------------------------- where from


def test_the_environment_goes_before_dot_env_and_dot_env_before_the_defaults(load: Load, folder: Path) -> None:
    (folder / ".env").write_text("PORT=6001\nFLOWER_PORT=6002\nUNKNOWN=1\n")

    settings = load(PORT="7001")

    assert (settings.port, settings.flower_port, settings.example_target_port) == (7001, 6002, 5001)


def test_an_empty_variable_counts_as_unset(load: Load) -> None:
    settings = load(REDIS_URL="", PORT="", API_TOKENS="", SERVICES_FILE="", RUN_DIR="")

    assert (settings.redis_url, settings.port, settings.api_tokens) == (None, 5000, ())
    assert settings.run_dir == Path(".run")


def test_without_a_redis_the_message_says_how_to_get_one(load: Load, folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"REDIS_URL is not set.*`make run`.*REDIS_URL=redis://"):
        _ = load().redis

    (folder / ".run").mkdir()
    (folder / ".run" / "redis.url").write_text("redis://:p@127.0.0.1:7000/0\n")

    assert load().redis == "redis://:p@127.0.0.1:7000/0"
    assert load(REDIS_URL="redis://h/0").redis == "redis://h/0"


def test_flower_needs_a_password_of_its_own_or_the_token_that_make_run_made(load: Load, folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"FLOWER_BASIC_AUTH=user:password.*`make run`"):
        _ = load().flower_auth

    (folder / ".run").mkdir()
    (folder / ".run" / "token").write_text(f"{TOKEN}\n")

    assert load().flower_auth == f"admin:{TOKEN}"
    assert load(FLOWER_BASIC_AUTH="me:pass:word").flower_auth == "me:pass:word"


def test_a_base_url_loses_its_slash_and_the_default_target_keeps_service_and_path(load: Load) -> None:
    settings = load(TARGET_API_BASE_URL="http://gpu:8000/base/")

    service = settings.services().get("any")

    assert service.url("v1/x", "k=1") == "http://gpu:8000/base/api/predict/any/v1/x?k=1"
    assert service.url("", "") == "http://gpu:8000/base/api/predict/any"
    assert load(TARGET_API_BASE_URL="").services().get("any").url("", "") == "http://127.0.0.1:5001/api/predict/any"


def test_no_secret_is_shown_by_the_settings_themselves(load: Load) -> None:
    settings = load(
        REDIS_URL=f"redis://:{SECRET}@h/0", API_TOKENS=SECRET, FLOWER_BASIC_AUTH=f"u:{SECRET}", SECRET_KEY=SECRET
    )

    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


# -------------------------------------------------------------------------------------------------- services file


@pytest.mark.parametrize(
    ("text", "where", "mend"),
    [
        ("[services", "SERVICES_FILE", "can't be read"),
        ("a = 'unknown'", "services file", "defaults, services, tokens"),
        ("[service.demo]", "services file", "unknown table 'service'"),
        ("services = 1", "services file", "as in [services]"),
        ("[services]\ndemo = 1", "services file", "as in [services.name]"),
        ("[services.'a b']", "services file", "'a b' is not a service name"),
        ("[services.'']", "services file", "'' is not a service name"),
        ("[services.demo]\ntimeout_s = 0", "[services.demo] timeout_s", "greater than 0"),
        ("[services.demo]\ntimeout = 1", "[services.demo] timeout", "there is no such setting"),
        ("[services.demo]\nretry_on = [200]", "[services.demo] retry_on.0", "greater than or equal to 300"),
        ("[services.demo]\ntarget_url = 'gpu:80'", "[services.demo] target_url", "must start with http://"),
        ("[services.demo]\nsubmit_body = 'id'", "[services.demo] submit_body", "'request_id' or 'index'"),
        ("[defaults]\ntimeout_s = 0\n[services.demo]", "[defaults] timeout_s", "greater than 0"),
        ("[defaults]\nallow_unlisted = 'yes'", "[defaults] allow_unlisted", "true or false"),
        ("[services.demo]\nallow_unlisted = true", "[services.demo] allow_unlisted", "there is no such setting"),
        ("[services.demo]\ntimeout_s = 0\nweight = 0", "[services.demo] weight", "greater than 0"),
        ("[services.demo]\naliases = ['a//b']", "[services.demo] aliases", "names joined by /, like owner/name"),
        ("[services.demo]\naliases = 'a/b'", "[services.demo] aliases", "valid"),
        ("[defaults]\naliases = ['a/b']\n[services.demo]", "[defaults] aliases", "give each its own"),
        (
            "[services]\na = {aliases = ['x/y']}\nb = {aliases = ['x/y']}",
            "services file",
            "that of two services, a and b",
        ),
    ],
)
def test_a_mistake_in_the_services_file_is_told_with_its_place_and_the_mend(
    load: Load, folder: Path, text: str, where: str, mend: str
) -> None:
    services_file(folder, text)

    with pytest.raises(config.ConfigError) as caught:
        load().services()

    assert where in str(caught.value)
    assert mend in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 1\n\0"])
def test_a_services_file_that_is_no_text_is_told(load: Load, folder: Path, content: bytes) -> None:
    (folder / "services.toml").write_bytes(content)

    with pytest.raises(config.ConfigError, match=r"services\.toml can't be read"):
        load().services()


def test_a_services_file_that_is_named_must_be_there_and_be_a_file(load: Load, folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"SERVICES_FILE: there is no file .*absent\.toml"):
        load(SERVICES_FILE=str(folder / "absent.toml")).services()
    with pytest.raises(config.ConfigError, match=r"SERVICES_FILE: .* can't be read"):
        load(SERVICES_FILE=str(folder)).services()


def test_unlisted_services_are_served_without_a_file_and_not_with_one_unless_it_says_so(
    load: Load, folder: Path
) -> None:
    assert load().services().get("any").name == "any"

    services_file(folder, "[services.demo]")
    with pytest.raises(errors.ServiceNotFound):
        load().services().get("any")

    services_file(folder, "[defaults]\nallow_unlisted = true\n[services.demo]")
    assert load().services().get("any").name == "any"


def test_a_service_takes_what_it_does_not_say_from_the_defaults(load: Load, folder: Path) -> None:
    services_file(folder, "[defaults]\ntimeout_s = 7\nmax_attempts = 2\n[services.demo]\ntimeout_s = 3")

    demo = load(TARGET_API_BASE_URL="http://t").services().get("demo")

    assert (demo.timeout_s, demo.max_attempts, demo.max_concurrency) == (3, 2, 64)
    assert demo.url("", "") == "http://t/api/predict/demo"


def test_a_service_is_found_by_its_aliases(load: Load, folder: Path) -> None:
    services_file(folder, "[services.demo]\naliases = ['acme/demo', 'Qwen/Qwen3-0.6B']\n[services.other]")

    services = load().services()

    assert [services.name_of(name) for name in ("acme/demo", "Qwen/Qwen3-0.6B", "other")] == ["demo", "demo", "other"]


# ---------------------------------------------------------------------------------------------------------- reload


def test_before_the_first_reload_the_file_counts_as_it_is_after_it_as_it_was_accepted(load: Load, folder: Path) -> None:
    settings = load(API_TOKENS=TOKEN)
    services_file(folder, "[services.one]")
    assert [service.name for service in settings.services()] == ["one"]

    settings.reload()
    services_file(folder, "[services.two]")
    assert [service.name for service in settings.services()] == ["one"], "nobody has said that the edit is done"
    assert [service.name for service in settings.reload()[0]] == ["two"]
    assert [service.name for service in settings.services()] == ["two"]


@pytest.mark.parametrize("text", ["[services", "[services.one]\nmax_concurrency = 0", "[tokens]\nx = 1", "[" * 5000])
def test_a_file_that_is_refused_at_a_reload_changes_nothing(load: Load, folder: Path, text: str) -> None:
    settings = load(API_TOKENS=TOKEN)
    services_file(folder, "[services.one]")
    settings.reload()
    services_file(folder, text)

    for for_web in (True, False):
        with pytest.raises(config.ConfigError):
            settings.reload(for_web=for_web)

    assert [service.name for service in settings.services()] == ["one"]
    assert len(settings.access().tokens) == 1


def test_a_snapshot_is_taken_over_whatever_the_file_says_meanwhile(load: Load, folder: Path) -> None:
    first, second = load(API_TOKENS=TOKEN), load(API_TOKENS=TOKEN)
    first.reload()
    nothing = first.snapshot
    services_file(folder, "[services.one]")
    first.reload()
    services_file(folder, "[services")

    assert [service.name for service in second.reload(first.snapshot)[0]] == ["one"]
    assert second.reload(nothing)[0].allow_unlisted, "there was no file"


def test_at_a_reload_the_last_token_can_not_go_and_a_worker_without_any_may_stay_so(load: Load, folder: Path) -> None:
    token = f'[tokens]\n"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}" = {{}}'
    settings = load()
    assert settings.reload(for_web=False)[1].tokens == ()
    with pytest.raises(config.ConfigError, match="nobody could use the API"):
        settings.reload()

    services_file(folder, token)
    assert len(settings.reload(for_web=False)[1].tokens) == 1
    services_file(folder, "")
    with pytest.raises(config.ConfigError, match="nobody could use the API"):
        settings.reload(for_web=False)


# ---------------------------------------------------------------------------------------------------------- access


def bearer(token: str) -> Headers:
    return Headers({"Authorization": f"Bearer {token}"})


def test_without_any_token_nothing_starts_and_the_message_makes_one(load: Load) -> None:
    with pytest.raises(config.ConfigError) as caught:
        load().access()

    [line] = [line.strip() for line in str(caught.value).splitlines() if "export" in line]
    made = subprocess.run(
        ["sh", "-c", f'{line}; printf %s "$API_TOKENS"'], capture_output=True, text=True, check=True
    ).stdout
    assert len(made) == len(TOKEN)
    load(API_TOKENS=made).access().check(bearer(made), "10.0.0.1", Role.SUBMIT, "demo")
    assert "`make run`" in str(caught.value)


def test_the_token_that_make_run_made_counts_where_none_is_set(load: Load, folder: Path) -> None:
    (folder / ".run").mkdir()
    (folder / ".run" / "token").write_text(f"{TOKEN}\n")

    load().access().check(bearer(TOKEN), "10.0.0.1", Role.SUBMIT, "demo")
    with pytest.raises(Unauthorized):
        load(API_TOKENS=SECRET).access().check(bearer(TOKEN), "10.0.0.1", Role.SUBMIT, "demo")


def test_tokens_may_stand_in_the_services_file_instead(load: Load, folder: Path) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    services_file(folder, f'[services.demo]\n[tokens]\n"sha256:{digest}" = {{ roles = ["read"] }}')

    access = load().access()

    access.check(bearer(TOKEN), "10.0.0.1", Role.READ, "demo")
    with pytest.raises(Forbidden):
        access.check(bearer(TOKEN), "10.0.0.1", Role.SUBMIT, "demo")


def test_a_token_that_stands_in_the_services_file_as_it_is_is_refused_and_not_shown(load: Load, folder: Path) -> None:
    services_file(folder, f'[tokens]\n"{SECRET}" = {{}}')

    with pytest.raises(config.ConfigError, match=r"\[tokens\] .* sha256") as caught:
        load().access()

    assert SECRET[:8] not in str(caught.value)


def test_auth_off_asks_for_no_token_and_serves_this_host_only(load: Load) -> None:
    access = load(AUTH="off").access()

    access.check(Headers({"Host": "localhost:5000"}), "127.0.0.1", Role.ADMIN, "demo")
    with pytest.raises(Forbidden):
        access.check(Headers({"Host": "localhost:5000"}), "10.0.0.1", Role.READ, "demo")


# ------------------------------------------------------------------------------------------------- the real commands


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *command* in *folder*, where neither a developer's .env nor services.toml is found."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command.format(root=ROOT, port=free_port()).split(),
        cwd=folder,
        env=kept | {"PATH": path, "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


PYTHON = "python {root}/config.py"
GUNICORN = "gunicorn -c {root}/gunicorn.conf.py -w 1 -b 127.0.0.1:{port} app:app"
FLASK = "flask --app app run --port={port}"
CELERY = "celery -A app.celery_app worker --loglevel=info -Q celery,high_priority -c 1"
REDIS = {"REDIS_URL": "redis://127.0.0.1:1/0", "API_TOKENS": TOKEN}


@pytest.mark.parametrize("command", [PYTHON, GUNICORN, FLASK, CELERY])
def test_a_wrong_setting_ends_every_command_with_a_message_and_no_traceback(folder: Path, command: str) -> None:
    ended = run(command, folder, **REDIS | {"API_TOKENS": SECRET[:10], "LEASE_S": "0"})

    assert ended.returncode != 0
    assert "eas_queue can't start: API_TOKENS: each token needs at least 16 printable characters" in ended.stderr
    assert "\nLEASE_S: Input should be greater than or equal to 1" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert SECRET[:10] not in ended.stderr + ended.stdout


@pytest.mark.parametrize("command", [PYTHON, GUNICORN, FLASK, CELERY])
def test_a_wrong_services_file_ends_every_command_with_a_message_and_no_traceback(folder: Path, command: str) -> None:
    services_file(folder, "[services.demo]\ntimeout_s = -1")

    ended = run(command, folder, **REDIS)

    assert ended.returncode != 0
    assert "eas_queue can't start: services file: [services.demo] timeout_s: Input should be" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [GUNICORN, FLASK])
def test_the_web_does_not_start_without_tokens(folder: Path, command: str) -> None:
    ended = run(command, folder, REDIS_URL=REDIS["REDIS_URL"])

    assert ended.returncode != 0
    assert "eas_queue can't start: API_TOKENS is not set" in ended.stderr
    assert "export API_TOKENS=tml-$(python3 -c" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [GUNICORN, FLASK, CELERY])
def test_nothing_starts_without_a_redis(folder: Path, command: str) -> None:
    ended = run(command, folder, API_TOKENS=TOKEN)

    assert ended.returncode != 0
    assert "eas_queue can't start: REDIS_URL is not set" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_python_config_py_prints_what_is_in_force_with_secrets_masked(folder: Path) -> None:
    secrets = {
        "REDIS_URL": f"redis://:{SECRET}@h/0",
        "API_TOKENS": SECRET,
        "FLOWER_BASIC_AUTH": f"u:{SECRET}",
        "SECRET_KEY": SECRET,
    }

    ended = run(PYTHON, folder, PORT="6001", **secrets)

    lines = dict(line.split("=", 1) for line in ended.stdout.splitlines() if not line.startswith("#"))
    assert "# Redis: h:6379; tokens: 1" in ended.stdout
    assert "# any other service: http://127.0.0.1:5001/api/predict/{service}/{path}, 64 at once" in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(lines) == {name.upper() for name in config.Settings.model_fields}
    assert (lines["PORT"], lines["SERVICES_FILE"]) == ("6001", "")
    assert SECRET not in ended.stdout
    assert all("***" in lines[name] for name in secrets)


def test_a_worker_starts_without_tokens(server: RedisServer) -> None:
    with Installation(server.url, "http://127.0.0.1:9", api_tokens="") as installation:
        worker = installation.worker("solo", 1)

        assert worker.popen.poll() is None


def test_with_auth_off_gunicorn_listens_on_loopback_and_asks_for_no_token(server: RedisServer) -> None:
    with Installation(server.url, "http://127.0.0.1:9", api_tokens="", auth="off") as installation:
        web = installation.web("-w", "1")
        del installation.session.headers["Authorization"]

        assert installation.submit()
        assert f"Listening at: http://127.0.0.1:{installation.port} " in web.log


def test_webhooks_are_signed_with_the_secrets_of_the_environment_else_with_that_of_make_run(
    load: Load, tmp_path: Path
) -> None:
    other = "whsec_" + "b3RoZXIh" * 4
    assert load(RUN_DIR=str(tmp_path)).webhook_secrets == ()

    (tmp_path / "webhook.secret").write_text(f"{WEBHOOK_SECRET}\n")

    assert load(RUN_DIR=str(tmp_path)).webhook_secrets == (WEBHOOK_SECRET,)
    both = load(RUN_DIR=str(tmp_path), WEBHOOK_SECRET=f"{other}, {WEBHOOK_SECRET}")
    assert both.webhook_secrets == (other, WEBHOOK_SECRET)


def test_a_broken_secret_of_make_run_is_told_without_its_text(load: Load, tmp_path: Path) -> None:
    (tmp_path / "webhook.secret").write_text("whsec_chipped")

    with pytest.raises(config.ConfigError, match=r"webhook\.secret: each secret must be") as caught:
        load(RUN_DIR=str(tmp_path)).webhook_secrets  # noqa: B018  a property that raises
    assert "chipped" not in str(caught.value)


def test_the_pauses_of_webhooks_last_some_two_hours(load: Load) -> None:
    default = load().webhook_retry_delays_s

    assert (len(default), 7000 < sum(default) < 7500) == (10, True)
    assert load(WEBHOOK_RETRY_DELAYS_S="1, 2.5").webhook_retry_delays_s == (1, 2.5)
