"""Will the server still have tomorrow what it was given today: memory, eviction, and what is written to its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eas_queue.doctor.result import Result, fail, ok, warn

if TYPE_CHECKING:
    from eas_queue.doctor.server import Facts

NEARLY_FULL = 0.8
FSYNC = {
    "always": "nothing that was answered is lost in a power cut",
    "everysec": "a power cut may undo the last second",
    "no": "the operating system chooses when: a power cut may undo half a minute",
}
UNKNOWN = "the server does not let CONFIG be read"


def eviction(facts: Facts) -> Result:
    policy = str(facts.info.get("maxmemory_policy", "not known"))
    mend = "CONFIG SET maxmemory-policy noeviction, and the same in the server's configuration file"
    if policy == "noeviction":
        return ok("eviction", "noeviction: a full memory refuses new requests and keeps the others")
    if policy.startswith("allkeys"):
        return fail("eviction", f"{policy}: with its memory full, the server drops queued requests", mend)
    if policy.startswith("volatile"):
        return warn(
            "eviction", f"{policy}: with its memory full, the server drops results before RESULT_TTL_S is over", mend
        )
    return warn("eviction", policy, "see in the server's settings that maxmemory-policy is noeviction")


def memory(facts: Facts) -> Result:
    used, limit = int(facts.info.get("used_memory", 0)), int(facts.info.get("maxmemory", 0))
    counted = used - int(facts.info.get("mem_not_counted_for_evict", 0))
    if not limit:
        return warn(
            "memory",
            f"{size(used)} used, no limit: when the host's memory runs out, the system kills the server",
            "CONFIG SET maxmemory to what that host can spare (half of its memory), and the same in its "
            "configuration file",
        )
    fact = f"{size(used)} of {size(limit)} used ({counted / limit:.0%})"
    mend = (
        "raise maxmemory, or keep less: lower RESULT_TTL_S, MAX_RESULT_BYTES or max_queue_length; "
        "cancelling requests that wait frees memory now"
    )
    if counted >= limit:
        return fail("memory", f"{fact}: submits are refused with 503", mend)
    if counted > NEARLY_FULL * limit:
        return warn("memory", f"{fact}: at 100% submits are refused with 503", mend)
    return ok("memory", fact)


def durability(facts: Facts) -> Result:
    mend = "CONFIG SET appendonly yes, and the same in the server's configuration file"
    if not facts.info.get("aof_enabled"):
        save = facts.config.get("save")
        if save:
            return warn("durability", f"snapshots only (save {save}): a crash loses all since the last one", mend)
        if save is None:
            return warn(
                "durability",
                f"append-only file off, snapshots not known ({UNKNOWN}): a crash may lose requests",
                "switch the append-only file on, or learn from who runs the server what a crash of it loses",
            )
        return fail("durability", "nothing is written to disk: a restart of the server loses every request", mend)
    fsync = facts.config.get("appendfsync")
    if fsync is None:
        return warn(
            "durability",
            f"append-only file on, appendfsync not known ({UNKNOWN})",
            "see in the server's settings that appendfsync is everysec or always",
        )
    fact = f"append-only file, appendfsync {fsync}: {FSYNC.get(fsync, 'not a value known here')}"
    if fsync == "no":
        return warn("durability", fact, "CONFIG SET appendfsync everysec, and the same in its configuration file")
    return ok("durability", fact)


def saved(facts: Facts) -> Result:
    """What the last attempts to write to disk came to."""
    broken = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if facts.info.get(name, "ok") != "ok"
    ]
    if not broken:
        return ok("disk writes", "the last ones went well")
    fact = f"failed: {', '.join(broken)}"
    mend = "look at free space, permissions and the log of the server; then BGREWRITEAOF or BGSAVE to try again"
    if "aof_last_write_status" in broken:
        return fail("disk writes", fact, mend)
    return warn("disk writes", fact, mend)


def size(count: int) -> str:
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
