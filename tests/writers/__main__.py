"""`python -m tests.writers NAME OUTPUT SECONDS SPEED`; without arguments it lists the names."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.writers.recording import CACHE_VARIABLE, Recording
from tests.writers.registry import WRITERS


def main(words: list[str]) -> int:
    if len(words) != 4 or words[0] not in WRITERS:
        for writer in WRITERS.values():
            sys.stdout.write(f"{writer.name:26} {writer.about}\n")
        return 0 if not words else 2
    name, output, seconds, speed = words
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path(tempfile.gettempdir(), "cefmp4-writers"))
    cache.mkdir(parents=True, exist_ok=True)
    recording = Recording(Path(output), float(seconds), float(speed), cache)
    try:
        WRITERS[name].write(recording)
    finally:
        if "outside" in vars(recording):
            shutil.rmtree(recording.outside)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
