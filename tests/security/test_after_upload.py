"""AFTER_UPLOAD deletes and moves the file that was proven, and nothing else: not where a folder was
swapped for a link, nor where another file took its name, at whatever moment that happens."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.other_user import (
    OTHER_UID,
    folder_for_all,
    needs_two_users,
    start_as_other,
)
from tests.support.servers import SwiftServer
from tests.support.service import open_site, reached

from cefmp4.errors import SourceError
from cefmp4.ingest.after.local_file import LocalFilePolicy
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile

CONTENT = b"proven bytes" * 1000
TRIES = int(os.environ.get("CEFMP4_ATTACK_TRIES", "300"))
ID = "20260101T000000Z-00000000"
# What a program does to files is announced, just before it is done, to whoever listens.
MOMENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.link", "shutil.copyfile"}
FAR = Path("/dev/shm")  # another file system

_listener: Callable[[str], None] | None = None


def _hear(event: str, _: object) -> None:
    if _listener is not None and event in MOMENTS:
        _listener(event)


sys.addaudithook(_hear)


class Moment:
    """Does something once, before the `number`-th thing that is done to files."""

    def __init__(self, number: int, do: Callable[[], None]) -> None:
        self._number = number
        self._do = do
        self.heard: list[str] = []
        self.came = False

    def _listen(self, event: str) -> None:
        global _listener
        self.heard.append(event)
        if len(self.heard) > self._number:
            _listener = None
            self.came = True
            self._do()

    def __enter__(self) -> None:
        global _listener
        _listener = self._listen

    def __exit__(self, *_: object) -> None:
        global _listener
        _listener = None


@dataclass(frozen=True)
class Scene:
    """`file` is proven. A file of the same name lies in the `victim` folder, outside."""

    folder: Path
    action: str
    goal: Path | None

    @property
    def file(self) -> Path:
        return self.folder / "watched/sub/rec.mp4"

    @property
    def victim(self) -> Path:
        return self.folder / "victim/rec.mp4"

    @property
    def elsewhere(self) -> Path:
        return self.folder / "watched/away/rec.mp4"

    def lay_out(self) -> None:
        for path in (self.file, self.victim):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(CONTENT)
        self.victim.write_bytes(CONTENT)

    def swap_folder(self) -> None:
        self.file.parent.rename(self.elsewhere.parent)
        self.file.parent.symlink_to(self.victim.parent)

    def apply(self, moment: AbstractContextManager[object] | None = None) -> bool:
        """Whether it was removed."""
        root = str(self.folder / "watched")
        with SourceFile.open(root, "sub/rec.mp4") as source, moment or nullcontext():
            stream = stream_of(source)
            try:
                LocalFilePolicy(self.action).apply(stream, source, stream.stamp)
            except (SourceError, OSError):
                return False
        return True

    def moved(self) -> list[Path]:
        return sorted(self.goal.rglob("*")) if self.goal else []


def stream_of(source: SourceFile) -> Stream:
    return Stream(
        id=ID,
        relpath=source.relpath,
        state=StreamState.STORED,
        part_base=len(CONTENT),
        size=len(CONTENT),
        stamp=source.stamp(),
        crc64=crc_of(CONTENT),
    )


@contextmanager
def laid_out(folder: Path, action: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        goal = None
        if action == "move":
            goal = folder / "goal"
        elif action == "move far":
            goal = Path(tempfile.mkdtemp(dir=FAR, prefix="cefmp4-"))
            stack.callback(shutil.rmtree, goal, ignore_errors=True)
            if goal.stat().st_dev == folder.stat().st_dev:
                pytest.skip(f"{FAR} is no other file system here")
        scene = Scene(folder, f"move:{goal}" if goal else "delete", goal)
        scene.lay_out()
        yield scene


@pytest.fixture(params=["delete", "move", "move far"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with laid_out(tmp_path, request.param) as scene:
        yield scene


@pytest.fixture(params=["move", "move far"])
def moving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Scene, Path]]:
    """And where to."""
    with laid_out(tmp_path, request.param) as scene:
        assert scene.goal is not None
        yield scene, scene.goal


def test_a_folder_that_is_swapped_for_a_link_at_any_moment_leads_nowhere(scene: Scene) -> None:
    for number in range(100):
        moment = Moment(number, scene.swap_folder)
        scene.apply(moment)
        if not moment.came:
            break
        assert os.listdir(scene.victim.parent) == [scene.victim.name], moment.heard
        assert scene.victim.read_bytes() == CONTENT, moment.heard
        scene.file.parent.unlink()
        shutil.rmtree(scene.elsewhere.parent)
        shutil.rmtree(scene.goal or "", ignore_errors=True)
        scene.lay_out()
    assert number > 2


def test_another_file_that_takes_the_name_at_any_moment_stays(scene: Scene) -> None:
    """As a recorder does that always writes to the same name."""
    fresh = b"not uploaded yet"

    def take_name() -> None:
        path = scene.folder / "watched/fresh"
        path.write_bytes(fresh)
        path.replace(scene.file)

    for number in range(100):
        moment = Moment(number, take_name)
        scene.apply(moment)
        if not moment.came:
            break
        assert scene.file.read_bytes() == fresh, moment.heard
        assert not any(path.read_bytes() == fresh for path in scene.moved() if path.is_file())
        shutil.rmtree(scene.goal or "", ignore_errors=True)
        for path in scene.file.parent.iterdir():
            path.unlink()
        scene.lay_out()
    assert number > 2


def killed(folder: Path, action: str, goal: str, number: int) -> Scene:
    away = Path(goal) / str(number) if goal else None
    return Scene(folder / str(number), f"move:{away}" if goal else action, away)


KILLED = """\
import os, sys
from pathlib import Path
from tests.security import test_after_upload as here
folder, action, goal, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3], 0
while True:
    scene = here.killed(folder, action, goal, number)
    scene.lay_out()
    if (child := os.fork()) == 0:
        scene.apply(here.Moment(number, lambda: os._exit(9)))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    number += 1
