"""What the rules are asked about a file, with values that a test changes one by one."""

from cefmp4.ingest.rules import Facts, WaitingTimes
from cefmp4.recording.write_guard import WriteGuardState

TIMES = WaitingTimes(settle=2.0, unknown_writer=10.0, idle=30.0)


def facts(**changes: object) -> Facts:
    values: dict[str, object] = {
        "size": 100,
        "sent_high": 0,
        "quiet_s": 0.0,
        "in_place": True,
        "writer": WriteGuardState.FREE,
        "saw_close": False,
        **changes,
    }
    return Facts(**values)  # type: ignore[arg-type]
