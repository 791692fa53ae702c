"""Values as people write them, in `.env` files and in what passes those on: with blanks, quotes, in
any case, as lists with commas or in JSON. Pure, but for the home that `~` is."""

import base64
import ipaddress
import json
import os
import re
from enum import StrEnum
from urllib.parse import SplitResult, parse_qs, urlsplit

from cefmp4.model.folder import is_folder_id
from cefmp4.model.names import check_key_template
from cefmp4.model.rendition import HIGHEST_RUNG, LOWEST_RUNG

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_REDIS_OPTIONS = {
    "db", "username", "password", "client_name", "protocol", "max_connections",
    "health_check_interval", "retry_on_timeout",
    "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs",
    "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
}  # fmt: skip
_POSTGRES_SCHEMES = ("postgresql://", "postgres://")
_POSTGRES_URL = re.compile(
    r"postgres(?:ql)?://(?:[^@/]*@)?(?P<hosts>[^/?@]*)(?:/(?P<database>[^?]*))?(?:\?(?P<options>[^@]*))?"
)
_POSTGRES_WORDS = re.compile(r"\s*(?:\w+\s*=\s*(?:'(?:\\.|[^'\\])*'|(?:\\.|[^\s'\\])*)(?:\s+|$))+")
_POSTGRES_OPTIONS = {
    "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options", "service",
    "connect_timeout", "client_encoding", "application_name", "fallback_application_name",
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslpassword",
    "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "requirepeer", "require_auth",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "min_protocol_version",
    "max_protocol_version", "channel_binding", "krbsrvname", "gssencmode", "gsslib",
    "gssdelegation", "target_session_attrs", "load_balance_hosts",
}  # fmt: skip
_ESCAPE = "write @ / ? # in a password as %40 %2F %3F %23"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,63}")
_REGION = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
_STATE = re.compile(r"[^\x00-\x1f\x7f=]{1,63}")
RENAMED_COLUMNS = (
    "id", "key", "bucket", "kind", "priority", "status", "attempts", "error", "result", "job_id",
    "updated_at",
)  # fmt: skip
RENAMED_STATES = ("pending", "processing", "done", "failed")
_SURREAL_SERVERS = ("ws", "wss", "http", "https")
_SURREAL_FILES = ("surrealkv", "surrealkv+versioned", "file")
_QUOTES = "\"'"
LEAST_KEY_CHARACTERS = 16
LEAST_SECRET_BYTES = 16
_IN_BASE64 = "whsec_"
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


def unquoted(text: str) -> str:
    """Without blanks and one pair of quotes around it, which `docker run --env-file` leaves on."""
    text = text.strip()
    quote = text[:1]
    if quote in _QUOTES and len(text) > 1 and text.endswith(quote) and text.count(quote) == 2:
        return text[1:-1].strip()
    return text


def folder(text: str) -> str:
    """No shell has seen what stands in `.env`; without this, `~` would be a folder of that name."""
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise ValueError("this machine knows no such user; write the folder in full")
    return found


def read_list(text: str) -> tuple[str, ...]:
    """`a, b` or `["a", "b"]`. Raises ValueError for what was meant to be JSON and is not."""
    text = unquoted(text)
    words = _read_json(text) if _is_meant_as_json(text) else text.split(",")
    return tuple(word for word in map(unquoted, words) if word)


def _is_meant_as_json(text: str) -> bool:
    """A pattern may begin with a bracket, too: [0-9]*.mp4."""
    if not text.startswith("["):
        return False
    inner = text[1:].lstrip()
    return inner[:1] in (*_QUOTES, "") or inner.startswith("]") or text.find("]") == len(text) - 1


def _read_json(text: str) -> list[str]:
    try:
        words = json.loads(text)
    except (ValueError, RecursionError) as error:
        words, reason = None, getattr(error, "msg", "it is nested too deeply")
    else:
        reason = "something in it is neither a text nor a number"
    if not isinstance(words, list) or not all(_is_word(word) for word in words):
        raise ValueError(
            f'it is no JSON list, such as ["a", "b"], and no list with commas: {reason}'
        )
    return [str(word) for word in words]


def _is_word(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def any_case(kind: type[StrEnum], text: str) -> str:
    """The value of `kind` that `text` spells, or `text` where there is none."""
    lowered = unquoted(text).lower()
    return next((member.value for member in kind if member.value.lower() == lowered), text)


def log_level(text: str) -> str:
    if text.upper() not in _LEVELS:
        raise ValueError(f"allowed are {', '.join(_LEVELS)}")
    return text.upper()


def globs(given: tuple[str, ...]) -> tuple[str, ...]:
    if not given:
        raise ValueError("it needs at least one pattern, such as *.mp4")
    return given


def after_upload(text: str) -> str:
    word, colon, folder = text.partition(":")
    action = f"{word.strip().lower()}{colon}{folder.strip()}"
    if action not in {"keep", "delete"} and not action.startswith("move:/"):
        raise ValueError("allowed are keep, delete, move:/an/absolute/folder")
    return action


def job_kinds(given: tuple[str, ...]) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(kind.lower() for kind in given))
    if kinds == ("none",):
        return ()
    if set(kinds) - {"hls"}:
        raise ValueError("allowed are hls, none")
    return kinds


