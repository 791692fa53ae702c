"""How names and values are read: either spelling, lists as people write them, and what is said."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from botocore.utils import (
    is_valid_endpoint_url,
    is_valid_ipv6_endpoint_url,
    validate_region_name,
)
from hypothesis import example, given
from hypothesis import strategies as st

from cefmp4.config import values
from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.config.spellings import NAMES, NOT_YET, OF_AWS, OLD_SPELLINGS
from cefmp4.errors import SettingsError

Environment = Mapping[str, str]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *OLD_SPELLINGS, *NOT_YET):
        monkeypatch.delenv(name, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, environment: Environment) -> tuple[Settings, list[str]]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(env_file=None)


OLD_TO_NEW = [
    ({"PYTHON_LOG_LEVEL": "debug"}, {"LOG_LEVEL": "DEBUG"}),
    ({"STREAM_CHUNK_SIZE_MB": "16"}, {"CHUNK_SIZE_BYTES": "16777216"}),
    ({"S3_ENDPOINT": "http://store:9000/"}, {"S3_ENDPOINT_URL": "http://store:9000"}),
    ({"S3_BUCKET": "films"}, {"S3_BUCKET_NAME": "films"}),
    (
        {"S3_ACCESS_KEY": "me", "S3_SECRET_KEY": "hidden"},
        {"S3_ACCESS_KEY_ID": "me", "S3_SECRET_ACCESS_KEY": "hidden"},
    ),
    ({"REDIS_HOST": "box", "REDIS_PORT": "6380"}, {"REDIS_URL": "redis://box:6380/0"}),
]


@pytest.mark.parametrize(("old", "new"), OLD_TO_NEW)
def test_either_spelling_and_both_alike(
    monkeypatch: pytest.MonkeyPatch, old: Environment, new: Environment
) -> None:
    by_new, none = load(monkeypatch, new)
    both, warnings = load(monkeypatch, old)
    assert both.model_dump(exclude={"redis_host", "redis_port"}) == by_new.model_dump(
        exclude={"redis_host", "redis_port"}
    )
    for name in new:
        monkeypatch.delenv(name)
    by_old, _ = load(monkeypatch, old)
    assert by_old.redis_address == by_new.redis_address
    assert by_old.chunk_size_bytes == by_new.chunk_size_bytes
    assert by_old.s3_endpoint_url == by_new.s3_endpoint_url
    assert none == []
    assert all(any(line.startswith(name) for line in warnings) for name in old)


@pytest.mark.parametrize(
    ("given_values", "names"),
    [
        (
            {"PYTHON_LOG_LEVEL": "debug", "LOG_LEVEL": "INFO"},
            "PYTHON_LOG_LEVEL=debug and LOG_LEVEL=INFO",
        ),
        (
            {"STREAM_CHUNK_SIZE_MB": "16", "CHUNK_SIZE_BYTES": "10485760"},
            "CHUNK_SIZE_BYTES=10485760",
        ),
        (
            {"S3_ENDPOINT": "http://a", "S3_ENDPOINT_URL": "http://b"},
            "S3_ENDPOINT=http://a and S3_ENDPOINT_URL=http://b",
        ),
        ({"S3_BUCKET": "one", "S3_BUCKET_NAME": "two"}, "S3_BUCKET=one and S3_BUCKET_NAME=two"),
        (
            {"S3_SECRET_KEY": "hidden1", "S3_SECRET_ACCESS_KEY": "hidden2"},
            r"S3_SECRET_KEY=\*\*\* and S3_SECRET_ACCESS_KEY=\*\*\*",
        ),
        (
            {"S3_ACCESS_KEY": "hidden1", "S3_ACCESS_KEY_ID": "hidden2"},
            "S3_ACCESS_KEY=.* and S3_ACCESS_KEY_ID=",
        ),
        (
            {"REDIS_HOST": "a", "REDIS_URL": "redis://:hidden@b:6379"},
            r"REDIS_HOST=a and REDIS_URL=\*\*\*",
        ),
        (
            {"REDIS_HOST": "a", "REDIS_PORT": "6380", "REDIS_URL": "redis://a"},
            r"REDIS_PORT=6380 and REDIS_URL=\*\*\*",
        ),
        ({"REDIS_HOST": "a", "REDIS_URL": "unix:///run/redis.sock"}, "REDIS_HOST=a and"),
    ],
)
def test_two_spellings_that_disagree_are_refused(
    monkeypatch: pytest.MonkeyPatch, given_values: Environment, names: str
) -> None:
    with pytest.raises(SettingsError, match=names) as caught:
        load(monkeypatch, given_values)
    assert "hidden" not in str(caught.value)


def test_the_environment_and_the_file_must_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text("\ufeffS3_ENDPOINT=http://old\nS3_BUCKET=''\nlog_level=debug\n")
    assert load_settings(file)[0].s3_endpoint_url == "http://old"
    assert load_settings(file)[0].log_level == "DEBUG"
    monkeypatch.setenv("S3_ENDPOINT", "http://newer")
    assert load_settings(file)[0].s3_endpoint_url == "http://newer"
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://other")
    with pytest.raises(SettingsError, match="S3_ENDPOINT=http://newer and S3_ENDPOINT_URL"):
        load_settings(file)


@pytest.mark.parametrize(
    ("given_values", "start"),
    [
        ({"STREAM_CHUNK_SIZE_MB": "abc"}, "STREAM_CHUNK_SIZE_MB=abc: "),
        ({"STREAM_CHUNK_SIZE_MB": "1"}, "STREAM_CHUNK_SIZE_MB=1: "),
        ({"S3_ENDPOINT": "ftp://x"}, r"S3_ENDPOINT=\*\*\*: it must start with"),
        ({"S3_BUCKET": "a/b"}, "S3_BUCKET=a/b: "),
        ({"PYTHON_LOG_LEVEL": "loud"}, "PYTHON_LOG_LEVEL=loud: "),
        ({"REDIS_URL": "http://:hidden@h"}, r"REDIS_URL=\*\*\*: "),
        ({"S3_ACCESS_KEY": "hidden"}, "S3_ACCESS_KEY and S3_SECRET_ACCESS_KEY go together"),
        ({"S3_SECRET_KEY": "hidden"}, "S3_ACCESS_KEY_ID and S3_SECRET_KEY go together"),
        ({"HLS_RUNGS": "x" * 500}, "HLS_RUNGS=x{80}…: "),
    ],
)
def test_an_error_names_the_setting_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, given_values: Environment, start: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{start}") as caught:
        load(monkeypatch, given_values)
    assert "hidden" not in str(caught.value)


def test_later_messages_name_it_as_it_was_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = load(monkeypatch, {"S3_ENDPOINT": "http://a", "REDIS_HOST": "b"})
    said = "check S3_ENDPOINT_URL, REDIS_URL and S3_BUCKET_NAME"
    assert settings.as_spelled(said) == "check S3_ENDPOINT, REDIS_HOST and S3_BUCKET_NAME"


@pytest.mark.parametrize(
    "text",
    [
        '["*.mp4", "*.mov"]',
        "*.mp4,*.mov",
        " \"*.mp4\" , '*.mov' ,",
        '\'["*.mp4", "*.mov"]\'',
        '[\n "*.mp4",\n "*.mov"\n]',
    ],
)
def test_globs_as_people_write_them(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    settings, _ = load(monkeypatch, {"WATCH_FILTER_GLOBS": text})
    assert settings.watch_filter_globs == ("*.mp4", "*.mov")


@pytest.mark.parametrize("text", ["[0-9]*.mp4,*.mov", "[Cc]am[0-9]", "a[!b].mp4"])
def test_a_pattern_may_begin_with_a_bracket(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    settings, _ = load(monkeypatch, {"WATCH_FILTER_GLOBS": text})
    assert settings.watch_filter_globs == tuple(text.split(","))


@pytest.mark.parametrize(
    "text",
    ['["*.mp4", "*.mov"', '["*.mp4" "*.mov"]', "['*.mp4']", "[*.mp4, *.mov]", "[1, null]", "[",
     "[]", '["*.mp4"],["*.mov"]', ","],
)  # fmt: skip
def test_broken_lists_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(SettingsError, match=r"^WATCH_FILTER_GLOBS=.*: it "):
        load(monkeypatch, {"WATCH_FILTER_GLOBS": text})


def test_other_lists_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = load(monkeypatch, {"HANDOVER_JOBS": '["HLS"]', "HLS_RUNGS": "[1080, 720]"})
    assert (settings.handover_jobs, settings.hls_rungs) == (("hls",), (1080, 720))
    settings, _ = load(monkeypatch, {"HANDOVER_JOBS": "None", "HLS_RUNGS": '["360", "720"]'})
    assert (settings.handover_jobs, settings.hls_rungs) == ((), (720, 360))


@given(st.lists(st.text(min_size=1).filter(lambda text: values.unquoted(text) == text), min_size=1))
def test_any_list_in_json_is_read_back(words: list[str]) -> None:
    assert values.read_list(json.dumps(words)) == tuple(words)


def test_enums_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        "APP_ENV": "Production", "WATCH_MODE": '"POLLING"', "PART_SIZING": "Equal",
        "HLS_GPU": "OFF", "PART_TRANSFER": "Client", "HLS_CODEC": "HEVC+H264",
        "AFTER_UPLOAD": "Move:/Done", "LOG_LEVEL": "warning",
    }  # fmt: skip
    settings, _ = load(monkeypatch, written)
    assert settings.model_dump(mode="json", include={name.lower() for name in written}) == {
        "app_env": "production", "watch_mode": "polling", "part_sizing": "equal", "hls_gpu": "off",
        "part_transfer": "client", "hls_codec": "hevc+h264", "after_upload": "move:/Done",
        "log_level": "WARNING",
    }  # fmt: skip


def test_names_that_nothing_honours_yet_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, warnings = load(monkeypatch, dict.fromkeys(NOT_YET, "hunter2"))
    (line,) = warnings
    assert line.startswith("not used by this version: ")
    assert all(name in line for name in NOT_YET)
    assert "hunter2" not in line


def test_a_name_that_was_probably_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("S3_BUKET_NAME=hunter2\nCEFMP4_USER=1:1\nPOSTGRES_USER=x\nMY_OWN=1\n")
    assert load_settings(file)[1] == ["S3_BUKET_NAME is no setting: did you mean S3_BUCKET_NAME?"]
    monkeypatch.setenv("WATCH_DIRR", "x")
    monkeypatch.setenv("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379")
    assert len(load_settings(file)[1]) == 2


def test_names_that_the_client_of_aws_reads_are_no_typing_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(monkeypatch, dict.fromkeys(OF_AWS, "hunter2"))[1] == []


def test_ports_that_kubernetes_sets_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, warnings = load(
        monkeypatch, {"REDIS_PORT": "tcp://10.0.0.1:6379", "REDIS_URL": "redis://redis"}
    )
    assert (settings.redis_address, warnings) == ("redis://redis", [])


def test_a_line_of_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('A=1\nWATCH_FILTER_GLOBS="["*.mp4"]"\n')
    with pytest.raises(SettingsError, match=r"^WATCH_FILTER_GLOBS: line 2 of .* cannot be read"):
        load_settings(file)
    file.write_text("API_TOKEN: as-it-is-in-yaml\n")
    with pytest.raises(SettingsError, match=r"^API_TOKEN: line 1 of .* cannot be read"):
        load_settings(file)
    file.write_bytes(b"S3_BUCKET_NAME=caf\xe9\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read: it is not UTF-8"):
        load_settings(file)


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SettingsError, match=r"\.env is no file"):
        load_settings(tmp_path / ".env")


@given(st.text())
@example("http://h:99999")
@example("http://[::1]:9000")
@example("http://a b")
@example("http://")
@example("https://-x.y/")
@example("http://h\n")
@example("http://\u210c")
def test_what_is_taken_for_an_address_can_be_used(text: str) -> None:
    for url in (text, f"http://{text}", f"https://h:{text}"):
        try:
            taken = values.endpoint(url)
        except ValueError:
            continue
        assert taken is not None
        assert is_valid_endpoint_url(taken) or is_valid_ipv6_endpoint_url(taken), taken


@given(st.text() | st.from_regex(r"[a-z0-9-]{1,70}"))
def test_what_is_taken_for_a_region_can_be_used(text: str) -> None:
    try:
        validate_region_name(values.region(text))
    except ValueError:
        with pytest.raises(ValueError, match="such as"):
            values.region(text)


def test_an_empty_variable_hides_nothing_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://in-the-file\nLOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    settings, _ = load_settings(tmp_path / ".env")
    assert settings.redis_address == "redis://in-the-file"
    assert settings.log_level == "ERROR"


@pytest.mark.parametrize(
    "url",
    [
        "redis://box",
        "redis://:p%2Fw@box:6380/3",
        "redis://user:p@ss@[::1]:6379/0",
        "rediss://box/0?ssl_ca_certs=/a/ca.pem&ssl_cert_reqs=required",
        "redis://box?db=2&password=secret",
        "unix:///run/redis.sock",
        "unix://user:secret@/run/redis%20a.sock?db=1",
    ],
)
def test_addresses_of_redis(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load(monkeypatch, {"REDIS_URL": url})[0].redis_address == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("box:6379", "must start with one of"),
        ("redis://:a/hidden@box", "port must be a number up to 65535; write @ / "),
        ("redis://:1/hidden@box", "a number, that of a database"),
        ("redis://:1?hidden@box", "an option that is unknown; write @ / "),
        ("redis://:1#hidden@box", "an option that is unknown"),
        ("redis://a@b?db=1&password=@hidden", "an option that is unknown"),
        ("redis://box?hidden=1", "an option that is unknown"),
        ("redis://[hidden", "its host is none"),
        ("unix://hidden@box/run/redis.sock", "unix:///its/path"),
        ("unix://:hidden/pass@/run/redis.sock", "write @ / "),
    ],
)
def test_what_is_no_address_of_redis_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^REDIS_URL=\*\*\*: .*{reason}") as caught:
        load(monkeypatch, {"REDIS_URL": url})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("host", ["box", "my_redis", "10.0.0.1", "::1", "[::1]", "a.b.example."])
def test_hosts_of_redis(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert host.strip("[]") in str(load(monkeypatch, {"REDIS_HOST": host})[0].redis_address)


def test_a_home_is_known_where_no_shell_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    file = tmp_path / ".env"
    file.write_text("STATE_DIR=~/state\nWATCH_DIR=~\n")
    settings, _ = load_settings(file)
    assert (settings.state_dir, settings.watch_dir) == (Path("/home/ann/state"), Path("/home/ann"))
    file.write_text("WATCH_DIR=~no-such-user/recordings\n")
    with pytest.raises(SettingsError, match=r"WATCH_DIR=~no-such-user/recordings: .* in full"):
        load_settings(file)
