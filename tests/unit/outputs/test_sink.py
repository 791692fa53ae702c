"""The sink waits for a store that is away, and takes back what it put."""

import pytest
from tests.support.fake_store import FakeObjectStore

from cefmp4 import retry
from cefmp4.errors import AccessDeniedError, ServerUnreachableError, ThrottledError
from cefmp4.outputs import sink as sink_module
from cefmp4.outputs.sink import SegmentSink


def sink_of(store: FakeObjectStore) -> SegmentSink:
    return SegmentSink(store, stream_id="s1", bucket="b", attempt="a1")


async def test_a_store_that_is_away_for_a_while_costs_nothing() -> None:
    store = FakeObjectStore()
    store.fail("put_object", ServerUnreachableError(), times=3)
    store.fail("put_object", ThrottledError(retry_after_s=0.1))
    with retry.no_waiting():
        await sink_of(store).put("x.a1/seg", b"data")
    assert store.data("hls/s1/x.a1/seg") == b"data"


async def test_a_store_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "PATIENCE_S", 0.0)
    store = FakeObjectStore()
    store.fail("put_object", ServerUnreachableError("away"), times=3)
    with retry.no_waiting(), pytest.raises(ServerUnreachableError, match="away"):
        await sink_of(store).put("x.a1/seg", b"data")


async def test_a_refusal_is_no_matter_of_time() -> None:
    store = FakeObjectStore()
    store.fail("put_object", AccessDeniedError())
    sink = sink_of(store)
    with pytest.raises(AccessDeniedError):
        await sink.put("x.a1/seg", b"data")
    assert store.keys == []


async def test_it_takes_back_its_own() -> None:
    store = FakeObjectStore()
    other = SegmentSink(store, stream_id="s1", bucket="b", attempt="a2")
    await other.put(f"{other.folder('x')}/seg", b"others")
    sink = sink_of(store)
    for name in ("x", "y"):
        await sink.put(f"{sink.folder(name)}/seg", b"data")
    assert len(store.keys) == 3
    await sink.remove_folder(sink.folder("y"))
    assert store.keys == ["hls/s1/x.a1/seg", "hls/s1/x.a2/seg"]
    await sink.remove_own()
    assert store.keys == ["hls/s1/x.a2/seg"]


async def test_what_was_stored_without_an_answer_is_taken_back_too() -> None:
    store = FakeObjectStore()
    store.lose_answer("put_object", AccessDeniedError())
    sink = sink_of(store)
    with pytest.raises(AccessDeniedError):
        await sink.put("x.a1/seg", b"data")
    assert store.keys
    await sink.remove_own()
    assert not store.keys
