"""What is to be done about a message of the queue. Events tell of every object: of what we make
ourselves, and of recordings, whose jobs the hand-over begins."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import AccessDeniedError, PermanentError
from cefmp4.jobs.sources.asked import NotAJobError
from cefmp4.jobs.sources.s3_events import AskedJob, NewObject, read_message
from cefmp4.jobs.sources.sqs_queue import Message
from cefmp4.model import names
from cefmp4.ports.sources import Offer
from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.connect import connect, s3_config
from cefmp4.storage.s3.errors import KeyMissingError
from cefmp4.watch.selection import Selection

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReader:
    """What is to be done about a message. Events tell of every object, ours too."""

    selection: Selection
    is_recording: Callable[[NewObject], Awaitable[bool]]  # whose jobs come from the hand-over

    async def offer(self, message: Message) -> Offer:
        try:
            said = read_message(message.body)
        except NotAJobError as error:
            return Offer(ref=message.id, fault=str(error))
        if isinstance(said, AskedJob):
            return Offer(ref=f"id {said.id}" if said.id else message.id, jobs=(said.fields,))
        wanted = [one for one in said if await self._is_wanted(one)]
        ref = wanted[0].id if len(said) == 1 and wanted else ""
        return Offer(ref=ref or message.id, jobs=tuple(one.fields for one in wanted))

    async def _is_wanted(self, found: NewObject) -> bool:
        why_not = ""
        if names.is_own_key(found.key):
            why_not = "we made it"
        elif not self.selection.wants(found.key.rpartition("/")[2]):
            why_not = "WATCH_FILTER_GLOBS"
        elif await self.is_recording(found):
            why_not = "a recording, whose jobs are handed over"
        if why_not:
            log.debug("no job of a new object", bucket=found.bucket, key=found.key, reason=why_not)
        return not why_not


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[MessageReader]:
    # The watched folder has paths, which keys have not: the last part of a pattern counts.
    last_parts = tuple(one.rpartition("/")[2] for one in settings.watch_filter_globs)
    selection = Selection(last_parts)
    if not settings.handed_over:
        yield MessageReader(selection=selection, is_recording=_is_none)
        return
    async with connect(s3_config(settings, settings.s3_bucket_name)) as (calls, _):
        yield MessageReader(selection=selection, is_recording=Recordings(calls))


async def _is_none(_found: NewObject) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Recordings:
    calls: S3Calls

    async def __call__(self, found: NewObject) -> bool:
        """By the mark that it was stored with. An object that is gone is none."""
        if found.bucket != self.calls.bucket:
            return False
        try:
            reply = await self.calls.call("HeadObject", Key=found.key)
        except KeyMissingError:
            return False
        except PermanentError as error:
            is_refused = isinstance(error, AccessDeniedError) and not error.is_stranger
            if type(error) is not PermanentError and not is_refused:
                raise  # nothing works until somebody heals it
            # AWS says that, too, of an object that is gone, to who may not list: its job will tell.
            log.warning("cannot see whether an object is a recording", reason=str(error))
            return False
        return any(name.lower() == names.META_STREAM_ID for name in reply.get("Metadata", {}))