def rungs(given: tuple[int, ...]) -> tuple[int, ...]:
    if not given or any(rung % 2 or not LOWEST_RUNG <= rung <= HIGHEST_RUNG for rung in given):
        limits = f"from {LOWEST_RUNG} to {HIGHEST_RUNG}"
        raise ValueError(f"it must be even numbers {limits}, such as 1080,720,360")
    return tuple(sorted(set(given), reverse=True))


def key_template(text: str) -> str:
    check_key_template(text)
    return text


def folder_id(name: str) -> str:
    if name and not is_folder_id(name):
        raise ValueError("it must be at most 64 letters, digits, dots, dashes or underscores")
    return name


def bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name):
        raise ValueError("it must be 3 to 63 letters, digits, dots, dashes or underscores")
    return name


def region(name: str) -> str:
    if not _REGION.fullmatch(name):
        raise ValueError("it must be letters, digits and dashes, such as us-east-1")
    return name


def endpoint(url: str) -> str | None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it must start with http:// or https://")
    if "@" in url:
        raise ValueError("it holds no keys: those are S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY")
    parts = _split(url)
    if not is_host(parts.hostname or ""):
        # The client library takes no underscores either, which names of containers may have.
        raise ValueError("its host must be letters, digits, dots and dashes, or an IP address")
    if "?" in url or "#" in url or not url.isascii() or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("it must end with the host, the port or a path")
    return url.rstrip("/")


def check_redis_url(url: str) -> None:
    if not url.startswith(_REDIS_SCHEMES):
        raise ValueError(f"it must start with one of {', '.join(_REDIS_SCHEMES)}")
    try:
        parts = _split(url)
    except ValueError as error:
        raise ValueError(f"{error}; {_ESCAPE}") from None
    if parts.scheme == "unix":
        if not parts.netloc.endswith("@") and parts.netloc:
            raise ValueError(f"a socket file has no host: unix:///its/path; {_ESCAPE}")
    elif not re.fullmatch(r"/?[0-9]*/?", parts.path):
        raise ValueError(f"behind its host there can be a number, that of a database; {_ESCAPE}")
    options = parse_qs(parts.query, keep_blank_values=True)
    if "@" in parts.query or parts.fragment or not _REDIS_OPTIONS.issuperset(options):
        raise ValueError(f"it has an option that is unknown; {_ESCAPE}")


def check_database_url(address: str) -> None:
    """In either form that Postgres' own programs take."""
    if address.startswith(_POSTGRES_SCHEMES):
        _check_postgres_url(address)
    elif "://" in address:
        raise ValueError(f"it must start with {' or '.join(_POSTGRES_SCHEMES)}")
    else:
        words = _POSTGRES_WORDS.fullmatch(address)
        names = re.findall(r"(\w+)\s*=\s*(?:'(?:\\.|[^'\\])*'|\S*)", address)
        if not words or not _POSTGRES_OPTIONS.issuperset(names):
            raise ValueError(
                "it must be postgresql://USER:PASSWORD@HOST/DATABASE, or words such as "
                "host=db.lan dbname=films user=cefmp4 password='…'"
            )


def _check_postgres_url(url: str) -> None:
    """As libpq takes it apart: a password may hold anything but @ and /. It may name several hosts,
    each with a port, and folders of sockets as %2Fits%2Fpath."""
    parts = _POSTGRES_URL.fullmatch(url)
    if parts is None or not all(map(_is_postgres_host, parts["hosts"].split(","))):
        raise ValueError(f"its host is none; {_ESCAPE}")
    if re.search("%(?![0-9A-Fa-f]{2})|%00", url):
        raise ValueError("write a % in a password as %25")
    if re.search("[/@]", parts["database"] or ""):
        raise ValueError(f"behind its host there can be the name of a database; {_ESCAPE}")
    try:
        options = parse_qs(parts["options"] or "", keep_blank_values=True, strict_parsing=True)
    except ValueError:
        options = {"": []}
    known = _POSTGRES_OPTIONS | {"ssl"}
    if parts["options"] is not None and not (options and known.issuperset(options)):
        raise ValueError(f"it has an option that is unknown; {_ESCAPE}")


def _is_postgres_host(text: str) -> bool:
    if re.fullmatch(r"(?:%2F[A-Za-z0-9._%~-]*)?", text, re.IGNORECASE):
        return True
    named = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d{0,5}))?", text)
    if named is None or int(named[2] or 1) > 65535:
        return False
    host = named[1]
    return not host or is_host(host.strip("[]")) or bool(re.fullmatch(r"[A-Za-z0-9._-]+", host))


def redis_host(name: str) -> str:
    """Underscores too: names of containers may have them."""
    if not (is_host(name.strip("[]")) or re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name)):
        raise ValueError("it must be a host name or an IP address")
    return name


