"""A job: work on a proven object, from hand-over to its one accepted result."""

import hashlib
import os
import posixpath
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from cefmp4.model.stream import FileStamp, Stream

MAX_PRIORITY = 100  # jobs of a higher priority start first; 0 is what hand-over uses
MAX_ERROR_CHARS = 2000


class JobKind(StrEnum):
    HLS = "hls"
    ANALYSIS = "analysis"
    CALLBACK = "callback"  # tells of a stored recording; nobody asks for it


# What workers know how to do. Another kind is refused where it is asked for: it would never end.
OFFERED_KINDS = (JobKind.HLS,)


# In `tells` of a job: whoever listens at WEBHOOK_URL.
CALLBACK = "callback"


def offered_kind(asked: object) -> JobKind | None:
    return next((kind for kind in OFFERED_KINDS if kind == asked), None)


class SlotKind(StrEnum):
    GPU = "gpu"
    CPU = "cpu"


class Step(StrEnum):
    """What a job is made of, in its order."""

    LOOK = "look"  # is it made already, can it be copied? Then it is copied
    ENCODE = "encode"  # with a slot
    PUBLISH = "publish"
    DISCARD = "discard"  # only where it fails
    REPORT = "report"  # only where somebody is to be told of the end


class JobState(StrEnum):
    QUEUED = "queued"  # waits for a worker, or for the end of its back-off
    IN_PROGRESS = "in_progress"  # one attempt runs
    COMPLETE = "complete"  # its one result is accepted
    FAILED = "failed"  # `reason` says why


class FailReason(StrEnum):
    ERROR = "error"  # trying again cannot help
    CANCELLED = "cancelled"
    DEAD_LETTER = "dead_letter"  # every attempt is used up


