"""Programs that come back to a file that was finished."""

import os
import secrets
import subprocess
import time

from tests.writers.recording import Recording, Writer

LATER_S = 1.0
POST_PROCESSING_S = 2.0


def patched_after_close(recording: Recording) -> None:
    """A post-processor: four bytes of the head and 64 KiB of the middle."""
    content = recording.content
    recording.output.write_bytes(content)
    time.sleep(POST_PROCESSING_S)
    fd = os.open(recording.output, os.O_RDWR)
    os.pwrite(fd, b"\0\0\2\1", 12)
    os.pwrite(fd, secrets.token_bytes(64 * 1024), len(content) // 2)
    os.close(fd)


def sed(recording: Recording) -> None:
    recording.output.write_bytes(recording.content)
    time.sleep(LATER_S)
    subprocess.run(
        ["sed", "-i", "s/Lavf/Lavx/g", str(recording.output)],
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )


def replaced(recording: Recording) -> None:
    """A save: another file takes the name."""
    recording.output.write_bytes(recording.content[:-4] + b"old.")
    time.sleep(LATER_S)
    beside = recording.output.with_name(f"{recording.output.name}.tmp")
    with beside.open("wb") as file:
        file.write(recording.content)
        os.fsync(file.fileno())
    beside.rename(recording.output)


def renamed(recording: Recording) -> None:
    recording.output.write_bytes(recording.content)
    time.sleep(LATER_S)
    recording.output.rename(recording.output.with_name("renamed.mp4"))


EDITORS = (
    Writer("patched_after_close", "opened again two seconds after the close", patched_after_close),
    Writer("sed", "sed -i: a changed copy takes the name", sed),
    Writer("replaced", "a new version takes the name at once", replaced),
    Writer("renamed", "the finished file gets another name", renamed),
)
