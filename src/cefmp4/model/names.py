"""The only file that builds or parses watch paths, object keys and stream ids."""

import hashlib
import mimetypes
import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from string import Formatter

DEFAULT_KEY_TEMPLATE = "streams/{stream_id}/{filename}"
METADATA_SUFFIX = ".metadata.json"
MAX_KEY_BYTES = 1024 - len(METADATA_SUFFIX)
TEMPLATE_FIELDS = frozenset({"stream_id", "filename", "relpath", "stem", "date", "host"})

# What is ours alone: no recording's key begins like that.
HLS_ROOT = "hls"
ANALYSIS_ROOT = "analysis"
PROBE_ROOT = ".cefmp4-probe"
OWN_ROOTS = (HLS_ROOT, ANALYSIS_ROOT, PROBE_ROOT)
_OWN_ROOT = re.compile(f"^({'|'.join(map(re.escape, OWN_ROOTS))})(~*)(?=/|$)")
_OWN_SUFFIX = re.compile(r"\.metadata(~*)\.json$")


class KeyConflict(StrEnum):
    """What becomes of a stream whose key is another recording's."""

    SUFFIX = "suffix"
    FAIL = "fail"


META_STREAM_ID = "cefmp4-stream-id"
META_FOLDER = "cefmp4-folder"
META_CRC64 = "cefmp4-crc64nvme"
META_PART_BASE = "cefmp4-part-size"
META_PART_SIZING = "cefmp4-part-sizing"

# Time, the tag of the watched folder (not in ids of older versions), and a random number.
_STREAM_ID = re.compile(r"\d{8}T\d{6}Z-(?:([0-9a-f]{4})(?=[0-9a-f]{8}(?![0-9a-f])))?[0-9a-f]{8}")
_PROBE_KEY = re.compile(rf"{re.escape(PROBE_ROOT)}/[0-9a-f]{{16}}(-parts)?$")
_SUBJECT = re.compile(rf"(?:{_STREAM_ID.pattern})|[wx][0-9a-f]{{20}}", re.ASCII)
_OWN_OUTPUT = re.compile(f"({HLS_ROOT}|{ANALYSIS_ROOT})/({_SUBJECT.pattern})/", re.ASCII)

_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".m4s": "video/iso.segment",
    ".m4a": "audio/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".ts": "video/mp2t",
    ".mts": "video/mp2t",
    ".m2ts": "video/mp2t",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".flv": "video/x-flv",
    ".3gp": "video/3gpp",  # the standard table says audio, and so do many systems
    ".3g2": "video/3gpp2",
    ".mxf": "application/mxf",
    ".vtt": "text/vtt",
    ".flac": "audio/flac",
    ".wav": "audio/wav",
}

# Names that programs give to files that they will rename or throw away.
_TEMPORARY_SUFFIXES = (
    ".part",
    ".tmp",
    ".temp",
    ".crdownload",
    ".partial",
    ".aria2",
    ".swp",
    ".filepart",
)
_TEMPORARY = re.compile(
    r"\."  # dotfiles, rsync's .name.XXXXXX
    r"|sed[A-Za-z0-9]{6}$"  # sed -i
    r"|rec-temp-\d+\.mp4$"  # AtomicParsley
    r"|.*~$",
    re.DOTALL,
)


