"""When a path is looked at again."""

from cefmp4.ingest.comebacks import COMEBACK, Comebacks


def test_one_is_due_until_it_began_and_then_waits_for_its_next_failure() -> None:
    comebacks = Comebacks()
    comebacks.put("r.mp4", 100.0, is_growing=False, pause_s=5.0)
    assert comebacks.due(104.9) == []
    assert comebacks.due(105.0) == comebacks.due(105.0) == [("r.mp4", False)]
    comebacks.began("r.mp4")
    assert comebacks.due(1e9) == []
    assert "r.mp4" in comebacks
    comebacks.discard("r.mp4")
    assert "r.mp4" not in comebacks


def test_who_fails_again_and_again_comes_later_and_no_later_than_the_cap() -> None:
    comebacks, now = Comebacks(), 0.0
    for _ in range(20):
        comebacks.put("r.mp4", now, is_growing=True)
        assert comebacks.due(now + COMEBACK.cap_s * 2)
        comebacks.began("r.mp4")
    comebacks.put("r.mp4", now, is_growing=True)
    assert not comebacks.due(now + COMEBACK.first_s / 4)
