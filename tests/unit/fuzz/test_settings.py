"""Settings of any shape: they are taken, or refused in one line that names the setting and never
shows a secret."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError

NAMES = sorted(
    {name.upper() for name in Settings.model_fields}
    | {"PYTHON_LOG_LEVEL", "STREAM_CHUNK_SIZE_MB", "S3_SECRET_KEY", "S3_ACCESS_KEY", "S3_BUCKET"}
)
SECRET = "hunter2-very-secret"
URLS = {"DATABASE_URL": "postgresql://", "REDIS_URL": "redis://"}
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)
values = st.one_of(
    texts,
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "0", "-1", "1e999", "nan", "true", "*.mp4", "redis://h", "http://h"]),
)


@contextmanager
def _environment(given_values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(given_values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=5))
@example({"STREAM_CHUNK_SIZE_MB": "nan"})
@example({"STREAM_CHUNK_SIZE_MB": "1e999"})
@example({"SETTLE_SECONDS": "nan"})
@example({"S3_KEY_TEMPLATE": "{stream_id!z}"})
@example({"S3_KEY_TEMPLATE": "{date:%"})
@example({"S3_KEY_TEMPLATE": "{stream_id}{date:%\ud7ff}"})
def test_any_environment_is_taken_or_refused_in_one_line(given_values: dict[str, str]) -> None:
    taken, refusal = _load(given_values)
    if taken is None:
        assert any(name in refusal.upper() for name in NAMES)
        return
    assert taken.chunk_size_bytes >= 5 * 1024 * 1024
    assert taken.settle_seconds >= 0
    assert 0 <= taken.prom_port <= 65535


HOSTILE = (
    *("-1", "0", "1e308", "nan", "inf", "9" * 5000, "0x10", "\u0663", "true", "None", "null"),
    *("[", "[]", "{}", '["a"', "a,b", ",", "'", '"', "\\", "\n", "\x1b[31m", "\u202e", "x" * 5000),
    *("http://", "http://[", "http://h:x", "redis://h:x", "redis://[", "move:", "move:x", "~"),
    *("%s", "{}", "{stem!x}", "$(x)", "${x}", "*", "/dev/null", "tcp://10.0.0.1:1", "SELECT 1;--"),
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_takes_or_refuses_what_is_hostile_by_its_name(name: str) -> None:
    for value in HOSTILE:
        taken, refusal = _load({name: value})
        if taken is None:
            assert name in refusal, value
            assert refusal.isprintable(), value
            assert len(refusal) < 300, value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"S3_BUCKET_NAME=\xff")
@example(b"WATCH_DIR=a\x00b")
@example(b'WATCH_FILTER_GLOBS="["*.mp4"]"')
def test_any_file_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, _environment({}):
        file = Path(folder, ".env")
        file.write_bytes(b"LOG_LEVEL=debug\n" + content)
        refusal = ""
        try:
            load_settings(file)
        except SettingsError as error:
            refusal = str(error)
        assert refusal.isprintable()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([name for name in NAMES if "SECRET" in name or name in URLS]), values)
def test_no_secret_is_ever_shown(name: str, value: str) -> None:
    secret = f"{URLS[name]}u:{SECRET}@h/{value}" if name in URLS else SECRET + value
    taken, refusal = _load({name: secret})
    assert SECRET not in f"{taken!r} {taken} {refusal}"


def _load(environment: dict[str, str]) -> tuple[Settings | None, str]:
    with _environment(environment):
        try:
            return load_settings(env_file=None)[0], ""
        except SettingsError as error:
            return None, str(error)
