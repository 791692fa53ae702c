"""What a worker imports while objects are collected that import something at their end."""

import gc
import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from cefmp4.temporal.worker import without_collections

OBJECTS = 40  # that are made until the collection comes, at most


class ImportsAtItsEnd:
    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sys.modules.pop("colorsys", None)
        importlib.import_module("colorsys")


def broken_imports(around: Callable[[], AbstractContextManager[None]]) -> int:
    broken, usual = 0, gc.get_threshold()
    try:
        for objects in range(1, OBJECTS):
            gc.disable()
            gc.collect()
            ImportsAtItsEnd()
            sys.modules.pop("quopri", None)
            gc.set_threshold(objects)
            gc.enable()
            try:
                with around():
                    importlib.import_module("quopri")
            except KeyError:
                broken += 1
    finally:
        gc.set_threshold(*usual)
        gc.enable()
    return broken


def test_no_collection_breaks_an_import() -> None:
    assert broken_imports(without_collections) == 0
    assert gc.isenabled()
    if sys.version_info < (3, 12):
        assert broken_imports(nullcontext) > 0, "nothing needs it any more"