def new_stream_id(now: float, folder: str = "") -> str:
    """Sorts by time, so that a listing of the bucket reads like a log. The tag shows of an open
    upload whose it is, before anything else can be asked about it."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{folder_tag(folder)}{secrets.token_hex(4)}"


def stream_id_in(key: str) -> str | None:
    found = _STREAM_ID.search(key)
    return found[0] if found else None


def folder_tag(folder: str) -> str:
    return hashlib.sha256(folder.encode()).hexdigest()[:4] if folder else ""


def folder_tag_in(key: str) -> str:
    """Empty where the key has no stream id, or one of an older version."""
    found = _STREAM_ID.search(key)
    return (found[1] or "") if found else ""


def is_subject(text: str) -> bool:
    """Whether it can be the id of a stream, or of what a job was made of otherwise: the names under
    which outputs lie."""
    return _SUBJECT.fullmatch(text) is not None


def is_temporary(name: str) -> bool:
    return name.lower().endswith(_TEMPORARY_SUFFIXES) or _TEMPORARY.match(name) is not None


def content_type_of(filename: str) -> str:
    suffix = PurePosixPath(filename).suffix.lower()
    return (
        _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    )


def key_safe(text: str) -> str:
    """S3 keys are UTF-8, and XML listings carry no control characters: such bytes become %XX."""
    return "".join(
        char
        if char.isprintable() and not 0xD800 <= ord(char) <= 0xDFFF
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def check_key_template(template: str) -> None:
    """Raises ValueError with one sentence that says what is wrong with it."""
    try:
        parsed = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"it is not a valid template: {error}") from None
    fields = {str(name) for _, name, _, _ in parsed}
    unknown = fields - TEMPLATE_FIELDS
    if unknown:
        raise ValueError(
            f"unknown field {{{min(unknown)}}}; allowed are "
            + " ".join(f"{{{name}}}" for name in sorted(TEMPLATE_FIELDS))
        )
    if any(how or (spec and (name != "date" or "{" in spec)) for _, name, spec, how in parsed):
        raise ValueError("only {date} takes a format, such as {date:%Y/%m/%d}")
    if not template.isprintable():
        raise ValueError("it has a character that no key can have")
    if not fields & {"stream_id", "filename", "relpath", "stem"}:
        raise ValueError(
            "it needs {stream_id}, {filename}, {relpath} or {stem}, or all files share one key"
        )
    if template.startswith("/"):
        raise ValueError("a key does not start with '/'")
    own = next((root for root in OWN_ROOTS if f"{template}/".startswith(f"{root}/")), None)
    if own is not None:
        raise ValueError(f"keys below '{own}/' are CefMP4's own: choose another prefix")
    if template.endswith(METADATA_SUFFIX):
        raise ValueError(f"keys that end with '{METADATA_SUFFIX}' are CefMP4's own")


def static_prefix(template: str) -> str:
    """The part of every key before the first field: where a listing of our objects starts."""
    literal, _, _, _ = next(iter(Formatter().parse(template)), ("", None, None, None))
    return literal


def object_key(template: str, *, stream_id: str, relpath: str, started_at: float, host: str) -> str:
    """The key that the template gives: never one of our own, whatever the file is called. Two files
    may get the same one where it has no stream id."""
    path = PurePosixPath(relpath)
    key = template.format(
        stream_id=stream_id,
        filename=path.name,
        relpath=relpath,
        stem=path.stem,
        date=datetime.fromtimestamp(started_at, UTC),
        host=host,
    )
    return _shortened(_apart_from_ours(key_safe(key)))


def next_key(key: str, stream_id: str) -> str:
    """The key for a stream whose `key` is another's: with the stream id before the suffix."""
    folder, slash, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    return _shortened(f"{folder}{slash}{stem}~{stream_id}{dot}{suffix}")


def _apart_from_ours(key: str) -> str:
    """One "~" more behind what would make it one of ours. A name that has some already gets one
    more, too, so that different names stay different."""
    return _OWN_SUFFIX.sub(r".metadata\1~.json", _OWN_ROOT.sub(r"\1\2~", key, count=1), count=1)


def bears_name(key: str, filename: str) -> bool:
    """Whether the key ends like that of a file of this name, perhaps with a stream id before the
    suffix."""
    wanted, name = key_safe(filename), key.rpartition("/")[2]
    stream_id = stream_id_in(name)
    return name == wanted or (stream_id is not None and name == next_key(wanted, stream_id))


def is_unique_template(template: str) -> bool:
    """Whether no two streams can ever get the same key from it."""
    return "{stream_id}" in template


def _shortened(key: str) -> str:
    raw = key.encode()
    if len(raw) <= MAX_KEY_BYTES:
        return key
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: MAX_KEY_BYTES - 17].decode('utf-8', 'ignore')}~{digest}"


def metadata_key(key: str) -> str:
    return key + METADATA_SUFFIX


def is_own_key(key: str) -> bool:
    """Whether it is of something that we made of an object, or for a look at the server. Versions
    before this one stored recordings below `hls/`, too, but not below the id of a stream."""
    return bool(key.endswith(METADATA_SUFFIX) or _OWN_OUTPUT.match(key)) or is_probe_key(key)


def is_probe_key(key: str) -> bool:
    return _PROBE_KEY.match(key) is not None
