"""S3 refuses, stalls, resets, loses answers, lies and forgets."""

import asyncio
from functools import partial

from tests.faults import s3_faults as faults
from tests.faults.registry import scenario
from tests.faults.rotation import Rotation
from tests.faults.s3_proxy import Exchange, Fault
from tests.faults.world import MIB, World

_OFTEN = 6
_ROTATED_AGAIN = 5


async def _suffer(
    world: World, *, fault: Fault, operation: str, times: int = 2, skip: int = 0, files: int = 2
) -> None:
    """Recorders write while some requests go wrong."""
    await world.ingest()
    rule = world.s3.add(fault, operation, times=times, skip=skip)
    await world.write_mixed(files)
    await world.s3.broken(rule)


def _plant(
    name: str,
    fault: Fault,
    operation: str,
    *,
    times: int = 2,
    skip: int = 0,
    short: bool = False,
) -> None:
    run = partial(_suffer, fault=fault, operation=operation, times=times, skip=skip)
    scenario("s3", name=name, short=short)(run)


_plant("part-500", faults.refused(500, "InternalError"), "UploadPart", times=_OFTEN)
_plant("part-503-slowdown", faults.refused(503, "SlowDown", retry_after_s=1), "UploadPart", times=3)
_plant("part-reset", faults.reset_in_the_middle, "UploadPart", times=3)
_plant("part-answer-lost", faults.answer_lost, "UploadPart", times=3, short=True)
_plant("part-request-truncated", faults.request_truncated, "UploadPart", times=3)
_plant("part-bytes-flipped", faults.bytes_flipped, "UploadPart", times=2, short=True)
_plant("part-swallowed", faults.swallowed, "UploadPart", times=1, short=True)
_plant("part-stalled", faults.stalled(4), "UploadPart", times=2)
_plant("part-wrong-etag", faults.wrong_etag, "UploadPart", times=1, short=True)
_plant("part-never-answered", faults.never_answered, "UploadPart", times=1)
_plant("part-507-no-space", faults.refused(507, "XMinioStorageFull"), "UploadPart", times=_OFTEN)
_plant("begin-answer-lost", faults.answer_lost, "CreateMultipartUpload", times=1, short=True)
_plant("begin-503", faults.refused(503, "SlowDown"), "CreateMultipartUpload", times=_OFTEN)
_plant("complete-answer-lost", faults.answer_lost, "CompleteMultipartUpload", short=True)
_plant("complete-500", faults.refused(500, "InternalError"), "CompleteMultipartUpload", times=5)
_plant("complete-reset", faults.reset_in_the_middle, "CompleteMultipartUpload", times=2)
_plant("head-500", faults.refused(500, "InternalError"), "HeadObject", times=3)
_plant("metadata-answer-lost", faults.answer_lost, "PutObject", times=2)
_plant("metadata-refused", faults.refused(403, "AccessDenied"), "PutObject", times=3)
_plant("everything-slow", faults.slow(0.4), "", times=15)


@scenario("s3", short=True)
async def access_denied_that_heals(world: World) -> None:
    await _suffer(world, fault=faults.refused(403, "AccessDenied"), operation="UploadPart", times=8)


@scenario("s3")
async def clock_skew_that_heals(world: World) -> None:
    fault = faults.refused(403, "RequestTimeTooSkewed")
    await _suffer(world, fault=fault, operation="", times=12)


@scenario("s3", short=True)
async def credentials_expire_and_are_rotated(world: World) -> None:
    """Tokens of a few seconds, each refused from the moment there is the next, until at least one
    request was: under way, or by a client that keeps its token until the end."""
    rotation = Rotation(world)
    await rotation.renew()
    rule = world.s3.add(rotation.fault, times=1_000_000)
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=6 * MIB))
        for _ in range(3):
            await asyncio.sleep(world.random.uniform(0.8, 1.8))
            await rotation.renew()
    for number in range(_ROTATED_AGAIN):
        if rotation.refused:
            break
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.write(f"again/{number}.mp4", 12 * MIB, rate=6 * MIB))
            for _ in range(20):
                await asyncio.sleep(world.random.uniform(0.05, 0.15))
                await rotation.renew()
    assert rotation.refused, "no request carried an old token"
    rule.times = 0


