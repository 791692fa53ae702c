"""The other tools: how each is told to store files, as its own documentation does."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.meter import Run, run_measured
from bench.place import Options, Place, scratch

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    program: str
    crt: bool = False
    tuned: bool = False  # parts of 16 MiB, 4 at a time, which suits a small server better

    def command(self, binary: Path, place: Place, source: Path) -> list[str]:
        """`source` is one file or a folder of them."""
        is_folder = source.is_dir()
        target = f"s3://{place.bucket}/peer/"
        endpoint = ["--endpoint-url", place.endpoint_url]
        if self.program == "s5cmd":
            tuning = ["--concurrency=4", "--part-size=16"] if self.tuned else []
            workers = ["--numworkers=4"] if self.tuned else []
            files = f"{source}/*" if is_folder else str(source)
            return [str(binary), *endpoint, *workers, "cp", *tuning, files, target]
        if self.program == "rclone":
            remote = f"t:{place.bucket}/peer"
            return [str(binary), "copy", "--s3-no-check-bucket", str(source), remote]
        recursive = ["--recursive"] if is_folder else []
        quiet = ["--only-show-errors"]
        return [str(binary), *endpoint, "s3", "cp", *quiet, *recursive, str(source), target]

    def environment(self, place: Place, folder: Path) -> dict[str, str]:
        config = folder / "aws-config"
        config.write_text(
            "[default]\ns3 =\n  preferred_transfer_client = crt\n" if self.crt else "[default]\n"
        )
        return {
            **place.base_environment,
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": place.access_key,
            "AWS_SECRET_ACCESS_KEY": place.secret_key,
            "AWS_DEFAULT_REGION": place.region,
            "AWS_REGION": place.region,
            "AWS_CONFIG_FILE": str(config),
            "AWS_EC2_METADATA_DISABLED": "true",
            "RCLONE_CONFIG": str(folder / "rclone.conf"),
            "RCLONE_CONFIG_T_TYPE": "s3",
            "RCLONE_CONFIG_T_PROVIDER": "Other",
            "RCLONE_CONFIG_T_ENDPOINT": place.endpoint_url,
            "RCLONE_CONFIG_T_ACCESS_KEY_ID": place.access_key,
            "RCLONE_CONFIG_T_SECRET_ACCESS_KEY": place.secret_key,
            "RCLONE_CONFIG_T_REGION": place.region,
        }


PEERS = (
    Peer("s5cmd", "s5cmd"),
    Peer("s5cmd, 4 parts of 16 MiB", "s5cmd", tuned=True),
    Peer("rclone copy", "rclone"),
    Peer("aws s3 cp", "aws"),
    Peer("aws s3 cp, crt", "aws", crt=True),
)


def installed(options: Options) -> Iterator[Peer]:
    for peer in PEERS:
        if options.short and (peer.tuned or peer.crt):
            continue
        if (options.peers / peer.program).exists():
            yield peer


def _binary(options: Options, peer: Peer) -> Path:
    """One of the packages starts its program through Python, which would be charged to it."""
    packed = f"lib/python3*/site-packages/{peer.program}/bin/{peer.program}"
    return next(options.peers.parent.glob(packed), options.peers / peer.program)


async def store(options: Options, peer: Peer, place: Place, source: Path) -> Run:
    """One run of it, measured. Raises RuntimeError with its words when it failed."""
    with scratch(options.files) as folder:
        run = await run_measured(
            peer.command(_binary(options, peer), place, source),
            environment=peer.environment(place, folder),
            folder=folder,
            timeout_s=TIMEOUT_S,
        )
    if run.code:
        raise RuntimeError(f"{peer.name} ended with {run.code}: {run.output.strip()[-300:]}")
    return run
