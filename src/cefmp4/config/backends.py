"""Sources and stores that other packages bring: they are found by the entry points that those
declare, see docs/add-a-backend.md."""

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

SOURCES, RESULTS = "cefmp4.sources", "cefmp4.results"


def backend_of(group: str, name: str) -> EntryPoint | None:
    """What an installed package brings under that name."""
    return next(iter(entry_points(group=group, name=name)), None)


def check_known(name: str, ours: Collection[str], group: str) -> None:
    """Raises ValueError for what is neither ours nor installed."""
    if name not in ours and backend_of(group, name) is None:
        installed = sorted(entry.name for entry in entry_points(group=group))
        raise ValueError(f"allowed are {', '.join((*ours, *installed))}")
