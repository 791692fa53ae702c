"""Asks Redis about what makes it forget checkpoints or refuse to take them."""

import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cefmp4.errors import AccessDeniedError, CefError, ServerUnreachableError
from cefmp4.model.diagnosis import Diagnosis, fail, fail_of, ok, warn
from cefmp4.storage.redis.link import RedisLink, connect

_OLDEST_VERSION = (6, 2)
_FULL_SHARE = 0.9
_PROBE = "cefmp4:doctor"
_PROBE_MS = 10_000


async def examine_redis(url: str | None) -> list[Diagnosis]:
    if url is None:
        return [fail("Redis", "REDIS_URL is not set", "set it, or run `cefmp4 up`")]
    link = None
    try:
        link = connect(url)
        await _first_answer(link)
        refused = await _refused_commands(link)
        access = await _access(url)
        facts = await _facts(link)
        saves = await _snapshots(link)
    except CefError as error:
        return [fail_of("Redis", error, "check REDIS_URL and that the server runs")]
    finally:
        if link is not None:
            await link.close()
    if facts is None:
        advice = "allow +info to have its memory and disk looked at"
        silent = warn("Redis", "it answers, but does not tell about itself", advice)
        return [*refused, access, silent]
    return [
        judge_version(facts),
        *refused,
        access,
        judge_role(facts),
        judge_persistence(facts, saves),
        judge_memory(facts),
    ]


async def _first_answer(link: RedisLink) -> None:
    try:
        await link.call("PING")
    except AccessDeniedError as error:
        if error.is_stranger:
            raise
        # this user may not say PING; what it may is tried one by one


async def _refused_commands(link: RedisLink) -> list[Diagnosis]:
    """One command of each kind that checkpoints need, on a key of its own."""
    key = f"{_PROBE}:{secrets.token_hex(4)}"
    found = []
    for words in (
        ("SET", key, "1", "PX", _PROBE_MS),
        ("GET", key),
        ("EVAL", "return redis.call('PEXPIRE', KEYS[1], ARGV[1])", 1, key, _PROBE_MS),
        ("HSET", key, "field", "1"),
        ("HSCAN", key, 0),
        ("ZADD", key, 1, "member"),
        ("PUBLISH", _PROBE, ""),
        ("DEL", key),
    ):
        try:
            await link.call(*words)
        except AccessDeniedError as error:
            advice = "give the user in REDIS_URL the rights ~* &* +@all -@dangerous +info"
            found.append(fail(f"Redis {words[0]}", error.args[0], advice))
        except ServerUnreachableError:
            raise
        except CefError:
            pass  # it was allowed, and of no use: the key holds something else, or it is a replica
    return found


async def _access(url: str) -> Diagnosis:
    """Whether it answers somebody who only knows where it is."""
    place = urlsplit(url)
    if place.scheme == "unix":
        return ok("Redis access", "a socket of this machine")
    options = [pair for pair in parse_qsl(place.query) if pair[0] not in ("username", "password")]
    bare = place._replace(netloc=place.netloc.rpartition("@")[2], query=urlencode(options))
    stranger = connect(bare.geturl())
    try:
        await stranger.call("PING")
    except AccessDeniedError:
        return ok("Redis access", "it answers nobody without a password")
    except CefError as error:  # such as protected mode
        return ok("Redis access", f"it does not serve strangers: {error}")
    finally:
        await stranger.close()
    advice = (
        "set a password (requirepass, and REDIS_URL=redis://:PASSWORD@HOST), or a unix socket: "
        "whoever writes to it can have recordings sent twice, or not at all"
    )
    return warn("Redis access", "whoever reaches its port may read and write", advice)


async def _facts(link: RedisLink) -> dict[str, Any] | None:
    try:
        return dict(await link.call("INFO"))
    except AccessDeniedError:
        return None


async def _snapshots(link: RedisLink) -> bool | None:
    """Whether it takes snapshots; None where it does not tell, as hosted servers do not."""
    try:
        answer = await link.call("CONFIG", "GET", "save")
    except CefError:
        return None
    values = answer.values() if isinstance(answer, dict) else answer[1::2]
    return any(bool(value) for value in values)


def judge_version(facts: dict[str, Any]) -> Diagnosis:
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "unknown")
    numbers = tuple(int(word) for word in version.split(".")[:2] if word.isdecimal())
    if len(numbers) == 2 and numbers < _OLDEST_VERSION:
        return fail("Redis", f"version {version}", "use Redis 6.2 or newer, or Valkey")
    return ok("Redis", f"version {version} answers")


def judge_role(facts: dict[str, Any]) -> Diagnosis:
    if facts.get("role") in ("slave", "replica"):
        return fail("Redis role", "it is a replica", "point REDIS_URL at the primary")
    return ok("Redis role", "it takes writes")


def judge_persistence(facts: dict[str, Any], saves: bool | None) -> Diagnosis:
    price = (
        "its checkpoints go with a crash, and every upload in progress is compared with S3 again"
    )
    if _number(facts, "aof_enabled"):
        if str(facts.get("aof_last_write_status", "ok")) != "ok":
            return fail(
                "Redis persistence", "its last write failed", "look at its disk and its log"
            )
        return ok("Redis persistence", "append-only file")
    if str(facts.get("rdb_last_bgsave_status", "ok")) != "ok":
        return fail("Redis persistence", "its last snapshot failed", "look at its disk and its log")
    if saves is False:
        return warn("Redis persistence", "none", f"set appendonly yes: {price}")
    detail = "snapshots only" if saves else "no append-only file"
    return warn("Redis persistence", detail, f"set appendonly yes: the newest of {price}")


def judge_memory(facts: dict[str, Any]) -> Diagnosis:
    limit, used = _number(facts, "maxmemory"), _number(facts, "used_memory")
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if not limit:
        return ok("Redis memory", f"{used // 2**20} MiB used, no limit")
    detail = f"{used // 2**20} of {limit // 2**20} MiB used, {policy}"
    if policy.startswith("allkeys"):
        advice = "set maxmemory-policy noeviction: it throws checkpoints away when memory runs out"
        return fail("Redis memory", detail, advice)
    if policy.startswith("volatile"):
        advice = "set maxmemory-policy noeviction: it may throw leases away when memory runs out"
        return warn("Redis memory", detail, advice)
    if used > limit * _FULL_SHARE:
        return warn("Redis memory", detail, "raise maxmemory: uploads wait while Redis is full")
    return ok("Redis memory", detail)


def _number(facts: dict[str, Any], name: str) -> int:
    try:
        return int(facts.get(name, 0))
    except (TypeError, ValueError):
        return 0
