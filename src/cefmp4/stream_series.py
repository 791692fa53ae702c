"""Counters of which each living stream has a series of its own, without any count in two of them.

A scraper learns of a counter only what it grows by between two looks at it. So a series of a stream
begins at 0, and takes counts once a scrape has shown it there. What comes earlier is counted in the
series without a stream, which is there from the start. Every count is in one series that was known
before it grew: a sum is the sum, and a sum of rates is the rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

STREAM_ID = "stream_id"


@dataclass(slots=True)
class _Series:
    value: float = 0.0
    is_known: bool = False  # a scrape has shown it


class StreamCounter(Collector):
    """`label` has one of `values`, each of which is there from the start; "" for no label."""

    def __init__(
        self, name: str, about: str, *, label: str = "", values: Iterable[str] = ("",)
    ) -> None:
        self.name = name
        self.about = about
        self.label = label
        self._shared = dict.fromkeys(values, 0.0)
        self._of_streams: dict[str, dict[str, _Series]] = {}
        self._was_scraped = False

    def __repr__(self) -> str:
        return f"<StreamCounter {self.name} streams={len(self._of_streams)}>"

    def begin(self, stream_id: str, value: str = "") -> None:
        self._of_streams.setdefault(stream_id, {}).setdefault(value, _Series())

    def inc(self, amount: float = 1.0, *, value: str = "", stream_id: str = "") -> None:
        series = self._of_streams.get(stream_id, {}).get(value)
        # Before the first scrape there is nothing that anybody could have missed.
        if series is not None and (series.is_known or not self._was_scraped):
            series.value += amount
        else:
            self._shared[value] = self._shared.get(value, 0.0) + amount

    def end(self, stream_id: str) -> None:
        """The stream counts no more. A series that nobody saw need not wait to be seen again."""
        for value, series in list(self._of_streams.get(stream_id, {}).items()):
            if self._was_scraped and not series.is_known:
                self._leave(stream_id, value)

    def remove(self, stream_id: str) -> None:
        for value in list(self._of_streams.get(stream_id, {})):
            self._leave(stream_id, value)

    def _leave(self, stream_id: str, value: str) -> None:
        series = self._of_streams[stream_id].pop(value)
        if not series.is_known:
            self._shared[value] = self._shared.get(value, 0.0) + series.value
        if not self._of_streams[stream_id]:
            del self._of_streams[stream_id]

    # What the registry asks for.

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for value, count in self._shared.items():
            family.add_sample(self.name, self._named(value), count)
        for stream_id, of_stream in self._of_streams.items():
            for value, series in of_stream.items():
                series.is_known = True
                labels = {**self._named(value), STREAM_ID: stream_id}
                family.add_sample(self.name, labels, series.value)
        self._was_scraped = True
        yield family

    def _family(self) -> Metric:
        return Metric(self.name.removesuffix("_total"), self.about, "counter")

    def _named(self, value: str) -> dict[str, str]:
        return {self.label: value} if self.label else {}


class StreamSeries:
    """Which streams have series of their own, and until when: a scrape must see their end. Each
    stream has one of `always` from its beginning, and one of `others` once there is a cause."""

    GRACE_S = 120.0

    def __init__(self, *, always: Iterable[StreamCounter], others: Iterable[StreamCounter]) -> None:
        self.is_per_stream = True
        self._always = tuple(always)
        self._counters = (*self._always, *others)
        self._living: set[str] = set()
        self._ended: dict[str, float] = {}  # in the order of their ends

    def begin(self, stream_id: str) -> None:
        if not self.is_per_stream:
            return
        self._living.add(stream_id)
        self._ended.pop(stream_id, None)  # it goes on after all
        for counter in self._always:
            counter.begin(stream_id)

    def lives(self, stream_id: str) -> bool:
        return stream_id in self._living

    def end(self, stream_id: str, now: float) -> None:
        if stream_id in self._living:
            self._living.remove(stream_id)
            self._ended[stream_id] = now
            for counter in self._counters:
                counter.end(stream_id)

    def sweep(self, now: float) -> None:
        for stream_id, ended in list(self._ended.items()):
            if now - ended < self.GRACE_S:
                return
            del self._ended[stream_id]
            for counter in self._counters:
                counter.remove(stream_id)
