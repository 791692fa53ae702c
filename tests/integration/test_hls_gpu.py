"""GPUs that are missing, full, too old, or without an encoder: libraries with the driver's names,
compiled here, make ffmpeg say what it says on such machines."""

import shutil
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import pytest
from tests.support.hls_media import encode, encoder, recording

from cefmp4.hls.encoders import EncoderChooser, Works, word_for
from cefmp4.hls.result import Tier
from cefmp4.model.rendition import Codec, Rendition

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("ffmpeg") and shutil.which("gcc")), reason="needs ffmpeg and gcc"
    ),
    pytest.mark.skipif(
        b"hevc_nvenc"
        not in subprocess.run(["ffmpeg", "-encoders"], capture_output=True, check=False).stdout
        if shutil.which("ffmpeg")
        else True,
        reason="this ffmpeg is built without NVENC",
    ),
]

_CUDA_NAMES = """
cuDeviceGetAttribute cuDeviceGetUuid cuDeviceGetUuid_v2 cuDeviceGetLuid cuDeviceGetByPCIBusId
cuDeviceGetPCIBusId cuCtxSetLimit cuCtxPushCurrent_v2 cuCtxPopCurrent_v2 cuCtxDestroy_v2
cuCtxGetCurrent cuCtxGetDevice cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemAllocManaged cuMemsetD8Async
cuMemFree_v2 cuMemcpy cuMemcpyAsync cuMemcpy2D_v2 cuMemcpy2DAsync_v2 cuMemcpyHtoD_v2
cuMemcpyHtoDAsync_v2 cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoDAsync_v2
cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuDevicePrimaryCtxSetFlags
cuDevicePrimaryCtxGetState cuDevicePrimaryCtxReset cuStreamCreate cuStreamQuery
cuStreamSynchronize cuStreamDestroy_v2 cuStreamAddCallback cuStreamWaitEvent cuEventCreate
cuEventDestroy_v2 cuEventSynchronize cuEventQuery cuEventRecord cuLaunchKernel cuLinkCreate
cuLinkAddData cuLinkComplete cuLinkDestroy cuModuleLoadData cuModuleUnload cuModuleGetFunction
cuModuleGetGlobal cuTexObjectCreate cuTexObjectDestroy cuGLGetDevices_v2 cuGraphicsGLRegisterImage
cuGraphicsUnregisterResource cuGraphicsMapResources cuGraphicsUnmapResources
cuGraphicsSubResourceGetMappedArray cuGraphicsResourceGetMappedPointer_v2 cuImportExternalMemory
cuDestroyExternalMemory cuExternalMemoryGetMappedBuffer cuExternalMemoryGetMappedMipmappedArray
cuMipmappedArrayGetLevel cuMipmappedArrayDestroy cuImportExternalSemaphore
cuDestroyExternalSemaphore cuSignalExternalSemaphoresAsync cuWaitExternalSemaphoresAsync
cuArrayCreate_v2 cuArray3DCreate_v2 cuArrayDestroy cuEGLStreamProducerConnect
cuEGLStreamProducerDisconnect cuEGLStreamConsumerDisconnect cuEGLStreamProducerPresentFrame
cuEGLStreamProducerReturnFrame cuD3D11GetDevice cuD3D11GetDevices
"""

_CUDA = r"""
#include <string.h>
int cuInit(unsigned flags) { return INIT_CODE; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stub", size); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device)
{ *major = 9; *minor = 0; return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 1UL << 30; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device)
{ *context = (void *)1; return CONTEXT_CODE; }
int cuGetErrorName(int code, const char **name)
{ *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuGetErrorString(int code, const char **text) { *text = "stub"; return 0; }
"""

_NVENC = r"""
#include <stdint.h>
static int session(void) { return SESSION_CODE; }
int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) { *version = API; return 0; }
int NvEncodeAPICreateInstance(void *list)
{ void **slots = (void **)((uint32_t *)list + 2);
  for (int i = 0; i < 40; i++) slots[i] = (void *)session;
  return 0; }
"""


def library(target: Path, source: str, **values: int) -> None:
    defines = [f"-D{name}={value}" for name, value in values.items()]
    argv = ["gcc", "-shared", "-fPIC", "-w", *defines, "-x", "c", "-", "-o", str(target)]
    subprocess.run(argv, input=source.encode(), check=True, timeout=60)


def cuda(folder: Path, *, devices: int = 1, init: int = 0, context: int = 0) -> None:
    rest = "\n".join(f"int {name}(void) {{ return 0; }}" for name in _CUDA_NAMES.split())
    values = {"DEVICES": devices, "INIT_CODE": init, "CONTEXT_CODE": context}
    library(folder / "libcuda.so.1", _CUDA + rest, **values)


