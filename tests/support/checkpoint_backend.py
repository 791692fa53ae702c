"""A checkpoint store under contract, and what its test can do to it from outside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cefmp4.ports.checkpoints import CheckpointStore


@dataclass
class Backend:
    store: CheckpointStore
    expire_leases: Callable[[], Any]
    wipe: Callable[[], Any]
