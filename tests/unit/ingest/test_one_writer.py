"""A stream changes in one place. Its class is frozen, so mypy finds whoever assigns a field; here
is found who makes one stream out of another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cefmp4

SOURCES = Path(cefmp4.__file__).parent
CHANGES = {"model/stream.py", "ingest/record.py"}
BUILDS = {  # streams that have no record yet, or none in this process
    "ingest/admission.py",
    "ingest/recover/bucket_search.py",
    "metadata/document.py",
    "storage/redis/records.py",
}
REPLACES_OTHERS = {
    "ingest/active_files.py",  # what is shown of a stream
    "ingest/folder.py",  # what is remembered of the watched folder
}


def _called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2]


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def _may_have_a_stream(name: str, imported: set[tuple[str, str]]) -> bool:
    rooms = ("cefmp4.model.stream", "cefmp4.ingest")
    return name.startswith(("ingest/", "model/stream")) or any(
        module.startswith(rooms) for module, _ in imported
    )


def test_who_changes_and_who_builds_a_stream() -> None:
    changing, building, sly = set(), set(), set()
    for path in SOURCES.rglob("*.py"):
        name, text = path.relative_to(SOURCES).as_posix(), path.read_text()
        tree = ast.parse(text)
        called, imported = set(_called(tree)), set(_imports(tree))
        replaces = "replace" in called and ("dataclasses", "replace") in imported
        if replaces and _may_have_a_stream(name, imported):
            changing.add(name)
        if "Stream" in called:
            building.add(name)
        if re.search(r"__setattr__\((?!self\b)", text) or ("copy", "replace") in imported:
            sly.add(name)
    assert changing - REPLACES_OTHERS <= CHANGES | BUILDS
    assert building <= BUILDS
    assert not sly
    assert changing >= CHANGES  # this test finds them
