"""What is learnt about the writers of a folder: how far behind them parts are safe to send."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from cefmp4.model.part import MIB

MIN_LAG = 4 * MIB
MAX_LAG = 256 * MIB
REWRITER_SHARE = 0.5  # more parts changed at close than this: the writer rewrites its whole file
REMEMBERED = 1000  # folders, those that taught something last; they are made without end
PROBATION = 10  # files that wait for their close before the writer gets another chance


@dataclass(slots=True)
class WriterProfile:
    lag: int = MIN_LAG
    waits: int = 0  # how many more files wait for their writer's close


class WriterProfiles:
    """Keyed by folder and suffix: one camera's folder holds one writer's files."""

    def __init__(self) -> None:
        self._writer_profiles: dict[str, WriterProfile] = {}

    def lag_for(self, relpath: str) -> int:
        return self._of(relpath).lag

    def waits_for_close(self, relpath: str) -> bool:
        return self._of(relpath).waits > 0

    def learn(self, relpath: str, *, sent_early: int, changed: int, head_changed: bool) -> None:
        """Called once a stream is proven."""
        key = _key(relpath)
        profile = self._writer_profiles.pop(key, WriterProfile())
        if sent_early == 0:
            profile.waits = max(0, profile.waits - 1)
        elif changed > REWRITER_SHARE * sent_early and sent_early >= 2:
            profile.waits = PROBATION
        elif changed > (1 if head_changed else 0):
            profile.lag = min(profile.lag * 2, MAX_LAG)
        if profile != WriterProfile():
            self._writer_profiles[key] = profile
            while len(self._writer_profiles) > REMEMBERED:
                del self._writer_profiles[next(iter(self._writer_profiles))]

    def _of(self, relpath: str) -> WriterProfile:
        return self._writer_profiles.get(_key(relpath), WriterProfile())

    def to_json(self) -> str:
        return json.dumps({key: asdict(profile) for key, profile in self._writer_profiles.items()})

    def load_json(self, text: str) -> None:
        """What was learnt before a restart. It is a hint: what cannot be read is not kept."""
        try:
            stored = json.loads(text)
            self._writer_profiles = {
                str(key): WriterProfile(lag=int(profile["lag"]), waits=int(profile["waits"]))
                for key, profile in stored.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            self._writer_profiles = {}


def _key(relpath: str) -> str:
    path = PurePosixPath(relpath)
    return f"{path.parent}|{path.suffix.lower()}"
