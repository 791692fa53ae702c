"""No count in two series, none in a series that a scraper learns of too late."""

from cefmp4.stream_series import StreamCounter, StreamSeries


def scraped(counter: StreamCounter) -> dict[tuple[str, ...], float]:
    (family,) = counter.collect()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def counters() -> tuple[StreamCounter, StreamCounter, StreamSeries]:
    sent = StreamCounter("sent_total", "Bytes")
    failed = StreamCounter("failed_total", "Failures", label="what", values=("read", "proof"))
    return sent, failed, StreamSeries(always=(sent,), others=(failed,))


def test_each_known_value_is_there_at_0() -> None:
    sent, failed, _ = counters()
    assert scraped(sent) == {(): 0}
    assert scraped(failed) == {("read",): 0, ("proof",): 0}


def test_a_stream_counts_for_itself_once_it_was_seen_at_0() -> None:
    sent, _, streams = counters()
    scraped(sent)
    streams.begin("a")
    sent.inc(5, stream_id="a")
    assert scraped(sent) == {(): 5, ("a",): 0}
    sent.inc(7, stream_id="a")
    assert scraped(sent) == {(): 5, ("a",): 7}


def test_before_the_first_scrape_nobody_can_have_missed_anything() -> None:
    sent, _, streams = counters()
    streams.begin("a")
    sent.inc(5, stream_id="a")
    assert scraped(sent) == {(): 0, ("a",): 5}


def test_a_series_ends_with_its_stream_and_moves_nowhere() -> None:
    sent, _, streams = counters()
    streams.begin("a")
    scraped(sent)
    sent.inc(5, stream_id="a")
    streams.end("a", now=0)
    streams.sweep(StreamSeries.GRACE_S - 1)
    assert scraped(sent) == {(): 0, ("a",): 5}
    streams.sweep(StreamSeries.GRACE_S)
    assert scraped(sent) == {(): 0}


def test_what_no_scrape_saw_stays_in_the_sum() -> None:
    sent, _, streams = counters()
    streams.begin("a")
    sent.inc(5, stream_id="a")
    streams.end("a", now=0)
    streams.sweep(StreamSeries.GRACE_S)
    assert scraped(sent) == {(): 5}


def test_a_short_stream_makes_no_series() -> None:
    sent, _, streams = counters()
    scraped(sent)
    streams.begin("a")
    sent.inc(5, stream_id="a")
    streams.end("a", now=0)
    assert scraped(sent) == {(): 5}


def test_a_stream_that_comes_back_keeps_its_series() -> None:
    sent, _, streams = counters()
    streams.begin("a")
    scraped(sent)
    sent.inc(5, stream_id="a")
    streams.end("a", now=0)
    streams.begin("a")
    streams.sweep(StreamSeries.GRACE_S + 1)
    sent.inc(5, stream_id="a")
    assert scraped(sent) == {(): 0, ("a",): 10}


def test_without_series_per_stream_all_counts_in_one() -> None:
    sent, _, streams = counters()
    streams.is_per_stream = False
    streams.begin("a")
    sent.inc(5, stream_id="a")
    streams.end("a", now=0)
    assert scraped(sent) == {(): 5}