def nvenc(folder: Path, *, session: int = 0, api: int = 0xFFF) -> None:
    library(folder / "libnvidia-encode.so.1", _NVENC, SESSION_CODE=session, API=api)


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "driver"
    folder.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return folder


def rung(codec: Codec = Codec.HEVC) -> Rendition:
    return Rendition(
        name="r",
        codec=codec,
        width=320,
        height=180,
        frame_rate=Fraction(30),
        bit_depth=8,
        hdr=None,
        peak_kbps=1000,
    )


def install(folder: Path, case: str) -> None:
    if case == "no video capability":
        cuda(folder)
    elif case == "no device":
        cuda(folder, devices=0)
        nvenc(folder)
    elif case == "init says no device":
        cuda(folder, init=100)
        nvenc(folder)
    elif case == "no encoder on the GPU":
        cuda(folder)
        nvenc(folder, session=2)
    elif case == "old driver":
        cuda(folder)
        nvenc(folder, api=0x0A0)


PERMANENT = {
    "no driver": "Cannot load libcuda.so.1",
    "no video capability": "Cannot load libnvidia-encode.so.1",
    "no device": "No CUDA capable devices found",
    "init says no device": "CUDA_ERROR_NO_DEVICE",
    "no encoder on the GPU": "unsupported device",
    "old driver": "required nvenc API version",
}


REASONS = {
    "no driver": "no_driver",
    "no video capability": "no_driver",
    "no device": "no_device",
    "init says no device": "no_device",
    "no encoder on the GPU": "no_encoder",
    "old driver": "old_driver",
}
VERDICT_S = 1.0


@pytest.mark.alone
@pytest.mark.parametrize("case", PERMANENT)
async def test_what_the_machine_will_never_do(stubs: Path, case: str) -> None:
    install(stubs, case)
    chooser = EncoderChooser(program="ffmpeg")
    started = time.monotonic()
    assert (await chooser.try_gpu(rung())).works is Works.NEVER
    assert time.monotonic() - started < VERDICT_S
    choice = await chooser.choose([rung()])
    assert choice.encoders == ("libx265",)
    (fallback,) = choice.fallbacks
    assert PERMANENT[case] in fallback.reason
    assert word_for(fallback.reason) == REASONS[case]
    assert fallback.works is Works.NEVER
    started = time.monotonic()
    assert await chooser.choose([rung()]) == choice
    assert time.monotonic() - started < 0.05


@pytest.mark.parametrize(
    ("session", "context", "reason"),
    [(10, 0, "out of memory"), (21, 0, "incompatible client key"), (0, 2, "OUT_OF_MEMORY")],
)
async def test_a_full_gpu_is_waited_for_and_then_left(
    stubs: Path, session: int, context: int, reason: str
) -> None:
    cuda(stubs, context=context)
    nvenc(stubs, session=session)
    chooser = EncoderChooser(program="ffmpeg", gpu_patience_s=1.5)
    started = time.monotonic()
    choice = await chooser.choose([rung()])
    assert time.monotonic() - started >= 1.5
    assert choice.encoders == ("libx265",)
    assert choice.fallbacks[0].works is Works.NOT_NOW
    assert word_for(choice.fallbacks[0].reason) == "busy"
    assert reason in choice.fallbacks[0].reason


async def test_a_full_gpu_is_tried_again_after_a_while(stubs: Path) -> None:
    cuda(stubs)
    nvenc(stubs, session=10)
    now = 0.0
    chooser = EncoderChooser(program="ffmpeg", gpu_patience_s=0, clock=lambda: now)
    assert (await chooser.choose([rung()])).fallbacks[0].works is Works.NOT_NOW
    nvenc(stubs, session=2)
    assert (await chooser.choose([rung()])).fallbacks[0].works is Works.NOT_NOW
    now = 61.0
    assert (await chooser.choose([rung()])).fallbacks[0].works is Works.NEVER


async def test_a_job_on_a_gpu_without_an_encoder_is_done_by_the_cpu(
    stubs: Path, tmp_path: Path
) -> None:
    cuda(stubs)
    nvenc(stubs, session=2)
    using = encoder(chooser=EncoderChooser(program="ffmpeg"))
    encoded = await encode(recording(tmp_path, seconds=1), using=using)
    assert encoded.result.tier is Tier.CPU
    assert len(encoded.result.fallbacks) == 2
    assert "unsupported device" in encoded.result.fallbacks[0].reason
