"""What an operator may do to a stream, from the command line or over HTTP."""

from cefmp4.errors import LeaseLostError, RefusedError, UnknownStreamError
from cefmp4.model.stream import Stream
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore


async def find_stream(checkpoints: CheckpointStore, stream_id: str) -> Stream:
    stream = await checkpoints.load_stream(stream_id)
    if stream is None:
        raise UnknownStreamError(f"there is no stream {stream_id!a}")
    return stream


async def find_view(checkpoints: CheckpointStore, stream_id: str) -> StreamView | None:
    stream = await checkpoints.load_stream(stream_id)
    return view_of_record(stream) if stream else None


async def retry_stream(checkpoints: CheckpointStore, stream_id: str) -> None:
    """The failed stream is forgotten, and every instance told: its file counts as new."""
    stream = await find_stream(checkpoints, stream_id)
    if not stream.has_failed:
        raise RefusedError(
            f"stream {stream_id} is {stream.state}: only a failed one can be retried"
        )
    await _forget(checkpoints, stream)
    await checkpoints.request("retry", stream_id)


async def forget_stream(checkpoints: CheckpointStore, stream_id: str) -> None:
    await _forget(checkpoints, await find_stream(checkpoints, stream_id))
    await checkpoints.request("forget", stream_id)


async def _forget(checkpoints: CheckpointStore, stream: Stream) -> None:
    try:
        await checkpoints.forget(stream)
    except LeaseLostError:
        raise RefusedError(
            f"stream {stream.id} is being worked on by a running instance",
            hint="stop that instance, or wait until the stream has ended",
        ) from None
