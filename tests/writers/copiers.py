"""Programs that bring a finished file into the folder, and two downloaders of our own that write as
well-known ones do."""

import os
import random
import secrets
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.writers.http_source import HttpSource
from tests.writers.recording import Pace, Recording, Writer, padding, pieces

MIB = 1024 * 1024
RANGE_BYTES = 2 * MIB
CONNECTIONS = 4
OLD_S = 3600.0
MEMORY_FOLDER = Path("/dev/shm")  # another file system on nearly every Linux


def cp(recording: Recording) -> None:
    source = str(recording.source())
    subprocess.run(["cp", "--reflink=never", source, str(recording.output)], check=True)


def mv_other_file_system(recording: Recording) -> None:
    folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(dir=folder) as elsewhere:
        source = shutil.copy(recording.source(), elsewhere)
        subprocess.run(["mv", source, str(recording.output)], check=True)


def rsync(recording: Recording) -> None:
    _rsync(recording, "--whole-file")


def rsync_inplace(recording: Recording) -> None:
    """The copy that is there already differs in three places, and is older."""
    old = bytearray(recording.content)
    for share in (10, 50, 90):
        start = len(old) * share // 100
        old[start : start + 5000] = secrets.token_bytes(5000)
    recording.output.write_bytes(old)
    before = time.time() - OLD_S
    os.utime(recording.output, (before, before))
    time.sleep(1.0)
    _rsync(recording, "--inplace", "--no-whole-file")


def _rsync(recording: Recording, *options: str) -> None:
    limit = f"--bwlimit={int(recording.bytes_per_second / 1024)}"
    source = str(recording.source())
    subprocess.run(["rsync", "-t", limit, *options, source, str(recording.output)], check=True)


def curl_resumed(recording: Recording) -> None:
    """The connection is cut half way; a second run asks for the rest."""
    command = ["curl", "-s", "--noproxy", "*", "-o", str(recording.output)]
    with HttpSource(recording.content, recording.bytes_per_second) as server:
        server.cut_after = len(recording.content) // 2
        cut_off = 18
        if (code := subprocess.run([*command, server.url]).returncode) != cut_off:
            raise RuntimeError(f"curl was to be cut off and ended with {code}")
        server.cut_after = None
        time.sleep(1.0)
        subprocess.run([*command, "-C", "-", server.url], check=True)


def dd_sparse(recording: Recording) -> None:
    """Zeros are not written but jumped over."""
    content = recording.content + padding(bytes(6 * MIB)) + padding(b"the end")
    command = ["dd", f"of={recording.output}", "bs=64K", "iflag=fullblock", "conv=sparse"]
    pace = recording.pace
    with subprocess.Popen([*command, "status=none"], stdin=subprocess.PIPE) as dd:
        assert dd.stdin
        for _, piece in pieces(content):
            dd.stdin.write(piece)
            pace.passed(len(piece))
    if dd.returncode:
        raise RuntimeError(f"dd ended with {dd.returncode}")


def aws_cli(recording: Recording) -> None:
    """Ranges out of order under NAME.xxxxxxxx, and a rename at the end."""
    output = recording.output
    beside = output.with_name(f"{output.name}.{secrets.token_hex(4)}")
    _fill_out_of_order(recording, os.open(beside, os.O_CREAT | os.O_WRONLY, 0o644))
    beside.rename(output)


def aria2(recording: Recording) -> None:
    """The final name at its full size at once, a control file beside it, ranges out of order."""
    control = recording.output.with_name(f"{recording.output.name}.aria2")
    control.write_bytes(b"\0\1")
    fd = os.open(recording.output, os.O_CREAT | os.O_WRONLY, 0o644)
    os.posix_fallocate(fd, 0, len(recording.content))
    _fill_out_of_order(recording, fd)
    control.unlink()


def _fill_out_of_order(recording: Recording, fd: int) -> None:
    """Several connections, each in the middle of a range of its own."""
    ranges = list(pieces(recording.content, RANGE_BYTES))
    random.Random(len(recording.content)).shuffle(ranges)

    def fetch(mine: tuple[int, memoryview]) -> None:
        start, body = mine
        pace = Pace(recording.bytes_per_second / CONNECTIONS)
        for offset in range(0, len(body), 64 * 1024):
            piece = body[offset : offset + 64 * 1024]
            os.pwrite(fd, piece, start + offset)
            pace.passed(len(piece))

    with ThreadPoolExecutor(CONNECTIONS) as connections:
        list(connections.map(fetch, ranges))
    os.close(fd)


COPIERS = (
    Writer("cp", "the final name, in order, as fast as it goes", cp),
    Writer("mv_other_file_system", "as cp, then mode and times", mv_other_file_system),
    Writer("rsync", "a hidden name with a random end, then a rename", rsync),
    Writer("rsync_inplace", "writes over an older copy, of which little differs", rsync_inplace),
    Writer("curl_resumed", "cut off half way, goes on a second later", curl_resumed),
    Writer("dd_sparse", "leaves holes where there are zeros", dd_sparse),
    Writer("aws_cli", "out of order under another name, then a rename", aws_cli),
    Writer("aria2", "out of order under the final name, with a control file", aria2),
)
