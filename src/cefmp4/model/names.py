"""The only file that builds or parses watch paths, object keys and stream ids."""

import hashlib
import mimetypes
import re
import secrets
from datetime import UTC, datetime
from pathlib import PurePosixPath
from string import Formatter

DEFAULT_KEY_TEMPLATE = "streams/{stream_id}/{filename}"
METADATA_SUFFIX = ".metadata.json"
MAX_KEY_BYTES = 1024 - len(METADATA_SUFFIX)
TEMPLATE_FIELDS = frozenset({"stream_id", "filename", "relpath", "stem", "date", "host"})

META_STREAM_ID = "cefmp4-stream-id"
META_FOLDER = "cefmp4-folder"
META_CRC64 = "cefmp4-crc64nvme"
META_PART_BASE = "cefmp4-part-size"
META_PART_SIZING = "cefmp4-part-sizing"

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
    ".mxf": "application/mxf",
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


# Time, the tag of the watched folder (not in ids of older versions), and a random number.
_STREAM_ID = re.compile(r"\d{8}T\d{6}Z-(?:([0-9a-f]{4})(?=[0-9a-f]{8}(?![0-9a-f])))?[0-9a-f]{8}")


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


def static_prefix(template: str) -> str:
    """The part of every key before the first field: where a listing of our objects starts."""
    literal, _, _, _ = next(iter(Formatter().parse(template)), ("", None, None, None))
    return literal


def object_key(
    template: str,
    *,
    stream_id: str,
    relpath: str,
    started_at: float,
    host: str,
    distinct: bool = False,
) -> str:
    """`distinct` adds the stream id: for a key that another stream's object has already."""
    path = PurePosixPath(relpath)
    key = template.format(
        stream_id=stream_id,
        filename=key_safe(path.name),
        relpath=key_safe(relpath),
        stem=key_safe(path.stem),
        date=datetime.fromtimestamp(started_at, UTC),
        host=key_safe(host),
    )
    if distinct:
        folder, slash, name = key.rpartition("/")
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem}~{stream_id}.{suffix}" if dot else f"{name}~{stream_id}"
        key = f"{folder}{slash}{name}"
    return _shortened(key)


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


def is_metadata_key(key: str) -> bool:
    return key.endswith(METADATA_SUFFIX)
