"""Whoever may write to the watched folder makes trees that no walk should survive: too deep, too
wide, changing under its feet. Nothing ends, what is normal goes on, and it is said what is left
out."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.other_user import folder_for_all, needs_two_users, run_as_other, start_as_other
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, reached

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.recording.beneath import open_folder_to_read, open_root
from cefmp4.watch import walk
from cefmp4.watch.scan import scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import MOST_LEVELS, FolderQueue, Limit

LEVELS = 3000  # more than Python has frames; as a path longer than the kernel takes
PATIENCE_S = 40.0

NEST = """
os.chdir(sys.argv[1])
for name in sys.argv[3:]:
    os.mkdir(name)
    os.chdir(name)
for _ in range(int(sys.argv[2])):
    os.mkdir("dd")
    os.chdir("dd")
open("deep.mp4", "wb").write(b"deep")
"""


@asynccontextmanager
async def attacked(s3_server: SwiftServer, **changes: str) -> AsyncIterator[Site]:
    with folder_for_all() as folder:
        try:
            async with open_site(s3_server, folder, RECONCILE_SECONDS="2", **changes) as site:
                site.watched.chmod(0o777)
                yield site
        finally:
            # Python's own rmtree is one of the walks that do not survive.
            await asyncio.to_thread(lambda: subprocess.run(["rm", "-rf", folder], check=True))


def nest(folder: Path, levels: int, *names: str) -> None:
    attack = run_as_other("import os, sys\n" + NEST, str(folder), str(levels), *names)
    assert attack.code == 0, attack.errors


async def normal_recording_is_stored(site: Site, name: str) -> None:
    (site.watched / name).parent.mkdir(exist_ok=True)
    (site.watched / name).write_bytes(os.urandom(100_000))
    assert await site.described({name}, PATIENCE_S) == set()
    assert (await site.held(name)).faults(site.watched / name) == []


async def left_out(site: Site, cause: str) -> float:
    _, text = await site.service._get("/metrics")
    line = next(line for line in text.splitlines() if f'left_out{{cause="{cause}"}}' in line)
    return float(line.split()[-1])


@needs_two_users
@pytest.mark.integration
@pytest.mark.acceptance
@pytest.mark.asyncio(loop_scope="session")
async def test_thousands_of_nested_folders_end_no_start_and_no_watch(
    s3_server: SwiftServer,
) -> None:
    async with attacked(s3_server) as site:
        nest(site.watched, LEVELS, "early")
        await site.service.start()
        nest(site.watched, LEVELS, "late")
        await normal_recording_is_stored(site, "cam/a.mp4")

        async def are_seen() -> bool:
            return await left_out(site, "depth") == 2

        assert await reached(are_seen, PATIENCE_S)
        moved = "import os, sys; os.chdir(sys.argv[1]); os.rename('late', 'early/dd/late')"
        assert run_as_other(moved, str(site.watched)).code == 0
        await normal_recording_is_stored(site, "cam/b.mp4")
        assert set(await site.streams()) == {"cam/a.mp4", "cam/b.mp4"}
        errors = site.errors()
        assert [error["event"] for error in errors] == [
            "folders lie too deep: what is in them is not uploaded"
        ]
        assert errors[0]["limit"] == MOST_LEVELS
        assert errors[0]["first"].startswith("early/dd/dd")
        assert errors[0]["hint"]
        assert await site.service.stop() == 0


@needs_two_users
@pytest.mark.integration
@pytest.mark.acceptance
@pytest.mark.asyncio(loop_scope="session")
async def test_more_folders_than_are_looked_at_take_none_from_the_others(
    s3_server: SwiftServer,
) -> None:
    many = "import os, sys\nfor n in range(900): os.makedirs(f'{sys.argv[1]}/{n}/x')"
    async with attacked(s3_server, WATCH_MAX_FOLDERS="300") as site:
        for number in range(40):
            (site.watched / f"cam{number}/today").mkdir(parents=True)
        (site.watched / "evil").mkdir()
        (site.watched / "evil").chmod(0o777)
        await normal_before_the_start(site)
        assert run_as_other(many, str(site.watched / "evil")).code == 0
        await site.service.start()
        assert await left_out(site, "count") > 0
        for name in ("cam39/today/a.mp4", "new/b.mp4"):
            await normal_recording_is_stored(site, name)
        assert await site.described({"cam0/today/early.mp4"}, PATIENCE_S) == set()
        said = [error for error in site.errors() if error["event"].startswith("too many folders")]
        assert len(said) == 1
        assert said[0]["limit"] == 300
        assert "WATCH_MAX_FOLDERS" in said[0]["hint"]


async def normal_before_the_start(site: Site) -> None:
    (site.watched / "cam0/today/early.mp4").write_bytes(b"early")


@needs_two_users
def test_a_folder_that_becomes_a_link_while_it_is_walked_leads_nowhere() -> None:
    """The other user exchanges a folder for a link to a place outside, again and again."""
    swap = """
