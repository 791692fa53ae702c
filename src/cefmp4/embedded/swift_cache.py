"""The memcache that Swift wants, as a dictionary: all of Swift is in this one process."""

import time
from collections.abc import Callable, Iterable, Mapping
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

    def decr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        return self.incr(key, -delta, time=time)

    def delete(self, key: str, **_: Any) -> None:
        self._values.pop(key, None)

    def set_multi(
        self, mapping: Mapping[str, Any], _server_key: str, time: float = 0, **_: Any
    ) -> None:
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys: Iterable[str], _server_key: str, **_: Any) -> list[Any]:
        return [self.get(key) for key in keys]


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[WsgiApp], Any]:
    """What the proxy's pipeline loads by the name of this module."""
    cache = DictCache()

    class InProcessCache:
        def __init__(self, app: WsgiApp) -> None:
            self._app = app

        def __call__(
            self, environ: dict[str, Any], start_response: Callable[..., Any]
        ) -> Iterable[bytes]:
            environ["swift.cache"] = cache
            return self._app(environ, start_response)

    return InProcessCache
