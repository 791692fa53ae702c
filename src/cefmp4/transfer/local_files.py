"""The files that paths stand for: themselves, or all that lie below a folder."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from cefmp4.transfer.result import Status, Transferred, failed


@dataclass(frozen=True, slots=True)
class LocalFile:
    """`relpath` below `root` is opened; `path` is what it is called to whoever asked, and `name`
    what its key is made of."""

    root: str
    relpath: str
    path: str
    name: str


async def files_of(paths: Sequence[str]) -> AsyncGenerator[LocalFile | Transferred, None]:
    for path in dict.fromkeys(paths):
        if not path or "\0" in path:  # "" would be the folder we are in
            yield failed(path, "", "no file can be called like that")
            continue
        real = await asyncio.to_thread(os.path.realpath, path)
        if not await asyncio.to_thread(os.path.isdir, real):
            folder, name = os.path.split(real)
            yield LocalFile(folder, name, path, path.rstrip("/").rpartition("/")[2])
            continue
        count, walk = 0, _walk(real, path)
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            for one in found:
                count += 1
                yield one
        if not count:
            yield failed(path, "", "there are no files in it")


def _walk(root: str, path: str) -> Iterator[list[LocalFile | Transferred]]:
    """Folder by folder. No link is followed, below the one that was asked for. What is hidden is
    left out: there are passwords in it (`.env`, `.cefmp4`), or files that are not whole."""
    problems: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=problems.append):
        below, inside = os.path.relpath(folder, root), set(folders)
        found: list[LocalFile | Transferred] = []
        for name in sorted(files + folders):
            relpath = os.path.normpath(os.path.join(below, name))
            shown = os.path.join(path, relpath)
            if name.startswith("."):
                found.append(_skipped(shown, "it is hidden"))
            elif os.path.islink(os.path.join(folder, name)):
                found.append(_skipped(shown, "a symbolic link: not followed"))
            elif name not in inside:
                found.append(LocalFile(root, relpath, shown, relpath))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield found
    for problem in problems:
        yield [failed(os.fsdecode(problem.filename or path), "", problem)]


def _skipped(path: str, reason: str) -> Transferred:
    return Transferred(path=path, key="", status=Status.SKIPPED, reason=reason)
