"""The encoders of a machine, as an ffmpeg that is asked to try them would find them."""

import math
from collections.abc import Sequence

from cefmp4.hls.encoders import EncoderChooser
from cefmp4.proc import Exit

NO_DRIVER = "Cannot load libcuda.so.1"
FULL = "OpenEncodeSessionEx failed: out of memory (10): (no details)\nNo capable devices found"
SLOW = "(hangs)"


class FakeEncoders:
    """They refuse with these words until `free_at`, or work; time passes where it is waited for."""

    def __init__(self, *, free_at: float = math.inf, **refusals: str) -> None:
        self.refusals = refusals
        self.free_at = free_at
        self.tried: list[str] = []
        self.now = 0.0
        self.waits: list[float] = []

    async def run(self, argv: Sequence[str]) -> Exit:
        encoder = argv[argv.index("-c:v") + 1]
        self.tried.append(encoder)
        said = self.refusals.get(encoder, "") if self.now < self.free_at else ""
        return Exit(
            returncode=1 if said else 0, stdout=b"", stderr_tail=said, timed_out=said == SLOW
        )

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def chooser(self, *, use_gpu: bool = True, gpu_patience_s: float = 15.0) -> EncoderChooser:
        return EncoderChooser(
            program="ffmpeg",
            use_gpu=use_gpu,
            gpu_patience_s=gpu_patience_s,
            run=self.run,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
