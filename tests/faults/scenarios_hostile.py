"""Another user of the machine who may write to the watched folder, and hurts it at random."""

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import psutil
from tests.faults import hostile_writer
from tests.faults.registry import CannotRunError, scenario
from tests.faults.world import MIB, World
from tests.support.other_user import start_as_other

PROGRAM = Path(hostile_writer.__file__).read_text()
SHORT_S, LONG_S = 8.0, 40.0
# From a recorder's close to its object. A machine that is shared with other scenarios may be slow;
# but then it is slow for what he leaves, too, and that does not go first.
NORMAL_S, LATEST_S = 15.0, 45.0
MOST_BEFORE = 150
SETTLED_S = 60.0
MOST_LINES = 3000
MOST_GROWN = 200 * MIB
STORED = ("described", "handed_over")


@scenario("files", short=True, runs=3, act_s=240, patience_s=60)
async def hostile_writer_beside_recorders(world: World) -> None:
    """Recordings beside him are stored as ever; of what he leaves each file is stored as it is, or
    it is said why not; nothing outside is read or changed."""
    if os.geteuid() != 0:
        raise CannotRunError("only root can become another user")
    world.settings |= {"FFPROBE_PATH": "/bin/false", "WATCH_MAX_FOLDERS": "2000"}
    world.apart = "evil"
    outside = world.folder / "outside"
    await world.hide(outside / "secret.mp4", world.random.randbytes(5000))
    await world.hide(outside / "y" / "secret.mp4", world.random.randbytes(5000))
    before = await asyncio.to_thread(_state, outside)
    os.chmod(world.watched, 0o1777)
    instance = await world.ingest()
    memory = psutil.Process(instance.pid).memory_info().rss
    seconds = SHORT_S if world.small_files <= 300 else LONG_S
    attack = start_as_other(
        PROGRAM, str(world.seed), str(seconds), str(outside), cwd=str(world.watched)
    )
    try:
        assert attack.stdout is not None
        await asyncio.to_thread(attack.stdout.readline)
        for number, behaviour in enumerate(("append", "patch_head")):
            await _record(world, f"cam{number}/rec.mp4", behaviour)
        _, errors = await asyncio.to_thread(attack.communicate, timeout=seconds + 30)
        if attack.returncode:
            world.faults.append(f"the attack itself failed: {errors[-300:]}")
    finally:
        attack.kill()
        await asyncio.to_thread(attack.wait)
    await _settle(world)
    grown = psutil.Process(instance.pid).memory_info().rss - memory
    if grown > MOST_GROWN:
        world.faults.append(f"it grew by {grown // MIB} MiB")
    lines = (await instance.said()).count("\n")
    if lines > MOST_LINES:
        world.faults.append(f"it wrote {lines} lines")
    if await asyncio.to_thread(_state, outside) != before:
        world.faults.append("something outside the folder was changed")


async def _record(world: World, relpath: str, behaviour: str) -> None:
    await world.write(relpath, 14 * MIB, behaviour=behaviour, rate=8 * MIB)
    closed, before = time.monotonic(), len(await _ended(world))
    while relpath not in (ended := await _ended(world)):
        waited_s, others = time.monotonic() - closed, len(ended) - before
        if waited_s > LATEST_S or (waited_s > NORMAL_S and others > MOST_BEFORE):
            world.faults.append(
                f"{relpath} was not stored {waited_s:.0f} s after its close, but {others} others"
            )
            return
        await asyncio.sleep(0.2)


async def _ended(world: World) -> list[str]:
    return [str(one["relpath"]) for one in await world.judge.records() if _is_stored(one)]


async def _settle(world: World) -> None:
    """Waits until each file that is left is stored, or has failed for a reason."""
    deadline = time.monotonic() + SETTLED_S
    left = await asyncio.to_thread(_files, world.watched)
    while left:
        linked = {relpath for relpath in left if _has_other_names(world, relpath)}
        records = [
            record for record in await world.judge.records() if linked or record["relpath"] in left
        ]
        digests = await world.judge.digests_of(
            str(record["key"]) for record in records if _is_stored(record)
        )
        by_path: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_path.setdefault(str(record["relpath"]), []).append(record)
        stored = set(digests.values())
        left = {
            relpath: digest
            for relpath, digest in left.items()
            if not _is_accounted_for(by_path.get(relpath, []), digest, digests)
            and not (relpath in linked and digest in stored)
        }
        if time.monotonic() > deadline:
            world.faults += [f"{relpath!r} is neither stored nor failed" for relpath in left]
            return
        await asyncio.sleep(0.3)


def _is_stored(record: dict[str, Any]) -> bool:
    return record.get("state") in STORED


def _has_other_names(world: World, relpath: str) -> bool:
    """Which of the names of one file its record has does not matter: it has all of its bytes."""
    return (world.watched / relpath).stat().st_nlink > 1


def _is_accounted_for(records: list[dict[str, Any]], digest: str, digests: dict[str, str]) -> bool:
    """By the records of its path: stored as it is, or failed for a reason."""
    return any(
        (_is_stored(record) and digests.get(record["key"]) == digest)
        or (record.get("state") == "failed" and record.get("reason"))
        for record in records
    )


def _files(root: Path) -> dict[str, str]:
    """What is to be stored, by its SHA-256."""
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            is_wanted = name.lower().endswith((".mp4", ".mkv")) and not name.startswith(".")
            is_plain = os.path.isfile(path) and not os.path.islink(path)
            if is_wanted and is_plain and not os.path.lexists(f"{path}.aria2"):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = hashlib.file_digest(
                        file, "sha256"
                    ).hexdigest()
    return found


def _state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_nlink, path.read_bytes())
        for path in sorted(folder.rglob("*.mp4"))
    }
