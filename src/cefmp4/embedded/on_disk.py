"""Small files that a server needs at each start, also at one on a full disk."""

from pathlib import Path


def keep_text(path: Path, text: str) -> None:
    """Written only where it says something else: opening it to write would empty it first."""
    try:
        if path.read_text() == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # made anew
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)
