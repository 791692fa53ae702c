"""Lines of the table: what was measured, what it must reach, and whether it does."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`limit` None is a figure that only stands beside another. All limits are upper ones."""

    row: str
    what: str
    measured: float
    unit: str
    limit: float | None = None
    against: str = ""  # what the limit comes from
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "pass" if self.measured <= self.limit else "FAIL"

    @property
    def ratio(self) -> float | None:
        return self.measured / self.limit if self.limit else None


HEADINGS = ("what", "measured", "must be", "of it", "")


def show(title: str, lines: Iterable[Line]) -> str:
    rows = [HEADINGS, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    text = [f"\n{title}"]
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        text.append("  " + "  ".join([first, *others]).rstrip())
    return "\n".join(text)


def _cells(line: Line) -> tuple[str, ...]:
    limit = "" if line.limit is None else f"<= {_number(line.limit)} {line.against}".rstrip()
    ratio = "" if line.ratio is None else f"{line.ratio:.0%}"
    ending = "  ".join(word for word in (line.verdict, line.note) if word)
    return line.what, f"{_number(line.measured)} {line.unit}", limit, ratio, ending


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def write_json(path: Path, lines: Iterable[Line], **facts: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [asdict(line) | {"ratio": line.ratio, "verdict": line.verdict} for line in lines]
    path.write_text(json.dumps({**facts, "lines": records}, indent=1) + "\n")


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 1).__int__() - 1))]
