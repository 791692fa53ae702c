"""Every diagram can be read by Mermaid's own parser."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIAGRAMS = sorted((ROOT / "docs/diagrams").glob("*.mmd"))
PARSER = Path(sys.prefix) / "node_modules/mermaid-js-tiny/dist/mermaid.tiny.js"


def complaints(*diagrams: Path) -> str:
    node = shutil.which("node") or shutil.which("node", path=f"{sys.prefix}/bin")
    assert node, "scripts/mermaid installs node"
    assert PARSER.exists(), "scripts/mermaid fetches the parser"
    read = subprocess.run(
        [node, str(ROOT / "scripts/parse_diagrams.cjs"), str(PARSER), *map(str, diagrams)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert read.stderr == ""
    assert (read.returncode == 0) == (read.stdout == "")
    return read.stdout


def test_all_diagrams_are_read() -> None:
    assert len(DIAGRAMS) >= 14
    assert complaints(*DIAGRAMS) == ""


@pytest.mark.parametrize(
    "broken",
    [
        "flowchart LR\n    a -->\n",
        'flowchart LR\n    a["no end --> b\n',
        "sequenceDiagram\n    A->>\n",
        "stateDiagram-v2\n    state {\n",
        "classDiagram\n    class A {\n",
        "drawing\n    a --> b\n",
    ],
)
def test_a_broken_one_is_named(broken: str, tmp_path: Path) -> None:
    (tmp_path / "broken.mmd").write_text(broken)
    told = complaints(tmp_path / "broken.mmd", DIAGRAMS[0])
    assert told.startswith("broken.mmd: ")
    assert told.count("\n") == 1
