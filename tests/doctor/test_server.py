"""Real servers in each state that the doctor warns of."""

from __future__ import annotations

import shutil
import socket
import time
from typing import Any

import pytest

from eas_queue.doctor import server
from eas_queue.doctor.result import Result, Status
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.scripts import Scripts
from tests.support.installation import await_condition
from tests.support.server import RedisServer, free_port


def check(url: str) -> list[Result]:
    results = list(server.check(url, source="REDIS_URL", advice="start the server there, or correct REDIS_URL"))
    assert "test-password" not in repr(results)
    assert "s3cret" not in repr(results)
    return results


def complaints(own: RedisServer) -> dict[str, Result]:
    return {result.name: result for result in check(own.url) if result.status is not Status.OK}


def only(own: RedisServer, name: str, status: Status) -> Result:
    """The one complaint there is."""
    found = complaints(own)
    assert {name: result.status for name, result in found.items()} == {name: status}
    assert found[name].mend
    return found[name]


# ------------------------------------------------------------------------------------------------------- reachable
def test_the_server_of_make_run_raises_no_complaint_and_is_not_written_to(own: RedisServer, own_raw: Any) -> None:
    assert complaints(own) == {}
    assert own_raw.dbsize() == 0


def test_nobody_there_is_told_once_with_the_reason() -> None:
    port = free_port()

    [result] = check(f"redis://:s3cret@127.0.0.1:{port}/3")

    assert result.status is Status.FAIL
    assert result.fact.startswith(f"127.0.0.1:{port}/3 can't be reached: ")
    assert "refused" in result.fact
    assert result.mend == "start the server there, or correct REDIS_URL"


def test_a_host_without_an_address_is_told() -> None:
    [result] = check("redis://:s3cret@no-such-host.invalid/0")

    assert result.fact.startswith("no-such-host.invalid:6379/0 can't be reached: ")


@pytest.mark.parametrize("password", [":s3cret@", ""])
def test_a_wrong_password_and_a_missing_one_are_told(own: RedisServer, password: str) -> None:
    [result] = check(f"redis://{password}127.0.0.1:{own.port}/0")

    assert result.status is Status.FAIL
    assert f"127.0.0.1:{own.port}/0 refuses the password" in result.fact
    assert result.mend == "correct user and password in REDIS_URL"


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began_s = time.monotonic()
        [result] = check(f"redis://:s3cret@127.0.0.1:{listener.getsockname()[1]}/0")

    assert time.monotonic() - began_s < server.COMMAND_TIMEOUT_S + 1
    assert result.status is Status.FAIL
    assert "does not answer within 2 s" in result.fact


def test_tls_towards_a_plain_server_is_told(own: RedisServer) -> None:
    [result] = check(own.url.replace("redis://", "rediss://"))

    assert result.status is Status.FAIL
    assert "redis:// for the others" in str(result.mend)


def test_a_file_that_holds_no_url_is_not_quoted() -> None:
    [result] = check("redis://:s3cret#with/slash@host:1/0")

    assert result.fact == "REDIS_URL is not a Redis URL"


# --------------------------------------------------------------------------------------------- can carry the queue
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
def test_a_server_that_may_evict_requests_fails(own: RedisServer, own_raw: Any, policy: str) -> None:
    own_raw.config_set("maxmemory-policy", policy)

    result = only(own, "eviction", Status.FAIL)

    assert "drops queued requests" in result.fact
    assert "noeviction" in str(result.mend)


