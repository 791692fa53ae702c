"""What the store tells of the bytes of an object, and whether a local file has them."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cefmp4.model.object import StoredObject
from cefmp4.model.part import PartRange, plan_noted_in
from cefmp4.recording.digests import crc_and_md5, holds_crc, multipart_etag

_MD5 = re.compile(r"[0-9a-f]{32}")
_MD5_OF_MD5S = re.compile(r"[0-9a-f]{32}-(\d{1,5})")


class Known(StrEnum):
    """The strongest thing that is told."""

    CRC64 = "crc64nvme"
    MD5 = "md5"
    SIZE = "size"  # which is no proof


@dataclass(frozen=True, slots=True)
class Check:
    """`cuts`: the parts of an object whose ETag is made of theirs."""

    stored: StoredObject
    by: Known
    cuts: tuple[PartRange, ...] = ()

    def holds(self, fd: int, is_stopped: Callable[[], bool]) -> bool:
        """Reads all of the file, unless it is stopped. Blocking; raises OSError."""
        stored = self.stored
        if os.fstat(fd).st_size != stored.size:
            return False
        if self.by is Known.SIZE:
            return True
        if self.by is Known.MD5:
            return self._etag_of(fd, is_stopped) == stored.etag
        crc64 = stored.crc64
        return crc64 is not None and holds_crc(fd, 0, stored.size, crc64, is_stopped=is_stopped)

    def _etag_of(self, fd: int, is_stopped: Callable[[], bool]) -> str:
        """ "" where the file became shorter meanwhile."""
        etags = []
        for cut in self.cuts or [PartRange(1, 0, self.stored.size)]:
            found = crc_and_md5(fd, cut.start, cut.end, is_stopped=is_stopped)
            if found is None:
                return ""
            etags.append(found[1])
        return multipart_etag(etags) if self.cuts else etags[0]


def check_of(stored: StoredObject, *, etag_is_md5: bool) -> Check:
    """`etag_is_md5`: of this store, as far as it was seen."""
    if stored.crc64 is not None:
        return Check(stored, Known.CRC64)
    if etag_is_md5 and stored.may_have_md5:
        if _MD5.fullmatch(stored.etag):
            return Check(stored, Known.MD5)
        if cuts := _cuts_of(stored):
            return Check(stored, Known.MD5, cuts)
    return Check(stored, Known.SIZE)


def _cuts_of(stored: StoredObject) -> tuple[PartRange, ...]:
    """Empty where it is not known how it was cut."""
    of_parts, plan = _MD5_OF_MD5S.fullmatch(stored.etag), plan_noted_in(stored.metadata)
    if of_parts is None or plan is None or stored.size > plan.capacity:
        return ()
    cuts = plan.ranges_for(stored.size)
    return tuple(cuts) if len(cuts) == int(of_parts[1]) else ()
