from dataclasses import replace

from cefmp4.model.job import JobInput, JobKind, JobSpec, input_of_stream, subject_of
from cefmp4.model.stream import FileStamp, Stream


def test_the_id_says_which_content_and_which_kind() -> None:
    source = JobInput(bucket="b", key="k")
    spec = JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source)
    assert spec.id == JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source).id
    assert replace(spec, kind=JobKind.ANALYSIS).id != spec.id
    assert subject_of(replace(source, etag="other")) != subject_of(source)
    assert subject_of(JobInput(path="/\udcff", mtime_ns=1)) != subject_of(JobInput(path="/\udcff"))


def test_the_input_of_a_stream_is_its_object_and_its_proven_file() -> None:
    stamp = FileStamp(inode=1, size=2, mtime_ns=3, ctime_ns=4)
    stream = Stream(
        id="s", relpath="a/b.mp4", part_base=1, key="k", etag="e", size=2, stamp=stamp, crc64=5
    )
    assert input_of_stream(stream, bucket="b", folder="/in") == JobInput(
        bucket="b",
        key="k",
        path="/in/a/b.mp4",
        size=2,
        etag="e",
        crc64=5,
        inode=1,
        mtime_ns=3,
        ctime_ns=4,
    )
    assert input_of_stream(replace(stream, stamp=None), bucket="b", folder="/in").path == ""
