"""Tests of cefmp4.embedded.swift_cache."""

from typing import Any

from cefmp4.embedded.swift_cache import DictCache, filter_factory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_value_lives_until_its_time() -> None:
    clock = Clock()
    cache = DictCache(clock)
    cache.set("account", {"count": 1}, time=60)
    assert cache.get("account", raise_on_error=True) == {"count": 1}
    clock.now += 60
    assert cache.get("account") is None


def test_a_value_without_time_stays() -> None:
    clock = Clock()
    cache = DictCache(clock)
    cache.set("a", 1)
    clock.now += 1e9
    assert cache.get("a") == 1
    cache.delete("a")
    cache.delete("a")
    assert cache.get("a") is None


def test_counts_never_below_zero() -> None:
    cache = DictCache()
    assert cache.incr("n") == 1
    assert cache.incr("n", delta=4) == 5
    assert cache.incr("n", delta=-9) == 0


def test_memory_is_bounded() -> None:
    cache = DictCache()
    for number in range(50_001):
        cache.set(str(number), number)
    assert cache.get("0") is None
    assert cache.get("50000") == 50_000


def test_the_filter_puts_one_cache_into_every_request() -> None:
    seen: list[object] = []

    def app(environ: dict[str, Any], _start: object) -> list[bytes]:
        seen.append(environ["swift.cache"])
        return []

    filtered = filter_factory({})(app)
    for _ in range(2):
        filtered({}, lambda *_: None)
    assert seen[0] is seen[1]
