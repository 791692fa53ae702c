"""Somebody who may write to the watched folder, and does all that can be done there: the current
folder, for so many seconds, by this seed. Arguments: SEED SECONDS OUTSIDE, a place to lead to.

Run by tests.support.other_user, as a program of its own: it imports nothing of the tests."""

import contextlib
import fcntl
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable

NAMES = [
    b"a.mp4", b"A.MP4", b"b.mkv", b"b.mkv.part", b"c.mp4.tmp", b"d.mp4.aria2", b"d.mp4", b".h.mp4",
    b"new\nline.mp4", b"\x1b[2J\x1b]0;x\x07.mp4", b"no-text-\xff\xfe.mp4", b'quo"te\\.mp4',
    "rtl-\u202e.mp4".encode(), b"n" * 251 + b".mp4", b"-rf.mp4", b"%s%n.mp4", b"${HOME}.mp4",
]  # fmt: skip
FOLDERS = [b"evil", b"evil/x", b"evil/x/y", b"evil/new\nfolder", b"evil/" + b"f" * 255, b"evil/.h"]
MOST = 600_000  # bytes of a file
HELD = 20  # descriptors
LEVELS = 150


class Writer:
    def __init__(self, seed: int, outside: bytes) -> None:
        self.random = random.Random(seed)
        self.outside = outside
        self.top = os.open(".", os.O_RDONLY)
        self.held: list[int] = []

    def name(self) -> bytes:
        folder = self.random.choice(FOLDERS)
        if self.random.random() < 0.15:
            return b"evil-" + self.random.choice(NAMES)[-200:]
        number = b"%d-" % self.random.randrange(12) if self.random.random() < 0.7 else b""
        return folder + b"/" + (number + self.random.choice(NAMES))[-255:]

    def there(self) -> bytes:
        """A name that something has, most likely."""
        folder = self.random.choice(FOLDERS)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            names = []
        return folder + b"/" + self.random.choice(names) if names else self.name()

    def data(self) -> bytes:
        sizes = [0, 1, 500, 70_000, MOST, 12 * MOST]  # the last one is sent in parts
        return self.random.randbytes(self.random.choices(sizes, [9, 9, 9, 9, 9, 1])[0])

    # What it does.

    def write(self) -> None:
        with open(self.name(), self.random.choice(["wb", "ab"]), opener=_at_once) as file:
            file.write(self.data())

    def hold(self) -> None:
        """Goes on writing through descriptors that stay open, whatever becomes of their names."""
        if len(self.held) < HELD:
            self.held.append(os.open(self.name(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644))
        fd = self.random.choice(self.held)
        if self.random.random() < 0.3:
            self.held.remove(fd)
            os.close(fd)
        else:
            os.pwrite(fd, self.data()[:5000], self.random.randrange(MOST))

    def cut(self) -> None:
        with open(self.there(), "r+b", opener=_at_once) as file:
            file.truncate(self.random.choice([0, 1, 4096, MOST, 8 * MOST]))

    def punch(self) -> None:
        with open(self.there(), "r+b", opener=_at_once) as file:
            file.seek(self.random.randrange(20 * MOST))
            file.write(b"far")

    def map(self) -> None:
        with (
            open(self.there(), "r+b", opener=_at_once) as file,
            mmap.mmap(file.fileno(), 0) as pages,
        ):
            at = self.random.randrange(len(pages))
            pages[at : at + 1] = b"m"

    def direct(self) -> None:
        fd = os.open(self.name(), os.O_WRONLY | os.O_CREAT | os.O_DIRECT | os.O_NONBLOCK, 0o644)
        try:
            with mmap.mmap(-1, 8192) as pages:
                os.write(fd, pages)
        finally:
            os.close(fd)

    def rename(self) -> None:
        os.rename(self.there(), self.name())

    def exchange(self) -> None:
        a, b, c = self.there(), self.there(), b"evil/between.mp4"
        os.rename(a, c)
        with contextlib.suppress(OSError):
            os.rename(b, a)
        os.rename(c, b)

    def move_folder(self) -> None:
        os.rename(self.random.choice(FOLDERS[1:]), self.random.choice(FOLDERS[1:]) + b"2")
        for folder in FOLDERS:
            with contextlib.suppress(OSError):
                os.mkdir(folder)

    def lead_out(self) -> None:
        """A folder, or a file, becomes a link to a place outside."""
        if self.random.random() < 0.5:
            with contextlib.suppress(OSError):
                os.rename(b"evil/x", b"evil/x-%d" % self.random.randrange(5))
            os.symlink(self.outside, b"evil/x")
            time.sleep(self.random.choice([0, 0.001, 0.3]))
            os.unlink(b"evil/x")
            os.makedirs(b"evil/x/y", exist_ok=True)
        else:
            name = self.name()
            with contextlib.suppress(OSError):
                os.unlink(name)
            os.symlink(self.outside + b"/secret.mp4", name)

    def loop(self) -> None:
        os.symlink(b".", self.name())

    def link(self) -> None:
        source = self.random.choice([self.there(), self.there(), b"cam0/rec.mp4"])
        os.link(source, self.name(), follow_symlinks=False)

    def special(self) -> None:
        name = self.name()
        if self.random.random() < 0.5:
            os.mkfifo(name)
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name[:100])

    def nest(self) -> None:
        try:
            os.chdir(b"evil")
            os.mkdir(b"deep%d" % self.random.randrange(1000))
            os.chdir(b"x")
            for _ in range(LEVELS):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(b"d")
                os.chdir(b"d")
        finally:
            os.fchdir(self.top)

    def spread(self) -> None:
        folder = b"evil/wide%d" % self.random.randrange(3)
        for number in range(100):
            os.makedirs(folder + b"/%d" % number, exist_ok=True)

    def close_to_us(self) -> None:
        os.chmod(
            self.random.choice([self.there(), *FOLDERS[1:]]), self.random.choice([0, 0o200, 0o777])
        )
        for folder in FOLDERS:
            with contextlib.suppress(OSError):
                os.chmod(folder, 0o755)

    def remove(self) -> None:
        os.unlink(self.there())

    def date(self) -> None:
        when = self.random.choice([0, 1, -(10**18), 2**63 - 1, time.time_ns() + 10**15])
        os.utime(self.there(), ns=(when, when))

    def lock(self) -> None:
        """A lease that nobody gives back when it is asked for."""
        if len(self.held) >= HELD:
            return
        fd = os.open(self.there(), os.O_RDONLY | os.O_NONBLOCK)
        self.held.append(fd)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, self.random.choice([fcntl.F_RDLCK, fcntl.F_WRLCK]))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def flood(self) -> None:
        for number in range(100):
            os.mkdir(b"evil/flood%d" % number)
            os.rmdir(b"evil/flood%d" % number)


def _at_once(path: str | bytes, flags: int) -> int:
    """Waits neither for a reader of a FIFO nor for a lease of ours."""
    return os.open(path, flags | os.O_NONBLOCK, 0o644)


def main() -> None:
    seed, seconds, outside = int(sys.argv[1]), float(sys.argv[2]), os.fsencode(sys.argv[3])
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    writer = Writer(seed, outside)
    acts: list[Callable[[], None]] = [
        getattr(writer, name)
        for name, value in sorted(vars(Writer).items())
        if callable(value) and not name.startswith("_") and name not in ("name", "there", "data")
    ]
    weights = [6 if act.__name__ in ("write", "hold", "rename") else 2 for act in acts]
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    until = time.monotonic() + seconds
    done = dict.fromkeys((act.__name__ for act in acts), 0)
    while time.monotonic() < until:
        act = writer.random.choices(acts, weights)[0]
        with contextlib.suppress(OSError, ValueError):
            act()
            done[act.__name__] += 1
        time.sleep(writer.random.choice([0, 0, 0, 0.002, 0.01]))
    sys.stdout.write(f"{done}\n")


if __name__ == "__main__":
    main()
