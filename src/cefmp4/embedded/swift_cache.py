"""The memcache that Swift wants, as a dictionary: all of Swift is in this one process."""

import time
from collections.abc import Callable, Iterable
from typing import Any

_MAX_KEYS = 50_000  # bounds memory: container and account facts, about 1 KB each

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class DictCache:
    """The calls of Swift's MemcacheRing that its proxy makes. `time` is seconds to live, 0 for
    ever; other keywords are about servers that do not exist here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, **_: Any) -> Any:
        expires_at, value = self._values.get(key, (0.0, None))
        if expires_at <= self._clock():
            self._values.pop(key, None)
            return None
        return value

    def set(self, key: str, value: Any, time: float = 0, **_: Any) -> None:
        if len(self._values) >= _MAX_KEYS and key not in self._values:
            self._values.clear()  # the price is one look at the disk per key
        self._values[key] = (self._clock() + time if time else float("inf"), value)

    def incr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        value = max(0, int(self.get(key) or 0) + delta)
        self.set(key, value, time=time)
        return value

    def delete(self, key: str, **_: Any) -> None:
        self._values.pop(key, None)


def filter_factory(
    _global_conf: dict[str, str], **_local_conf: str
) -> Callable[[WsgiApp], WsgiApp]:
    """What the proxy's pipeline loads by the name of this module."""
    cache = DictCache()

    def with_cache(app: WsgiApp) -> WsgiApp:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            environ["swift.cache"] = cache
            return app(environ, start)

        return answer

    return with_cache
