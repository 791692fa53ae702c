"""What lies in S3 under our prefix, as a survey found it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from cefmp4.model import names
from cefmp4.model.object import ListedPart, OpenUpload, StoredObject
from cefmp4.model.part import MAX_PART_BYTES, MIN_PART_BYTES, Part, PartPlan, PartSizing
from cefmp4.model.stream import Stream

MAX_CANDIDATES = 32  # objects of the same size that are compared with one file


@dataclass(slots=True)
class BucketContents:
    """What lies under our prefix."""

    objects: dict[int, list[StoredObject]] = field(default_factory=lambda: defaultdict(list))
    uploads: list[OpenUpload] = field(default_factory=list)
    parts: dict[str, list[ListedPart]] = field(default_factory=dict)  # of uploads, once asked for
    keys: set[str] = field(default_factory=set)
    _taken: dict[str, str] = field(default_factory=dict)  # object key -> path of its file

    @property
    def is_empty(self) -> bool:
        return not self.objects and not self.uploads

    def leave_to(self, streams: Sequence[Stream]) -> None:
        """What has a record is nobody else's: a survey that a crash cut off begins again beside
        the records that it had written."""
        claimed = {stream.key: stream.relpath for stream in streams if stream.key}
        self.uploads = [upload for upload in self.uploads if upload.key not in claimed]
        self._taken |= claimed

    def objects_like(self, filename: str, size: int) -> list[StoredObject]:
        """Those of the same size, best guess first."""
        same_size = sorted(
            self.objects.get(size, ()),
            key=lambda stored: (not names.bears_name(stored.key, filename), -stored.modified_at),
        )
        return same_size[:MAX_CANDIDATES]

    def take_object(self, stored: StoredObject, relpath: str) -> bool:
        """Whether the object is this file's: files of the same bytes have one each."""
        return self._taken.setdefault(stored.key, relpath) == relpath


def infer_plan(found: Sequence[ListedPart | Part], today: PartPlan) -> PartPlan | None:
    """The plan by which these parts were cut: that of today, or one with another first size. None
    for an empty file, too, which has no parts."""
    ordered = sorted(found, key=lambda part: part.number)
    candidates = [today]
    first = ordered[0].size if ordered else 0
    if MIN_PART_BYTES <= first <= MAX_PART_BYTES:
        other = PartSizing.EQUAL if today.sizing is PartSizing.GROW else PartSizing.GROW
        candidates += [PartPlan(first, today.sizing), PartPlan(first, other)]
    for plan in candidates if ordered else ():
        full = all(plan.range_of(part.number).size == part.size for part in ordered[:-1])
        last = ordered[-1]
        if full and last.size <= plan.range_of(last.number).size:
            return plan
    return None
