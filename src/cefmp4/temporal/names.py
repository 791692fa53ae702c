"""What workflows, steps and queues are called in the engine."""

from cefmp4.model.job import JobKind, Step

STANDING = "standing"  # in the memo of a job, beside its spec
SPEC = "spec"
LIVES = "lives"  # a signal, by a worker that was cut off
WORKFLOWS = {JobKind.HLS: "hls-1", JobKind.CALLBACK: "callback-1"}


def activity_of(kind: JobKind, step: Step) -> str:
    return f"{kind}.{step}"


def flow_queue(kind: JobKind) -> str:
    return f"cefmp4-{kind}"


def queue_of(kind: JobKind, step: Step) -> str:
    """Encodes wait for a slot; nothing else waits behind them."""
    return f"cefmp4-{kind}-{'encode' if step is Step.ENCODE else 'look'}"


def step_queues(kind: JobKind) -> list[str]:
    return [queue_of(kind, Step.LOOK), queue_of(kind, Step.ENCODE)]
