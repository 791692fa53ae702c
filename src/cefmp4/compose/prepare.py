"""Before all others: gives the servers of docker-compose.yml keys that nobody else knows, where
.env names none, and their volumes to the users that they run as."""

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cefmp4.compose import KEYS, WEAK
from cefmp4.embedded.temporal_server import DYNAMIC_SETTINGS

# The users of those services.
OWNERS = {Path("/redis"): 999, Path("/minio"): 1000, Path("/temporal"): 1000}
WELL_KNOWN = "cefmp4-on-this-machine"  # stood in docker-compose.yml for all to read
_LEAST_CHARACTERS = 12


def write_keys(folder: Path, given: Mapping[str, str]) -> None:
    """`given`: what .env says, empty where it says nothing. What was made once is kept."""
    made = _made_before(folder / "made.json")
    access_key = given.get("S3_ACCESS_KEY_ID") or made["s3_access_key"]
    secret_key = given.get("S3_SECRET_ACCESS_KEY") or made["s3_secret_key"]
    url = given.get("REDIS_URL") or ""
    # Whoever writes the address of our Redis without a password asks for none.
    is_chosen = url and _names_ours(url, "redis")
    password = unquote(urlsplit(url).password or "") if is_chosen else made["redis_password"]
    # Each of our commands reads this, and what .env says wins over it.
    ours = {"REDIS_URL": f"redis://:{password}@redis:{given.get('REDIS_PORT') or 6379}/0"}
    ours["TEMPORAL_CODEC_KEY"] = made["temporal_codec_key"]
    if _names_ours(given.get("S3_ENDPOINT_URL") or "", "minio"):
        ours |= {"S3_ACCESS_KEY_ID": access_key, "S3_SECRET_ACCESS_KEY": secret_key}
    ours = {name: text for name, text in ours.items() if not given.get(name)}
    servers = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
    if password:
        servers["REDISCLI_AUTH"] = password
    _write(folder / ".env", _lines(ours))
    _write(folder / "servers.env", _lines(servers))
    _write(folder / "redis.conf", _redis_conf(password))
    _write(folder / "postgres-password", made["postgres_password"])
    _write(folder / "temporal.yaml", _temporal_yaml())
    _write(folder / WEAK.name, "".join(_weak(secret_key, password)))


def _made_before(path: Path) -> dict[str, str]:
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = {
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_hex(20),
        "redis_password": secrets.token_hex(20),
        "temporal_codec_key": secrets.token_hex(20),
        "postgres_password": secrets.token_hex(20),
    } | kept  # of a version that knew fewer servers
    if made != kept:
        _write(path, json.dumps(made), mode=0o600)
    return made


def _names_ours(url: str, service: str) -> bool:
    try:
        return not url or urlsplit(url).hostname == service
    except ValueError:
        return False  # each command refuses it, by its name


def _redis_conf(password: str) -> str:
    escaped = "".join(f"\\x{byte:02x}" for byte in password.encode())
    return f'requirepass "{escaped}"\n'


def _temporal_yaml() -> str:
    """In the format of its dynamic configuration."""
    return "".join(f"{name}:\n- value: {value}\n" for name, value in DYNAMIC_SETTINGS.items())


def _weak(secret_key: str, redis_password: str) -> Iterator[str]:
    if secret_key == WELL_KNOWN or len(secret_key) < _LEAST_CHARACTERS:
        yield "S3_SECRET_ACCESS_KEY in .env is known or short: remove it, and one is made\n"
    if len(redis_password) < _LEAST_CHARACTERS:
        yield "REDIS_URL or REDIS_HOST in .env names redis without a long password: remove it\n"


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(text)}\n" for name, text in values.items())


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.touch(mode)
    beside.chmod(mode)
    beside.write_text(text)
    beside.replace(path)


def give(folder: Path, user_id: int) -> None:
    """The folder itself last: its owner tells whether all in it was given."""
    if folder.stat().st_uid == user_id:
        return
    for path, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.lchown(Path(path, name), user_id, user_id)
    os.chown(folder, user_id, user_id)


def main() -> None:
    write_keys(KEYS, os.environ)
    for folder, user_id in OWNERS.items():
        give(folder, user_id)


if __name__ == "__main__":
    main()
