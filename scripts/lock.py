"""Writes locks/*.txt, which pin all that is installed from PyPI by version and hash, out of what
pyproject.toml asks for: `make lock`. With --check it says, without a network, where they differ."""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
UV = ROOT / ".venv-tools" / "bin" / "uv"
# Installed into one environment, so they must agree: with the first.
TOGETHER = ("embedded-dev", "embedded", "runtime", "build", "node")


@dataclass(frozen=True, slots=True)
class Pin:
    version: Version
    is_hashed: bool
    is_wanted: bool  # by another that is pinned


def asked_for(pyproject: dict[str, Any]) -> dict[str, list[str]]:
    """By the name of each lock: what it must hold."""
    runtime = pyproject["project"]["dependencies"]
    extras = pyproject["project"]["optional-dependencies"]
    groups = pyproject["dependency-groups"]
    return {
        "embedded-dev": runtime + extras["embedded"] + extras["dev"],
        "embedded": runtime + extras["embedded"],
        "runtime": runtime + extras["postgres"] + extras["surrealdb"],  # of the image
        "build": pyproject["build-system"]["requires"],
        **groups,
    }


def read(lock: Path) -> dict[str, Pin]:
    """Empty where there is none."""
    blocks: list[str] = []
    for line in lock.read_text().splitlines() if lock.exists() else ():
        if line[:1].isalnum():
            blocks.append(line)
        elif blocks:
            blocks[-1] += f"\n{line.strip()}"
    pins: dict[str, Pin] = {}
    for block in blocks:
        requirement = Requirement(block.partition("\\")[0])
        (pinned,) = requirement.specifier
        pins[_name(requirement)] = Pin(
            Version(pinned.version), "--hash=sha256:" in block, _is_wanted(block)
        )
    return pins


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _is_wanted(block: str) -> bool:
    notes = [line.removeprefix("# via").strip("# ") for line in block.splitlines()[1:]]
    return any(note and not note.startswith(("--hash=", "-c ")) for note in notes)


def disagreements(folder: Path, asked: dict[str, list[str]]) -> Iterator[str]:
    locks = {name: read(folder / f"{name}.txt") for name in asked}
    whole = locks[TOGETHER[0]]
    for name, texts in asked.items():
        pins = locks[name]
        requirements = {_name(requirement): requirement for requirement in map(Requirement, texts)}
        for package, requirement in requirements.items():
            if package not in pins:
                yield f"{name}.txt lacks {requirement}"
            elif not requirement.specifier.contains(pins[package].version, prereleases=True):
                yield f"{name}.txt has {package} {pins[package].version}, not {requirement}"
        for package, pin in pins.items():
            if not pin.is_wanted and package not in requirements:
                yield f"{name}.txt has {package}, which nothing asks for"
            if not pin.is_hashed:
                yield f"{name}.txt has {package} without a hash"
            if name in TOGETHER and package in whole and whole[package].version != pin.version:
                yield f"{name}.txt has {package} {pin.version}, {TOGETHER[0]}.txt another"


def write(asked: dict[str, list[str]], *, upgrade: bool) -> None:
    for name, requirements in asked.items():
        print(f"locks/{name}.txt", file=sys.stderr)
        agree = ["--constraint", f"locks/{TOGETHER[0]}.txt"] if name in TOGETHER[1:] else []
        subprocess.run(
            [str(UV), "pip", "compile", "-", "--quiet", "--universal", "--python-version", "3.11"]
            # Nothing that must be built: its build would fetch what no lock names.
            + ["--generate-hashes", "--no-build", "--no-emit-index-url"]
            + ["--custom-compile-command", "make lock", "--output-file", f"locks/{name}.txt"]
            + agree
            + (["--upgrade"] if upgrade else []),
            input="\n".join(requirements).encode(),
            stdout=subprocess.DEVNULL,  # what it writes into the file
            cwd=ROOT,
            check=True,
        )


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="only say where they differ")
    arguments.add_argument("--upgrade", action="store_true", help="take newer versions")
    given = arguments.parse_args()
    asked = asked_for(tomllib.loads((ROOT / "pyproject.toml").read_text()))
    if not given.check:
        write(asked, upgrade=given.upgrade)
    found = list(disagreements(ROOT / "locks", asked))
    for line in found:
        print(f"locks/{line}", file=sys.stderr)
    if found:
        print("make lock brings locks/ and pyproject.toml together", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
