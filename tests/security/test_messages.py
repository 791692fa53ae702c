"""What is said of an address that is wrong, to a terminal that others may see, or to a log that is
sent elsewhere: whatever is wrong with it, no part of a password is in it."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cefmp4.__main__ import main
from cefmp4.commands import doctor
from cefmp4.config.spellings import NAMES, OLD_SPELLINGS
from cefmp4.log import redact

MARK = "HuNtEr"
NOWHERE = "127.0.0.1:1"  # where nobody listens
COMMANDS = (["doctor"], ["doctor", "--json"], ["status", "--json"], ["ingest"], ["up"])

REDIS = (
    f"redis://:{{}}@{NOWHERE}/0",
    f"redis://user:{{}}@{NOWHERE}",
    f"rediss://{{}}@{NOWHERE}/0",
    f"redis://{NOWHERE}/0?password={{}}",
    f"redis://{NOWHERE}/{{}}",
    f"redis://{NOWHERE}?{{}}=1",
    f"redis://{NOWHERE}?db={{}}",
    "redis://:{}@",
    "unix://:{}@/no/such.sock",
    "unix://user:{}@/no/such.sock?db=1",
    "unix:///no/such.sock?password={}",
    f"http://:{{}}@{NOWHERE}",
    f"user:{{}}@{NOWHERE}",
    "{}",
)
POSTGRES = (
    f"postgresql://user:{{}}@{NOWHERE}/films",
    f"postgres://{{}}@{NOWHERE}/films",
    f"postgresql://user:{{}}@one,{NOWHERE}/films",
    f"postgresql://{NOWHERE}/films?password={{}}",
    f"postgresql://{NOWHERE}/films?{{}}=1",
    f"postgresql://{NOWHERE}/films?password=a{{}}&sslmode=disable",
    "postgresql://:{}@",
    "postgresql://user:{}@/films?host=/no/such",
    "postgresql+asyncpg://user:{}@db/films",
    "host=127.0.0.1 port=1 password={}",
    "host=127.0.0.1 port=1 password='{}'",
    "user:{}@db/films",
    "{}",
)
S3 = (
    f"http://key:{{}}@{NOWHERE}",
    f"https://{{}}@{NOWHERE}/path",
    f"http://{NOWHERE}?{{}}",
    f"http://{NOWHERE}#{{}}",
    f"s3://key:{{}}@{NOWHERE}",
    f"key:{{}}@{NOWHERE}",
    "{}",
)
OF_PASSWORDS = st.text(alphabet="/#?@: %[]&=+\\'\"$é1aZ.", max_size=6)
passwords = st.tuples(OF_PASSWORDS, OF_PASSWORDS).map(MARK.join)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """`main` sets up the log of a whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    return {
        "S3_ENDPOINT_URL": f"http://{NOWHERE}",
        "S3_ACCESS_KEY_ID": "test:who",
        "S3_SECRET_ACCESS_KEY": "not-told",
        "REDIS_URL": f"redis://{NOWHERE}/0",
        "WATCH_DIR": str(tmp_path),
        "STATE_DIR": str(tmp_path / "state"),
        "STARTUP_TIMEOUT_SECONDS": "0",
        "HANDOVER_JOBS": "none",
        "PROM_PORT": "0",
    }


async def nothing(*_: object, **__: object) -> list[object]:
    return []


