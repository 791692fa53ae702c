"""What is installed is what was looked at: another file under the same name and version is not."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Index:
    """A package index whose owner turned bad, and a project that installs from it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("scripts", "locks", "files"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "scripts" / "locked", folder / "scripts")

    def wheel(self, text: str) -> str:
        """Offers demo 1.0; its hash."""
        path = self._folder / "files" / "demo-1.0-py3-none-any.whl"
        info = "demo-1.0.dist-info"
        files = {
            "demo.py": text,
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = [
            f"{name},sha256={_record_hash(content)},{len(content)}"
            for name, content in files.items()
        ]
        files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def source(self) -> str:
        """Offers the same as something that runs code where it is built."""
        path = self._folder / "files" / "demo-1.0.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("demo-1.0/setup.py", "open('built', 'w')")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def install(self, lock: str) -> tuple[bool, str]:
        (self._folder / "locks" / "demo.txt").write_text(lock)
        done = subprocess.run(
            ["bash", self._folder / "scripts" / "locked", sys.prefix, "demo"],
            env=os.environ
            | {
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self._folder / "files"),
                "PIP_TARGET": str(self._folder / "installed"),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return (self._folder / "installed" / "demo.py").exists(), done.stderr


def _record_hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_a_package_that_has_its_hash_is_installed(index: Index) -> None:
    lock = f"demo==1.0 \\\n    --hash=sha256:{index.wheel('good = True')}\n"
    assert index.install(lock)[0]


def test_a_package_whose_bytes_were_exchanged_is_not_installed(index: Index) -> None:
    lock = f"demo==1.0 \\\n    --hash=sha256:{index.wheel('good = True')}\n"
    index.wheel("good = False")
    installed, said = index.install(lock)
    assert not installed
    assert "DO NOT MATCH THE HASHES" in said


def test_a_line_without_a_hash_is_not_installed(index: Index) -> None:
    index.wheel("good = True")
    installed, said = index.install("demo==1.0\n")
    assert not installed
    assert "--require-hashes" in said


def test_a_source_is_not_built_even_with_its_hash(index: Index, tmp_path: Path) -> None:
    lock = f"demo==1.0 \\\n    --hash=sha256:{index.source()}\n"
    assert not index.install(lock)[0]
    assert not list(tmp_path.rglob("built"))
