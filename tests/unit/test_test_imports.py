"""Tests share what lies in tests/support/, and nothing else of each other. The bench shares nothing
with them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_test_or_conftest(module: str) -> bool:
    words = module.split(".")
    return "tests" in words[:1] and any(w.startswith("test_") or w == "conftest" for w in words)


def test_no_module_of_the_tests_imports_from_a_test() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for module in imported(path)
        if module.startswith(".") or is_test_or_conftest(module)
    ]
    assert wrong == []


def test_the_bench_imports_nothing_of_the_tests() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sorted((ROOT / "bench").rglob("*.py"))
        for module in imported(path)
        if module.split(".")[0] == "tests"
    ]
    assert wrong == []
