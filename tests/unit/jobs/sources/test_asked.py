import pytest

from cefmp4.jobs.sources.asked import AskedJobs, NotAJobError, subject_of_ref
from cefmp4.model.job import JobInput, JobKind
from cefmp4.model.names import is_subject

ASKED = AskedJobs(bucket="recordings", max_attempts=3)


def test_the_least_that_can_be_asked() -> None:
    spec = ASKED.spec({"key": "a/b.mp4"})
    assert spec.input == JobInput(bucket="recordings", key="a/b.mp4")
    assert (spec.kind, spec.priority, spec.folder, spec.tells) == (JobKind.HLS, 0, "a", ())
    assert is_subject(spec.subject)


def test_the_same_object_is_the_same_job_and_another_is_not() -> None:
    one, again, other = (ASKED.spec({"key": key}).id for key in ("a.mp4", "a.mp4", "b.mp4"))
    assert one == again != other


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "key"),
        ({"key": ""}, "key"),
        ({"key": None}, "key"),
        ({"key": 7}, "key"),
        ({"key": "a" * 1025}, "1024 bytes"),
        ({"key": "\ud800"}, "key"),
        ({"key": "a", "bucket": "../b"}, "bucket"),
        ({"key": "a", "bucket": ["b"]}, "bucket"),
        ({"key": "a", "kind": "dance"}, "kind must be hls"),
        ({"key": "a", "kind": {"a": 1}}, "kind"),
        ({"key": "a", "priority": 101}, "-100 to 100"),
        ({"key": "a", "priority": "high"}, "priority"),
        ({"key": "a", "priority": True}, "priority"),
        ({"key": "a", "id": "x" * 257}, "256"),
        ({"key": "a", "id": 5}, "id"),
    ],
    ids=str,
)
def test_what_is_no_job_is_told_why(asked: dict[str, object], says: str) -> None:
    with pytest.raises(NotAJobError, match=says):
        ASKED.spec(asked)


def test_no_source_can_take_the_place_of_anothers_jobs() -> None:
    refs = {subject_of_ref("postgres/a", "1"), subject_of_ref("postgres/b", "1")}
    refs |= {subject_of_ref("postgres/a", "1\n1"), subject_of_ref("postgres/a\n1", "1")}
    assert len(refs) == 4
    assert all(map(is_subject, refs))