FINAL_STATES = frozenset({JobState.COMPLETE, JobState.FAILED})
# For people: what goes on, then what waits, then what needs them.
MOST_TELLING_FIRST = (
    JobState.IN_PROGRESS,
    JobState.QUEUED,
    JobState.FAILED,
    JobState.COMPLETE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What the job works on: an object, and the local file it was made of where there is one.
    `inode` to `device` say which file, and which content of it, as in a FileStamp."""

    bucket: str = ""
    key: str = ""
    path: str = ""
    size: int = 0
    etag: str = ""
    crc64: int = 0
    inode: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    birth_ns: int = 0  # 0: not known
    device: int = 0

    @property
    def stamp(self) -> FileStamp:
        return FileStamp(
            self.inode, self.size, self.mtime_ns, self.ctime_ns, self.birth_ns, self.device
        )

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else self.path


def input_of_file(path: str, facts: os.stat_result) -> JobInput:
    return JobInput(
        path=path,
        size=facts.st_size,
        inode=facts.st_ino,
        mtime_ns=facts.st_mtime_ns,
        ctime_ns=facts.st_ctime_ns,
    )


def input_of_stream(stream: Stream, *, bucket: str, folder: str) -> JobInput:
    """`folder`: the watched one. A stream whose object is proven."""
    stamp = stream.stamp
    return JobInput(
        bucket=bucket,
        key=stream.key,
        path=f"{folder}/{stream.relpath}" if stamp else "",
        size=stream.size,
        etag=stream.etag,
        crc64=stream.crc64,
        inode=stamp.inode if stamp else 0,
        mtime_ns=stamp.mtime_ns if stamp else 0,
        ctime_ns=stamp.ctime_ns if stamp else 0,
        birth_ns=stamp.birth_ns if stamp else 0,
        device=stamp.device if stamp else 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What is asked for. `subject` names the input and its outputs: a stream id, or what
    `subject_of` makes of an object or file that no stream stands for."""

    subject: str
    kind: JobKind
    input: JobInput
    params: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int = 3
    folder: str = ""  # where it comes from; folders get their turns
    source: str = ""  # who offered it; nobody: it is of a recording of ours, or of a command
    tells: tuple[str, ...] = ()  # who is told of its end
    ref: str = ""  # by which its source knows it

    @property
    def id(self) -> str:
        """Derived, so that submitting the same again is harmless."""
        return job_id_of(self.subject, self.kind)


def spec_of_stream(
    stream: Stream,
    *,
    kind: JobKind,
    bucket: str,
    watch_dir: str,
    max_attempts: int,
    priority: int = 0,
    params: dict[str, str] | None = None,
) -> JobSpec:
    """A stream whose object is proven. Its folder gets its turns."""
    return JobSpec(
        subject=stream.id,
        kind=kind,
        input=input_of_stream(stream, bucket=bucket, folder=watch_dir),
        params=params or {},
        priority=priority,
        max_attempts=max_attempts,
        folder=posixpath.dirname(stream.relpath),
    )


def job_id_of(subject: str, kind: JobKind) -> str:
    return f"{subject}-{kind}"


def subject_of(source: JobInput) -> str:
    """Names one content: another object under the same key is another subject."""
    facts = (source.name, source.etag, source.size, source.inode, source.mtime_ns)
    return "x" + hashlib.sha256(repr(facts).encode("utf-8", "replace")).hexdigest()[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended, for whoever asked for it."""

    spec: JobSpec
    state: JobState
    at: float = 0.0
    reason: FailReason | None = None
    error: str = ""
    attempts: int = 0
    result: dict[str, Any] | None = None  # the summary; rows and media lie in the stores

    @property
    def is_complete(self) -> bool:
        return self.state is JobState.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    percent: float = 0.0
    speed: float = 0.0  # seconds of media per second
    fps: float = 0.0
    eta_seconds: float | None = None
    step: str = ""  # what it does right now, for people
    slot: SlotKind | None = None  # that it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the engine told of it."""

    spec: JobSpec
    state: JobState
    reason: FailReason | None = None
    error: str = ""
    attempts: int = 0  # begun and not given back
    attempt_names: tuple[str, ...] = ()  # of every attempt that may have left something behind
    step: Step = Step.LOOK
    owner: str = ""
    is_cancel_requested: bool = False
    is_telling: bool = False  # it has ended, and somebody is still to be told
    accepted: str = ""  # the attempt whose result stands; what is left is to publish it
    result: dict[str, Any] | None = None
    progress: JobProgress | None = None
    submitted_at: float = 0.0
    due_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    updated_at: float = 0.0

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state} step={self.step} attempts={self.attempts}>"

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def kind(self) -> JobKind:
        return self.spec.kind

    @property
    def slot(self) -> str:
        return str(self.progress.slot or "") if self.progress else ""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def is_complete(self) -> bool:
        return self.state is JobState.COMPLETE

    @property
    def is_queued(self) -> bool:
        return self.state is JobState.QUEUED

    @property
    def is_running(self) -> bool:
        return self.state is JobState.IN_PROGRESS

    @property
    def has_failed(self) -> bool:
        return self.state is JobState.FAILED

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        progress = self.progress
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "reason": self.reason,
            "error": self.error,
            "subject": self.spec.subject,
            "input": self.spec.input.name,
            "source": self.spec.source,
            "priority": self.spec.priority,
            "attempts": self.attempts,
            "max_attempts": self.spec.max_attempts,
            "owner": self.owner.split("|", 1)[0],
            "step": self.step,
            "slot": self.slot,
            "cancel_requested": self.is_cancel_requested,
            "telling": self.is_telling,
            "progress": (
                {item.name: getattr(progress, item.name) for item in fields(progress)}
                if progress
                else None
            ),
            "result": self.result,
            "submitted_at": self.submitted_at,
            "due_at": self.due_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "updated_at": self.updated_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """Of one kind. `oldest_seconds`: how long the longest waiting job could have been running."""

    queued: int = 0
    waiting: int = 0  # backing off
    oldest_seconds: float = 0.0
    workers: int = 0  # that take such jobs now

    @property
    def depth(self) -> int:
        return self.queued + self.waiting