def said_by(words: list[str], environment: dict[str, str]) -> str:
    bare = {
        name: value
        for name, value in os.environ.items()
        if name not in (*NAMES, *OLD_SPELLINGS) and "\0" not in value
    }
    out = io.StringIO()
    with (
        patch.dict(os.environ, bare | environment, clear=True),
        patch.object(doctor, "examine_media", nothing),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        assert main(words) in (1, 2, 3)
    return out.getvalue()


few = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(
    password=passwords,
    form=st.sampled_from(REDIS),
    words=st.sampled_from(COMMANDS),
    mode=st.sampled_from(["development", "production"]),
    level=st.sampled_from(["INFO", "DEBUG"]),
)
@example(
    password=MARK,
    form=f"redis://{NOWHERE}?{{}}=1",
    words=["ingest"],
    mode="development",
    level="DEBUG",
)
@example(
    password=f"12?{MARK}=1&",
    form="redis://:{}@",
    words=["ingest"],
    mode="development",
    level="DEBUG",
)
@example(password=f"12/{MARK}", form=REDIS[0], words=["doctor"], mode="development", level="DEBUG")
@example(
    password=f"a@{MARK}?db=1&password=",
    form=REDIS[0],
    words=["up"],
    mode="production",
    level="DEBUG",
)
def test_no_part_of_a_redis_address_that_may_be_a_password_is_told(
    place: dict[str, str], password: str, form: str, words: list[str], mode: str, level: str
) -> None:
    given = {"REDIS_URL": form.format(password), "APP_ENV": mode, "LOG_LEVEL": level}
    with patch.object(doctor, "examine_s3", nothing):  # it is patient
        said = said_by(words, place | given)
    assert MARK.lower() not in said.lower()


@few
@given(
    password=passwords,
    form=st.sampled_from(POSTGRES),
    words=st.sampled_from([["doctor"], ["doctor", "--json"], ["status", "--json"], ["ingest"]]),
    mode=st.sampled_from(["development", "production"]),
    level=st.sampled_from(["INFO", "DEBUG"]),
)
@example(
    password=f"12/{MARK}",
    form=POSTGRES[0],
    words=["doctor"],
    mode="development",
    level="DEBUG",
)
@example(
    password=f"a@{MARK}:1", form=POSTGRES[0], words=["doctor"], mode="production", level="DEBUG"
)
def test_no_part_of_a_postgres_address_that_may_be_a_password_is_told(
    place: dict[str, str], password: str, form: str, words: list[str], mode: str, level: str
) -> None:
    given = {"DATABASE_URL": form.format(password), "APP_ENV": mode, "LOG_LEVEL": level}
    with patch.object(doctor, "examine_s3", nothing):  # it is patient
        said = said_by(words, place | given)
    assert MARK.lower() not in said.lower()


@few
@given(
    password=passwords,
    form=st.sampled_from(S3),
    name=st.sampled_from(["S3_ENDPOINT_URL", "S3_ENDPOINT"]),
    words=st.sampled_from(COMMANDS),
)
@example(password=f"9/{MARK}", form=S3[0], name="S3_ENDPOINT_URL", words=["up"])
@example(password=f"a/{MARK}", form=S3[0], name="S3_ENDPOINT", words=["doctor"])
def test_no_part_of_an_s3_address_that_may_be_a_secret_is_told(
    place: dict[str, str], password: str, form: str, name: str, words: list[str]
) -> None:
    said = said_by(words, place | {name: form.format(password)})
    assert MARK.lower() not in said.lower()


@pytest.mark.parametrize("value", [f"redis://:{MARK}@h", f"h:{MARK}", f"u:{MARK}@h", f"{MARK}/0"])
@pytest.mark.parametrize("words", [["status"], ["ingest"]])
def test_no_part_of_what_stands_for_the_host_of_redis_is_told(
    place: dict[str, str], value: str, words: list[str]
) -> None:
    said = said_by(words, place | {"REDIS_URL": "", "REDIS_HOST": value})
    assert "REDIS_HOST=***: it must be a host name" in said
    assert MARK not in said


@given(password=passwords.filter(lambda text: not set(text) & set(" \\'\"")))
@example(password=f"1/{MARK}")
@example(password=f"{MARK}@")
def test_addresses_in_the_errors_of_libraries_lose_their_passwords(password: str) -> None:
    text = f"cannot connect to redis://user:{password}@host:6379/0, gave up"
    assert redact(text) == "cannot connect to redis://user:***@host:6379/0, gave up"


def test_addresses_without_passwords_stay_readable() -> None:
    text = "PUT http://127.0.0.1:9000/films/me@home.mp4 and http://[::1]:9000/a@b and s3://a/b@c"
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:12/3@db:5432/films", "postgresql://me:***@db:5432/films"),
        ("host=db password=hush dbname=films", "host=db password=*** dbname=films"),
        (r"password='it\'s hush' host=db", "password=*** host=db"),
        (
            "postgres://db/films?password=hush&sslmode=x",
            "postgres://db/films?password=***&sslmode=x",
        ),
        ("check user and password in it", "check user and password in it"),
    ],
)
def test_addresses_of_postgres_in_a_message(text: str, shown: str) -> None:
    assert redact(text) == shown
