"""Swift's rings: where data lies. One device, so the answer is always the same."""

import errno
from pathlib import Path
from typing import Any

from swift.common.ring import RingBuilder

from cefmp4.embedded.swift_config import BACKENDS, DEVICE

PART_POWER = 4  # a constant of the data on disk, as the hash suffix is


def backend_port(kind: str) -> int:
    """Rings speak of ports. Ours only name a socket file, see swift_wire."""
    return 1 + BACKENDS.index(kind)


def write_rings(folder: Path) -> None:
    """At every start: it takes milliseconds, and a ring that a crash tore is gone."""
    for kind in BACKENDS:
        builder = RingBuilder(PART_POWER, 1, 0)
        builder.add_dev(
            {
                "id": 0,
                "region": 1,
                "zone": 1,
                "ip": "127.0.0.1",
                "port": backend_port(kind),
                "device": DEVICE,
                "weight": 1,
            }
        )
        builder.rebalance(seed="cefmp4")
        _save(builder.get_ring(), folder / f"{kind}.ring.gz")


def _save(ring: Any, path: Path) -> None:
    """On a full disk the one of the last start serves: they are all the same."""
    try:
        ring.save(str(path))
    except OSError as error:
        if error.errno != errno.ENOSPC or not path.exists():
            raise
        for torn in path.parent.glob(f"{path.name}?*"):
            torn.unlink()