import os, sys, time
os.chdir(sys.argv[1])
os.symlink(sys.argv[2], "link")
print("ready", flush=True)
while True:
    os.rename("a", "b"); os.rename("link", "a")
    os.rename("a", "link"); os.rename("b", "a")
"""
    with folder_for_all() as folder:
        root, outside = folder / "root", folder / "outside"
        for tree in (root / "a/in", outside / "in"):
            tree.mkdir(parents=True)
        root.chmod(0o777)
        (root / "a/in/mine.mp4").touch()
        (outside / "in/secret.mp4").touch()
        process = start_as_other(swap, str(root), str(outside))
        try:
            assert process.stdout is not None
            process.stdout.readline()
            selection = Selection(DEFAULT_GLOBS)
            seen: set[str] = set()
            for _ in range(3000):
                seen |= scan(str(root), selection).entries.keys()
        finally:
            process.kill()
            process.communicate()
    assert seen
    assert {Path(path).name for path in seen} == {"mine.mp4"}


def test_no_folder_on_the_way_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real/in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/self").symlink_to("in")
    root_fd = open_root(str(tmp_path))
    try:
        os.close(open_folder_to_read(root_fd, "real/in"))
        for path in ("link", "link/in", "real/self"):
            with pytest.raises(NotADirectoryError):
                open_folder_to_read(root_fd, path)
    finally:
        os.close(root_fd)


def test_a_million_names_wait_in_bounded_memory_and_the_others_come_first() -> None:
    queue: FolderQueue[None] = FolderQueue("/root", 1000)
    queue.add("cam", None)
    for number in range(100_000):
        queue.add(f"evil/{number}", None)
        assert len(queue) <= 2001
    queue.add("cam/today", None)
    taken = []
    while (one := queue.take()) is not None:
        taken.append(one[0])
    assert len(taken) == 1000
    assert {"cam", "cam/today"} <= set(taken[:4])
    assert queue.left_out.counts == {Limit.COUNT: 100_002 - 1000}
    assert queue.left_out.parents == {"evil"}


def test_files_in_folders_that_are_left_out_are_unknown_and_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.mp4").touch()
    (tmp_path / "a/deep").mkdir()
    selection = Selection(DEFAULT_GLOBS)
    result = scan(str(tmp_path), selection, most_folders=3)
    unseen = [name for name in ("a", "b", "c") if f"{name}/r.mp4" not in result.entries]
    assert len(unseen) == 1
    assert not result.lacks(f"{unseen[0]}/r.mp4")
    seen = next(name for name in ("b", "c") if name not in unseen)
    assert result.lacks(f"{seen}/gone.mp4")

    monkeypatch.setattr(walk, "MOST_LEVELS", 1)
    shallow = scan(str(tmp_path), selection)
    assert shallow.left_out.examples == {Limit.DEPTH: "a/deep"}
    assert not shallow.lacks("a/deep/r.mp4")
    assert shallow.lacks("b/deep/r.mp4")