def test_a_server_that_may_evict_results_is_warned_of(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("maxmemory-policy", "volatile-lru")

    assert "drops results" in only(own, "eviction", Status.WARN).fact


def test_memory_without_limit_nearly_full_and_full(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("maxmemory", 0)
    assert "no limit" in only(own, "memory", Status.WARN).fact

    used = own_raw.info("memory")["used_memory"]
    own_raw.config_set("maxmemory", int(used * 1.12))
    assert "at 100% submits are refused" in only(own, "memory", Status.WARN).fact

    own_raw.config_set("maxmemory", used // 2)
    assert "submits are refused with 503" in complaints(own)["memory"].fact
    assert complaints(own)["memory"].status is Status.FAIL


def test_what_a_crash_would_lose_is_named(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("appendfsync", "no")
    assert "half a minute" in only(own, "durability", Status.WARN).fact

    own_raw.config_set("appendonly", "no")
    assert "a restart of the server loses every request" in only(own, "durability", Status.FAIL).fact

    own_raw.config_set("save", "3600 1")
    assert "snapshots only (save 3600 1)" in only(own, "durability", Status.WARN).fact


def test_a_server_that_can_not_save_refuses_writes_and_that_is_a_failure(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("appendonly", "no")
    own_raw.config_set("save", "3600 1")
    shutil.rmtree(own.folder)
    own_raw.set("x", "1")
    own_raw.bgsave()
    await_condition(lambda: own_raw.info("persistence")["rdb_last_bgsave_status"] == "err")

    found = complaints(own)

    assert found["disk writes"].fact == "failed: rdb_last_bgsave_status"
    assert found["writes"].status is Status.FAIL
    assert "MISCONF" in found["writes"].fact
    assert "free space there" in str(found["writes"].mend)


def test_a_replica_fails_and_its_primary_is_named(own: RedisServer, own_raw: Any) -> None:
    primary = RedisServer().start()
    try:
        own_raw.config_set("masterauth", primary.password)
        own_raw.replicaof("127.0.0.1", primary.port)

        found = complaints(own)

        assert {name for name, result in found.items() if result.status is Status.FAIL} == {"role", "writes"}
        assert f"a replica of 127.0.0.1:{primary.port}" in found["role"].fact
        assert f"127.0.0.1:{primary.port}" in str(found["role"].mend)
        assert found["writes"].mend == "let REDIS_URL name the primary"
    finally:
        primary.stop()


def test_a_primary_that_misses_its_replicas_fails(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("min-replicas-to-write", 1)

    result = only(own, "writes", Status.FAIL)

    assert "NOREPLICAS" in result.fact
    assert "min-replicas-to-write" in str(result.mend)


def test_data_of_another_version_fails_and_is_left_alone(own: RedisServer, own_raw: Any) -> None:
    own_raw.hset(keys.SYS, mapping={"layout": "999"})

    assert "key layout 999" in only(own, "data", Status.FAIL).fact
    assert own_raw.hgetall(keys.SYS) == {b"layout": b"999"}


def test_data_of_this_version_is_told(own: RedisServer) -> None:
    client = Client(own.url)
    Scripts(client)._load()
    client.close()

    [data] = [result for result in check(own.url) if result.name == "data"]

    assert data.fact == f"key layout {keys.LAYOUT}, as this version writes it"


def test_cluster_mode_fails() -> None:
    made = RedisServer(more=("cluster-enabled yes", f"cluster-port {free_port()}")).start()
    try:
        assert complaints(made)["cluster"].status is Status.FAIL
    finally:
        made.stop()


def test_closed_idle_connections_are_warned_of(own: RedisServer, own_raw: Any) -> None:
    own_raw.config_set("timeout", 300)

    assert "closed after 300 s" in only(own, "idle clients", Status.WARN).fact


def test_a_managed_server_that_hides_its_configuration_is_no_failure(own: RedisServer, own_raw: Any) -> None:
    own_raw.execute_command("ACL", "SETUSER", "app", "on", ">pw-of-app", "~*", "&*", "+@all", "-config")

    results = check(own.url.replace(":test-password", "app:pw-of-app"))

    assert {result.name: result.status.value for result in results if result.status is not Status.OK} == {
        "durability": "WARN",
        "idle clients": "WARN",
    }
    assert "not known" in next(result.fact for result in results if result.name == "durability")


def test_a_user_who_may_not_write_is_told(own: RedisServer, own_raw: Any) -> None:
    own_raw.execute_command(
        "ACL", "SETUSER", "reader", "on", ">pw-of-reader", "~*", "&*", "+@read", "+@connection", "+info"
    )

    results = check(own.url.replace(":test-password", "reader:pw-of-reader"))

    assert any(result.status is Status.FAIL and "ACL SETUSER" in str(result.mend) for result in results)


def test_too_old_a_server_fails() -> None:
    old = server.Facts(info={"redis_version": "6.2.14"})

    assert server.version(old).status is Status.FAIL
    assert server.version(server.Facts(info={"redis_version": "10.0"})).status is Status.OK


# ----------------------------------------------------------------------------------------------------------- clock
def test_clocks_that_are_apart_and_a_shifted_one_are_warned_of(own: RedisServer, own_raw: Any) -> None:
    behind = server.clock(server.Facts(clock_ahead_ms=-3_500))
    assert behind.status is Status.WARN
    assert "3.5 s behind this host" in behind.fact

    own_raw.hset(keys.SYS, mapping={"layout": str(keys.LAYOUT), "skew_ms": "60000"})
    assert "shifted by 60000 ms" in only(own, "clock", Status.WARN).fact
