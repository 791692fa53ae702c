"""What image and workflow are made of: full versions, and nothing that was left lying about."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# One that is named a second time stands for what was named first.
IMAGE = re.compile(r"^(?:FROM|\s+image:) (?:&\S+ )?(?!\*)(\S+)", re.MULTILINE)
ACTION = re.compile(r"uses: (\S+)")
# Of a release that never changes: three numbers (Postgres has two), or the date of one.
FULL = re.compile(
    r"[:@]v?(\d+\.\d+\.\d+\b|(?<=postgres:)\d+\.\d+\b|RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ$)"
)


def test_images_and_actions_are_named_by_their_full_version() -> None:
    found = [
        *IMAGE.findall((ROOT / "Dockerfile").read_text()),
        *IMAGE.findall((ROOT / "docker-compose.yml").read_text()),
        *ACTION.findall((ROOT / ".github" / "workflows" / "ci.yml").read_text()),
    ]
    assert len(found) > 8
    assert [name for name in found if name != "cefmp4" and not FULL.search(name)] == []


def test_the_image_sees_nothing_but_what_it_is_made_of() -> None:
    """Settings, state and recordings stay out, whatever their names."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    let_in = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert let_in == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src",
        "locks/build.txt",
        "locks/runtime.txt",
        "scripts/player",
        "scripts/log.sh",
        "scripts/npm.sh",
    }
    assert set(patterns) - {f"!{name}" for name in let_in} == {
        "*",
        "**/.env",
        "**/.cefmp4",
        "**/__pycache__",
        "**/*.py[co]",
    }
