"""locks/ and pyproject.toml: `make lint` says where they differ, and nothing goes past them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scripts.lock import TOGETHER, asked_for, disagreements, read

ROOT = Path(__file__).parents[2]
HASH = f"--hash=sha256:{'0' * 64}"
# An index is asked by nothing else; `--no-index` installs what is there already.
INSTALLS = re.compile(r"\b(?:pip3?|pipx|uv) (?:install|download|wheel|run|tool)\b")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_they_agree() -> None:
    assert list(disagreements(ROOT / "locks", asked_for(pyproject()))) == []


def test_nothing_but_names_versions_and_hashes_is_locked() -> None:
    for lock in (ROOT / "locks").iterdir():
        for line in lock.read_text().splitlines():
            assert re.fullmatch(
                r"[a-z0-9._-]+==[\w.]+( ; [\w .<>='!()]+)? \\|    --hash=sha256:\w{64}( \\)?| *#.*",
                line,
            ), f"{lock.name}: {line}"


@pytest.mark.parametrize(
    ("asked", "lock", "said"),
    [
        (["demo>=2"], f"demo==1.0 {HASH}", "main.txt has demo 1.0, not demo>=2"),
        (["demo", "other"], f"demo==1.0 {HASH}", "main.txt lacks other"),
        ([], f"demo==1.0 {HASH}", "main.txt has demo, which nothing asks for"),
        ([], f"demo==1.0 {HASH}\n    # via\n    #   -c locks/x.txt", "nothing asks for"),
        (["demo"], "demo==1.0", "main.txt has demo without a hash"),
    ],
)
def test_a_difference_is_said(tmp_path: Path, asked: list[str], lock: str, said: str) -> None:
    (tmp_path / "main.txt").write_text(lock.replace(f" {HASH}", f" \\\n    {HASH}"))
    (tmp_path / f"{TOGETHER[0]}.txt").touch()
    (found,) = disagreements(tmp_path, {"main": asked, TOGETHER[0]: []})
    assert said in found


def test_what_another_package_wants_is_no_difference(tmp_path: Path) -> None:
    wanted = f"Part_of-it==2 ; sys_platform == 'linux' \\\n    {HASH}\n    # via demo\n"
    (tmp_path / "main.txt").write_text(f"Demo==1.0 \\\n    {HASH}\n{wanted}")
    asked = {"main": ["demo[extra]>=1"], TOGETHER[0]: []}
    assert list(disagreements(tmp_path, asked)) == []
    assert set(read(tmp_path / "main.txt")) == {"demo", "part-of-it"}


def test_locks_of_one_environment_agree(tmp_path: Path) -> None:
    for name, version in zip(TOGETHER, "12", strict=False):
        (tmp_path / f"{name}.txt").write_text(f"demo=={version} \\\n    {HASH}\n")
    asked = {name: ["demo"] for name in TOGETHER[:2]}
    assert len(list(disagreements(tmp_path, asked))) == 1


def test_nothing_is_installed_without_hashes() -> None:
    commands = [ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / "scripts").iterdir()]
    commands += (ROOT / ".github").rglob("*.yml")
    for file in filter(Path.is_file, commands):
        text = file.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if INSTALLS.search(line):
                assert "--require-hashes" in line or "--no-index" in line, f"{file}: {line}"
