"""Names of what attempts write: each has folders of its own, so that two attempts at one stream, of
which the first may only seem dead, never mix what they store. Pure."""

from cefmp4.model.names import HLS_ROOT

MASTER = "master.m3u8"
RESULT = "result.json"
STAGED = "attempt"


def hls_prefix(stream_id: str) -> str:
    return f"{HLS_ROOT}/{stream_id}/"


def attempt_folder(name: str, attempt: str) -> str:
    return f"{name}.{attempt}"


def attempt_of(key: str, stream_id: str) -> str:
    """ "" of objects with fixed names, which belong to no attempt."""
    folder, slash, _ = key.removeprefix(hls_prefix(stream_id)).partition("/")
    return folder.rpartition(".")[2] if slash else ""