def _split(url: str) -> SplitResult:
    """The errors of the library tell what stood there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("its host is none") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("its port must be a number up to 65535") from None
    return parts


def check_secret(text: str) -> None:
    if len(text) < 16:
        raise ValueError("it must have at least 16 characters")


def webhook_secrets(text: str) -> tuple[str, ...]:
    return tuple(secret for secret in map(str.strip, text.split(",")) if secret)


def webhook_key(secret: str) -> bytes:
    """As Standard Webhooks write secrets down. ValueError where it is none."""
    if not secret.startswith(_IN_BASE64):
        return secret.encode("utf-8", "surrogateescape")
    written = secret.removeprefix(_IN_BASE64).rstrip("=")
    return base64.b64decode(written + "=" * (-len(written) % 4), validate=True)


def check_webhook_secrets(text: str) -> None:
    secrets = webhook_secrets(text)
    try:
        keys = [webhook_key(secret) for secret in secrets]
    except ValueError:
        raise ValueError("behind whsec_ there must be base64") from None
    if not keys or min(map(len, [*keys, *secrets])) < LEAST_SECRET_BYTES:
        raise ValueError(
            f"each must have at least {LEAST_SECRET_BYTES} characters, behind whsec_ as many bytes; "
            "a comma begins the next one"
        )


def check_webhook_url(url: str) -> None:
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it must start with http:// or https://")
    host = parts.hostname or ""
    if not (is_host(host) or re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host)):
        raise ValueError("its host must be a host name or an IP address")
    if "#" in url or not url.isascii() or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("it must be ASCII without blanks, and end with a path or a query")


def host_names(given: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip("[]").rstrip(".").lower() for name in given)
    if not all(map(is_host, names)):
        raise ValueError("it must be host names, such as recorder.lan, without http:// or a port")
    return names


def host_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not is_host(host.strip("[]")) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("it must be a host and a port, such as temporal.lan:7233")
    return text


def check_codec_key(key: str) -> None:
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ValueError(f"it must have {LEAST_KEY_CHARACTERS} characters or more")


def table(text: str) -> str:
    schema, dot, name = text.rpartition(".")
    if not _TABLE.fullmatch(name) or (dot and not _TABLE.fullmatch(schema)):
        raise ValueError("it must be the name of a table, such as jobs or public.jobs")
    return text


def renamed(given: tuple[str, ...]) -> tuple[str, ...]:
    """`ours=yours`; of columns nothing may stand behind it."""
    for pair in given:
        ours, equals, yours = (part.strip() for part in pair.partition("="))
        is_named = _STATE.fullmatch(yours) if ours in RENAMED_STATES else _TABLE.fullmatch(yours)
        is_known = ours in (*RENAMED_COLUMNS, *RENAMED_STATES)
        if not equals or not is_known or not (is_named or yours == ""):
            raise ValueError(
                f"it must be pairs such as key=object_key, of {', '.join(RENAMED_COLUMNS)} and "
                f"{', '.join(RENAMED_STATES)}"
            )
        if not yours and ours in (*RENAMED_STATES, "id", "key", "status"):
            raise ValueError(f"{ours} cannot be left out")
    return given


def queue_url(url: str) -> str:
    endpoint_of_queue(url)
    return url


def endpoint_of_queue(url: str) -> str:
    """The server of it."""
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not is_host(parts.hostname or ""):
        raise ValueError("it must be http:// or https:// with the host of SQS")
    if re.search(r"[@?#]", url) or not re.fullmatch(r"/[0-9A-Za-z_-]+/[0-9A-Za-z_.-]+", parts.path):
        raise ValueError("it must end with the account and the name of the queue: /1234/jobs")
    return f"{parts.scheme}://{parts.netloc}"


def surreal_endpoint(url: str) -> str:
    scheme, _, place = url.partition("://")
    if url == "mem://":
        return url
    if scheme in _SURREAL_FILES and place:
        return f"{scheme}://{folder(place)}"
    if scheme not in _SURREAL_SERVERS:
        raise ValueError("it must start with ws://, wss://, http://, https:// or surrealkv://")
    if "@" in url:
        raise ValueError("it holds no user: that is SURREAL_USERNAME with SURREAL_PASSWORD")
    parts = _split(url)
    redis_host(parts.hostname or "")
    if parts.path.rstrip("/") not in ("", "/rpc") or "?" in url or "#" in url:
        raise ValueError("it must end with the host, the port or /rpc")
    return f"{scheme.replace('http', 'ws')}://{parts.netloc}"


def surreal_name(text: str) -> str:
    if not text or len(text) > 128 or not text.isprintable() or "/" in text:
        raise ValueError("it must be a name of at most 128 characters without a slash")
    return text


def key_prefix(text: str) -> str:
    prefix = text.strip("/")
    if not prefix:
        return ""
    if not prefix.isprintable() or {"", ".", ".."} & set(prefix.split("/")):
        raise ValueError("it must be the beginning of a key, such as results/")
    return f"{prefix}/"


def is_host(text: str) -> bool:
    if ":" not in text:
        return len(text) <= 253 and _HOST.fullmatch(text) is not None
    try:
        return "%" not in text and ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
