"""A worker as `cefmp4 worker` runs it, that makes only some of the planned renditions:
`python bench/hls_worker.py hevc-1080p,h264-720p`; without names, what is planned."""

import sys

from cefmp4.__main__ import main
from cefmp4.encode import hls
from cefmp4.model.rendition import CodecChoice, Picture, Rendition, ladder


def keep_only(names: frozenset[str]) -> None:
    """No setting limits a ladder, and the rows need ladders of given lengths."""

    def some(picture: Picture, choice: CodecChoice = CodecChoice.BOTH) -> tuple[Rendition, ...]:
        return tuple(rendition for rendition in ladder(picture, choice) if rendition.name in names)

    vars(hls)["ladder"] = some


if __name__ == "__main__":
    if sys.argv[1:]:
        keep_only(frozenset(sys.argv[1].split(",")))
    sys.exit(main(["worker"]))
