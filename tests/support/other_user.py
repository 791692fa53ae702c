"""Another user of this machine, who attacks: whatever runs here has none of our rights.

Its programs are plain Python. Interpreter and library may lie where it cannot read, so they are
loaded before the rights go: a program may use the modules that are imported here, and no others.
Only root can become somebody else; the tests that need it are skipped for others."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

OTHER_UID = 65534  # nobody, on every Linux
_BECOME_OTHER = """
import contextlib, errno, fcntl, glob, http.client, json, mmap, os, pathlib, random, select, shutil
import signal, socket, stat, struct, subprocess, sys, tempfile, threading, time, urllib.request
import encodings.idna
uid, program = int(sys.argv[1]), sys.argv[2]
sys.argv[1:] = sys.argv[3:]
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
exec(compile(program, "attack", "exec"), {"__name__": "__main__"})
"""

needs_two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True, slots=True)
class Attack:
    """What a program of the other user printed, and how it ended."""

    code: int
    output: str
    errors: str


def start_as_other(program: str, *arguments: str, cwd: str = "/") -> subprocess.Popen[str]:
    """Runs Python source as the other user, without groups and capabilities; ours to end."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _BECOME_OTHER, str(OTHER_UID), program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={"PATH": os.defpath},
    )


def run_as_other(program: str, *arguments: str, timeout_s: float = 30) -> Attack:
    process = start_as_other(program, *arguments)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
    return Attack(process.returncode, output, errors)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """That both users can enter; pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="cefmp4-security-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