@scenario("s3", short=True)
async def bucket_gone_for_a_while(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as both:
        both.create_task(world.write_mixed(2))
        await world.s3.seen("UploadPart")
        rule = world.s3.add(faults.refused(404, "NoSuchBucket"), times=10_000)
        await asyncio.sleep(2.5)
        rule.times = 0


@scenario("s3")
async def server_gone_for_a_while(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as both:
        both.create_task(world.write_mixed(3))
        await world.s3.seen("UploadPart")
        await world.s3.stop()
        await asyncio.sleep(3)
        await world.s3.start()


@scenario("s3", short=True)
async def upload_aborted_behind_our_back(world: World) -> None:
    async def abort(exchange: Exchange) -> None:
        await world.client.abort_multipart_upload(
            Bucket=world.bucket, Key=exchange.request.key, UploadId=exchange.request.upload_id
        )

    await world.ingest()
    skip = world.random.randint(0, 2)
    world.s3.add(faults.after(abort), "UploadPart", skip=skip)
    rule = world.s3.add(faults.after(abort), "CompleteMultipartUpload")
    await world.write_mixed(2)
    await world.s3.broken(rule)


@scenario("s3")
async def upload_aborted_while_down(world: World) -> None:
    """A lifecycle rule of the bucket ate it before the service came back."""
    first = await world.ingest()
    async with asyncio.TaskGroup() as both:
        both.create_task(world.write_mixed(2, rate=8 * MIB))
        await world.s3.seen("UploadPart", 2)
        await first.kill()
        page = await world.client.list_multipart_uploads(Bucket=world.bucket)
        for upload in page.get("Uploads", []):
            await world.client.abort_multipart_upload(
                Bucket=world.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        await world.ingest()


@scenario("s3")
async def part_replaced_behind_our_back(world: World) -> None:
    """Somebody else writes other bytes under a part number just before the completion."""

    async def replace(exchange: Exchange) -> None:
        await world.client.upload_part(
            Bucket=world.bucket,
            Key=exchange.request.key,
            UploadId=exchange.request.upload_id,
            PartNumber=1,
            Body=b"\0" * (5 * MIB),
        )

    await world.ingest()
    rule = world.s3.add(faults.after(replace), "CompleteMultipartUpload")
    await world.write("rec.mp4", 17 * MIB, rate=12 * MIB)
    await world.s3.broken(rule)


@scenario("s3")
async def one_sick_stream_stops_no_other(world: World) -> None:
    await world.ingest()
    rule = world.s3.add(faults.refused(500, "InternalError"), "UploadPart", times=10_000)
    rule.key_part = "sick"
    async with asyncio.TaskGroup() as both:
        both.create_task(world.write("sick.mp4", 12 * MIB, rate=12 * MIB))
        both.create_task(world.write("well.mp4", 22 * MIB, rate=12 * MIB))
    async with asyncio.timeout(20):
        while not any(key.endswith("well.mp4") for key in await world.judge.keys()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    rule.times = 0


@scenario("s3")
async def listing_answers_cut_at_restart(world: World) -> None:
    first = await world.ingest()
    async with asyncio.TaskGroup() as both:
        both.create_task(world.write_mixed(2))
        await world.s3.seen("UploadPart", 2)
        await first.kill()
        for operation in ("ListMultipartUploads", "ListParts"):
            world.s3.add(faults.reply_truncated, operation, times=2)
        await world.ingest()


@scenario("s3", runs=4)
async def storm(world: World) -> None:
    """A bit of everything, drawn by the seed."""
    kinds = [
        faults.refused(500, "InternalError"),
        faults.refused(503, "SlowDown"),
        faults.refused(403, "AccessDenied"),
        faults.reset_in_the_middle,
        faults.answer_lost,
        faults.request_truncated,
        faults.reply_truncated,
        faults.slow(0.5),
    ]
    await world.ingest()
    for _ in range(12):
        world.s3.add(world.random.choice(kinds), skip=world.random.randint(0, 25))
    await world.write_mixed(4)
