"""Keeps floods out of the log: of lines of one kind some pass, the others are counted, and the
counts are said. A kind never takes from another, and a folder not all from the others."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

WINDOW_S = 60.0
LINES_A_FOLDER = 50
LINES_A_KIND = 1000  # after that only the first line of each folder
FOLDERS = 250  # further ones count as one
KINDS = 500

LEFT_OUT = "more lines of one kind were left out"
_OTHERS = "…"

log = structlog.get_logger()


@dataclass(slots=True)
class _Window:
    """What became of the lines of one kind since some moment; counts by folder."""

    level: int
    until: float
    passed: int = 0
    by_folder: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def passes(self, folder: str) -> bool:
        if folder not in self.by_folder and len(self.by_folder) >= FOLDERS:
            folder = _OTHERS
        had = self.by_folder.get(folder, 0)
        if had < LINES_A_FOLDER and (self.passed < LINES_A_KIND or had == 0):
            self.by_folder[folder] = had + 1
            self.passed += 1
            return True
        self.left_out[folder] = self.left_out.get(folder, 0) + 1
        return False


class FloodGate(logging.Filter):
    """Of a handler, so that lines of libraries pass it, too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        kind, folder = _kind_and_folder(record)
        if kind == LEFT_OUT:
            return True
        now = self._clock()
        with self._lock:
            ended = self._end_windows(now)
            passes = self._window_of(kind, record.levelno, now).passes(folder)
            if not passes:
                self._set_timer()
        _tell(ended)
        return passes

    def flush(self) -> None:
        """Says what has not been said yet."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            ended = self._end_windows(float("inf"))
        _tell(ended)

    def _window_of(self, kind: str, level: int, now: float) -> _Window:
        if kind not in self._windows and len(self._windows) >= KINDS:
            kind = _OTHERS
        return self._windows.setdefault(kind, _Window(level, now + WINDOW_S))

    def _end_windows(self, now: float) -> dict[str, _Window]:
        """Windows lie in the order in which they end."""
        ended: dict[str, _Window] = {}
        while (kind := next(iter(self._windows), None)) is not None:
            if self._windows[kind].until > now:
                break
            ended[kind] = self._windows.pop(kind)
        return ended

    def _set_timer(self) -> None:
        """For the end of a flood, after which nobody may say anything for a while."""
        if self._timer is None:
            self._timer = threading.Timer(WINDOW_S, self._on_timer)
            self._timer.daemon = True
            self._timer.start()

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = None
            ended = self._end_windows(self._clock())
            if any(window.left_out for window in self._windows.values()):
                self._set_timer()
        _tell(ended)


def _kind_and_folder(record: logging.LogRecord) -> tuple[str, str]:
    """Ours are dictionaries by now. The folder is one of the root: whoever may write in there makes
    as many below it as he likes."""
    fields: Any = record.msg
    if not isinstance(fields, dict):
        return f"{record.name}: {fields}", ""
    path = str(fields.get("file_path") or "")
    return str(fields.get("event")), path.partition("/")[0] if "/" in path else ""


def _tell(ended: dict[str, _Window]) -> None:
    for kind, window in ended.items():
        if not window.left_out:
            continue
        folder = max(window.left_out, key=window.left_out.__getitem__)
        log.log(
            window.level,
            LEFT_OUT,
            kind=kind,
            count=sum(window.left_out.values()),
            seconds=WINDOW_S,
            **({"most_in": folder} if folder else {}),
        )
