"""What documents and diagrams name is there: files, tests, classes, functions, settings, states."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cefmp4.config.settings import Settings
from cefmp4.model.stream import TRANSITIONS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/cefmp4"
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
DIAGRAMS = sorted((ROOT / "docs/diagrams").glob("*.mmd"))

SOURCE = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
BODIES = re.findall(r"^class (\w+)[^\n]*:\n((?:\n|    .*\n)*)", SOURCE, re.MULTILINE)
MEMBERS = {
    (owner, name)
    for owner, body in BODIES
    for name in re.findall(r"(?:^    (?:async def |def )?|\bself\.)(\w+)", body, re.MULTILINE)
}
CLASSES = set(re.findall(r"^class (\w+)", SOURCE, re.MULTILINE))
FUNCTIONS = set(re.findall(r"^ *(?:async )?def (\w+)", SOURCE, re.MULTILINE))
CONSTANTS = set(re.findall(r"^([A-Z][A-Z0-9_]+)\b.*=", SOURCE, re.MULTILINE))
METRICS = set(re.findall(r'"((?:cefmp4|video)_\w+)"', SOURCE))
OF_COMPOSE = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
SETTINGS = {name.upper() for name in Settings.model_fields} | OF_COMPOSE
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

FOREIGN = {"OSError"}  # written like classes of ours


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Documents.


def test_the_layers_that_are_drawn_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [one["layers"] for one in contracts["contracts"] if one["type"] == "layers"]
    drawn = re.findall(r"^```\n(.*?)^```", (ROOT / "docs/architecture.md").read_text(), re.M | re.S)
    assert layers in [block.splitlines() for block in drawn]


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(document: Path) -> None:
    lost = [link for link in links_of(document) if not leads_somewhere(document, link)]
    assert lost == []


def links_of(document: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    return [link for link in links if not re.match(r"[a-z]+:", link)]


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    return target.exists() and (not anchor or anchor in anchors_of(target))


def anchors_of(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_tests_that_are_named_are_there(document: Path) -> None:
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    named = re.findall(r"[\w/]*\btest_\w+\.py", document.read_text())
    assert [name for name in named if not ends_one_of(name, tests)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_modules_that_are_named_are_there(document: Path) -> None:
    ours = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}
    named = re.findall(r"`([a-z_]\w*(?:/\w+)*\.py)`", document.read_text())
    ours |= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name in named if not ends_one_of(name, ours)] == []


def ends_one_of(name: str, paths: set[str]) -> bool:
    return any(path == name or path.endswith(f"/{name}") for path in paths)


@pytest.mark.parametrize("document", [*DOCUMENTS, *DIAGRAMS], ids=ids)
def test_methods_that_are_named_are_there(document: Path) -> None:
    text = document.read_text()
    named = re.findall(
        r"\b([A-Z]\w*[a-z]\w*)\.(_?[a-z]\w*)", text if document in DIAGRAMS else quoted(text)
    )
    lost = [name for name in named if name not in MEMBERS]
    assert lost == []


def quoted(text: str) -> str:
    return "\n".join(re.findall(r"`([^`\n]+)`", text))


# Diagrams.


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=ids)
def test_what_a_diagram_names_is_there(diagram: Path) -> None:
    assert unknown_in(diagram.read_text()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "ingest/nowhere.py",
        "ingest/nowhere/",
        "StreamConductor",
        "conduct_streams()",
        "StreamRouter.conduct()",
        "SECONDS_OF_NOTHING",
        "cefmp4_nothing_total",
        "class Conductor {",
        "make nothing",
    ],
)
def test_a_name_of_nothing_is_found(wrong: str) -> None:
    assert unknown_in(f'flowchart LR\n    a["{wrong}"]\n    {wrong}\n') != []


def unknown_in(diagram: str) -> list[str]:
    """A word in a box ends at a line break of the drawing, too."""
    text = re.sub(r"<br/?>", "\n", diagram)
    known = {
        r"\b(?:[A-Z][a-z0-9]+){2,}\b|\b[A-Z]\w*Error\b": CLASSES | FOREIGN,
        r"^\s*class (\w+)": CLASSES,
        r"\b(_?[a-z]\w*)\(\)": FUNCTIONS,
        r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b": SETTINGS | CONSTANTS,
        r"\b(?:cefmp4|video)_\w+": METRICS,
        r"\bmake ([a-z-]+)": TARGETS,
    }
    unknown = list(unknown_paths(text))
    for pattern, names in known.items():
        unknown += [name for name in re.findall(pattern, text, re.MULTILINE) if name not in names]
    return unknown


def unknown_paths(text: str) -> Iterator[str]:
    for path in re.findall(
        r"(?<![/\w.-])\.?[a-z_]\w*(?:/\w+)*(?:\.py\b|\.yml\b|/(?=[\s\"<:,]))", text
    ):
        places = (PACKAGE / path, ROOT / path, *PACKAGE.rglob(f"*/{path}"))
        if not any(place.exists() for place in places):
            yield path


def test_every_diagram_is_listed() -> None:
    listed = links_of(ROOT / "docs/diagrams/README.md")
    assert sorted(link for link in listed if link.endswith(".mmd")) == [
        path.name for path in DIAGRAMS
    ]


def test_the_states_are_those_of_the_table() -> None:
    drawn = (ROOT / "docs/diagrams/stream-states.mmd").read_text()
    edges = set(re.findall(r"^\s*(\w+) --> (\w+)$", drawn, re.MULTILINE))
    assert edges == {
        (str(one), str(other)) for one, others in TRANSITIONS.items() for other in others
    }