print(number)
"""


def test_a_kill_between_two_steps_leaves_the_file_where_the_next_start_finds_it(
    scene: Scene,
) -> None:
    words = [str(scene.folder / "kills"), scene.action, str(scene.goal or "")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.splitlines()[-1])
    assert kills > 2
    for number in range(kills):
        left = killed(scene.folder / "kills", scene.action, str(scene.goal or ""), number)
        root = str(left.folder / "watched")
        stream = Stream(id=ID, relpath="sub/rec.mp4", part_base=1, state=StreamState.STORED)
        LocalFilePolicy(scene.action).bring_back(root, stream)
        if left.file.exists():
            assert left.file.read_bytes() == CONTENT
            assert left.apply()
        assert os.listdir(left.file.parent) == []
        moved = [path.read_bytes() for path in left.moved() if path.is_file()]
        assert set(moved) == ({CONTENT} if scene.goal else set())


ATTACKER = """
import os, random, sys, time
watched, victim = sys.argv[1:]
sub, away = watched + "/sub", watched + "/away"
print("begins", flush=True)
while True:
    if random.random() < 0.1:
        time.sleep(0.001)  # so that some removals begin
    try:
        os.rename(sub, away)
        os.symlink(victim, sub)
        os.unlink(sub)
        os.rename(away, sub)
    except OSError:
        pass
"""


@needs_two_users
@pytest.mark.parametrize("far", [None, FAR], ids=["delete", "move far"])
def test_another_user_who_swaps_the_folder_for_a_link_all_the_time(far: Path | None) -> None:
    with folder_for_all() as folder, ExitStack() as stack:
        goal = Path(tempfile.mkdtemp(dir=far, prefix="cefmp4-")) if far else None
        if goal:
            stack.callback(shutil.rmtree, goal)
        scene = Scene(folder, f"move:{goal}" if goal else "delete", goal)
        scene.lay_out()
        for path in (scene.file.parent, scene.file.parent.parent):
            os.chown(path, OTHER_UID, OTHER_UID)
        attacker = start_as_other(ATTACKER, str(folder / "watched"), str(scene.victim.parent))
        stack.callback(attacker.wait)
        stack.callback(attacker.kill)
        assert attacker.stdout is not None
        stack.callback(attacker.stdout.close)
        assert attacker.stderr is not None
        stack.callback(attacker.stderr.close)
        assert attacker.stdout.readline() == "begins\n"
        tries = removed = 0
        while tries < TRIES:
            if attacker.poll() is not None:
                raise AssertionError("the attack is over")
            try:
                removed += scene.apply()
            except FileNotFoundError:
                pass  # in the middle of a swap
            else:
                tries += 1
            if goal:
                shutil.rmtree(goal / "sub", ignore_errors=True)
            _lay_again(folder / "watched")
        assert os.listdir(scene.victim.parent) == [scene.victim.name]
        assert scene.victim.read_bytes() == CONTENT
        assert removed > 0


def _lay_again(watched: Path) -> None:
    """The file, wherever its folder is right now."""
    for name in ("sub", "away"):
        with suppress(OSError):
            folder = os.open(watched / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with open(os.open("rec.mp4", flags, dir_fd=folder), "wb") as file:
                    file.write(CONTENT)
            except FileExistsError:
                return
            finally:
                os.close(folder)


def test_what_is_planted_under_the_passing_name_is_not_followed(moving: tuple[Scene, Path]) -> None:
    scene, goal = moving
    passing = goal / "sub" / f".{ID}.part"
    passing.parent.mkdir(parents=True)
    passing.symlink_to(scene.victim)
    scene.victim.write_bytes(b"victim")
    assert scene.apply()
    assert scene.victim.read_bytes() == b"victim"
    assert (goal / "sub/rec.mp4").read_bytes() == CONTENT


def test_a_link_below_the_goal_is_not_followed(moving: tuple[Scene, Path]) -> None:
    scene, goal = moving
    goal.mkdir(exist_ok=True)
    (goal / "sub").symlink_to(scene.victim.parent)
    assert not scene.apply()
    assert os.listdir(scene.victim.parent) == [scene.victim.name]
    assert scene.file.read_bytes() == CONTENT


def test_nothing_at_the_goal_is_overwritten(moving: tuple[Scene, Path]) -> None:
    scene, goal = moving
    (goal / "sub").mkdir(parents=True)
    for name in ("rec.mp4", f"rec~{ID}.mp4"):
        (goal / "sub" / name).symlink_to("nowhere")
    assert not scene.apply()
    assert scene.file.read_bytes() == CONTENT
    assert {path.name: os.readlink(path) for path in (goal / "sub").iterdir()} == {
        "rec.mp4": "nowhere",
        f"rec~{ID}.mp4": "nowhere",
    }


@needs_two_users
def test_a_set_id_program_of_another_user_does_not_become_ours_by_the_move(
    moving: tuple[Scene, Path],
) -> None:
    """The copy is ours: with the bits of the original, it would run with our rights."""
    scene, goal = moving
    os.chown(scene.file, OTHER_UID, OTHER_UID)
    os.setxattr(scene.file, "user.note", b"kept")
    os.chmod(scene.file, 0o6751)
    os.utime(scene.file, ns=(10**18, 10**18 + 1))
    assert scene.apply()
    facts = (goal / "sub/rec.mp4").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) in ((0o751, 0), (0o6751, OTHER_UID))
    assert facts.st_mtime_ns == 10**18 + 1
    with suppress(OSError):  # a tmpfs of an older kernel has none
        assert os.getxattr(goal / "sub/rec.mp4", "user.note") == b"kept"


def test_a_stop_ends_a_copy_that_takes_long(moving: tuple[Scene, Path]) -> None:
    scene, _ = moving
    with SourceFile.open(str(scene.folder / "watched"), "sub/rec.mp4") as source:
        stream = stream_of(source)
        try:
            LocalFilePolicy(scene.action).apply(stream, source, stream.stamp, lambda: True)
        except SourceError:
            assert scene.file.read_bytes() == CONTENT
            assert [path for path in scene.moved() if path.is_file()] == []
        else:  # a rename takes no time
            assert [path.name for path in scene.moved() if path.is_file()] == ["rec.mp4"]


def test_only_one_of_several_names_goes(scene: Scene) -> None:
    other = scene.file.with_name("other.mp4")
    other.hardlink_to(scene.file)
    assert scene.apply()
    assert os.listdir(scene.file.parent) == ["other.mp4"]
    assert other.read_bytes() == CONTENT


@pytest.mark.integration
@pytest.mark.asyncio(loop_scope="session")
async def test_the_service_moves_across_file_systems_and_its_watch_sees_nothing_new(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    goal = Path(tempfile.mkdtemp(dir=FAR, prefix="cefmp4-"))
    try:
        async with open_site(s3_server, tmp_path, AFTER_UPLOAD=f"move:{goal}") as site:
            for number in range(5):
                (site.watched / f"{number}.mp4").write_bytes(CONTENT + bytes([number]))
            await site.service.start()

            async def all_are_gone() -> bool:
                return not any(site.watched.glob("*.mp4"))

            assert await reached(all_are_gone, 30)
            streams = await site.checkpoints.load_streams()
            assert await site.service.stop() == 0
        assert len(streams) == 5
        assert sorted(os.listdir(goal)) == [f"{number}.mp4" for number in range(5)]
        for number in range(5):
            assert (goal / f"{number}.mp4").read_bytes() == CONTENT + bytes([number])
    finally:
        shutil.rmtree(goal)


@pytest.mark.integration
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("action", ["delete", "move:{goal}"])
async def test_a_recorder_that_pauses_loses_nothing_of_what_it_writes_later(
    s3_server: SwiftServer, tmp_path: Path, action: str
) -> None:
    """Its file counts as finished after STREAM_TIMEOUT_SECONDS, while it is still open."""
    goal = tmp_path / "goal"
    settings = {"AFTER_UPLOAD": action.format(goal=goal), "STREAM_TIMEOUT_SECONDS": "1"}
    async with open_site(s3_server, tmp_path, **settings) as site:
        await site.service.start()
        path = site.watched / "rec.mp4"

        async def is_treated(size: int) -> bool:
            stream = (await site.streams()).get("rec.mp4")
            return stream is not None and stream.is_final and stream.size == size

        with path.open("wb", buffering=0) as recorder:
            recorder.write(CONTENT)
            assert await reached(lambda: is_treated(len(CONTENT)), 20)
            assert path.exists(), "it was taken from under its writer"
            recorder.write(CONTENT)
        assert await reached(lambda: is_treated(2 * len(CONTENT)), 20)
        stream = (await site.streams())["rec.mp4"]
        assert await site.store.read(stream.key, 0, stream.size) == 2 * CONTENT
        assert not path.exists()
        assert "still has the file open for writing" in await site.service.said()
