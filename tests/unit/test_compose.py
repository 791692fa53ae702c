"""docker-compose.yml follows .env, in any spelling: it is resolved as Compose does it, and what
each service sees then is read as CefMP4 reads it."""

import os
import re
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dotenv import dotenv_values
from tests.support.compose_file import (
    COMPOSE,
    OURS,
    Project,
    Resolve,
    resolve,
    settings_in,
    untouched_environment,
)

from cefmp4.config.documents import example_env
from cefmp4.config.spellings import NAMES, OF_COMPOSE, OLD_SPELLINGS, REDIS_SPELLINGS
from cefmp4.errors import SettingsError

__all__ = ["resolve", "untouched_environment"]


def servers(project: Project) -> dict[str, str | None]:
    """What Redis and MinIO are given."""
    return dotenv_values(project.prepare() / "servers.env")


def test_without_any_settings(resolve: Resolve, tmp_path: Path) -> None:
    project = resolve("")
    for service in OURS:
        settings = settings_in(project, service)
        assert settings.s3_endpoint_url == "http://minio:9000"
        own = servers(project)
        assert settings.redis_address == f"redis://:{own['REDISCLI_AUTH']}@redis:6379/0"
        assert settings.s3_access_key_id == own["MINIO_ROOT_USER"]
        assert settings.s3_secret_access_key
        assert settings.s3_secret_access_key.get_secret_value() == own["MINIO_ROOT_PASSWORD"]
        assert settings.s3_bucket_name == project.environment("bucket")["S3_BUCKET_NAME"]
        assert settings.temporal_address == "temporal:7233"
        assert settings.temporal_codec_key
        assert project.mount(service)["source"] == str(tmp_path / "local_watch_dir")
        assert project.mount(service)["read_only"]
    assert project.port("app") == ("127.0.0.1", "8000", "8000")
    assert project.port("worker") == ("127.0.0.1", "8001", "8001")


NEW = """\
S3_ENDPOINT_URL=https://store:9000
S3_ACCESS_KEY_ID=me
S3_SECRET_ACCESS_KEY=hidden-secret
S3_BUCKET_NAME=films
REDIS_URL=redis://box:6380/0
CHUNK_SIZE_BYTES=16777216
LOG_LEVEL=DEBUG
"""
OLD = """\
S3_ENDPOINT=https://store:9000/
S3_ACCESS_KEY=me
S3_SECRET_KEY=hidden-secret
S3_BUCKET=films
REDIS_HOST=box
REDIS_PORT=6380
STREAM_CHUNK_SIZE_MB=16
PYTHON_LOG_LEVEL=debug
"""


@pytest.mark.parametrize("text", [NEW, OLD, NEW + OLD])
def test_either_spelling_counts_everywhere(resolve: Resolve, text: str) -> None:
    project = resolve(text)
    for service in OURS:
        settings = settings_in(project, service)
        assert settings.s3_endpoint_url == "https://store:9000"
        assert settings.s3_access_key_id == "me"
        assert settings.s3_secret_access_key
        assert settings.s3_secret_access_key.get_secret_value() == "hidden-secret"
        assert settings.s3_bucket_name == "films"
        assert settings.redis_address == "redis://box:6380/0"
        assert settings.chunk_size_bytes == 16 * 1024 * 1024
        assert settings.log_level == "DEBUG"
    own = servers(project)
    assert (own["MINIO_ROOT_USER"], own["MINIO_ROOT_PASSWORD"]) == ("me", "hidden-secret")
    assert project.environment("bucket")["S3_BUCKET_NAME"] == "films"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("S3_ENDPOINT=http://a\nS3_ENDPOINT_URL=http://b\n", "S3_ENDPOINT=.*S3_ENDPOINT_URL="),
        ("S3_BUCKET=one\nS3_BUCKET_NAME=two\n", "S3_BUCKET=one and S3_BUCKET_NAME=two"),
        ("REDIS_HOST=a\nREDIS_URL=redis://b\n", "REDIS_HOST=a and REDIS_URL="),
        ("S3_SECRET_KEY=hid1\nS3_SECRET_ACCESS_KEY=hid2\n", "S3_SECRET_KEY=.*S3_SECRET_ACCESS"),
    ],
)
def test_spellings_that_disagree_are_refused(resolve: Resolve, text: str, names: str) -> None:
    project = resolve(text)
    for service in OURS:
        with pytest.raises(SettingsError, match=names) as caught:
            settings_in(project, service)
        assert "hid" not in str(caught.value)


@pytest.mark.parametrize("text", ["REDIS_PORT=6390\n", "REDIS_HOST=redis\nREDIS_PORT=6390\n"])
def test_the_own_redis_follows_its_port(resolve: Resolve, text: str) -> None:
    project = resolve(text)
    redis = project.services["redis"]
    url = urlsplit(settings_in(project, "app").redis_address or "")
    assert (url.hostname, url.port) == ("redis", 6390)
    assert (url.password or "") == servers(project).get("REDISCLI_AUTH", "")
    assert "6390" in redis["command"]
    assert "-p 6390 " in redis["healthcheck"]["test"][-1]


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("films", "films"),
        ("./films", "films"),
        ("../films", "../films"),
        ("/srv/films", "/srv/films"),
        ("'my films'", "my films"),
        (r"'C:\films\in'", r"C:\films\in"),
        ("D:/films", "D:/films"),
    ],
)
def test_the_folder_is_mounted_where_the_services_look(
    resolve: Resolve, tmp_path: Path, written: str, source: str
) -> None:
    project = resolve(f"WATCH_DIR={written}\n")
    for service in OURS:
        mount = project.mount(service)
        assert mount["source"] in {os.path.normpath(tmp_path / source), source}
        assert mount["target"] == str(settings_in(project, service).watch_dir) == "/watch"
        assert not mount["bind"].get("create_host_path")


def test_another_temporal_and_its_key(resolve: Resolve) -> None:
    project = resolve(
        "TEMPORAL_ADDRESS=fleet-temporal:7233\nTEMPORAL_CODEC_KEY=the-key-of-all-hosts\n"
    )
    for service in OURS:
        settings = settings_in(project, service)
        assert settings.temporal_address == "fleet-temporal:7233"
        assert settings.temporal_codec_key
        assert settings.temporal_codec_key.get_secret_value() == "the-key-of-all-hosts"


def test_a_folder_that_may_be_written(resolve: Resolve) -> None:
    project = resolve("AFTER_UPLOAD=move:/watch/done\nWATCH_DIR_READ_ONLY=false\n")
    assert not project.mount("app")["read_only"]
    assert project.mount("worker")["read_only"]
    assert settings_in(project, "app").after_upload == "move:/watch/done"


def test_ports_follow(resolve: Resolve) -> None:
    project = resolve(
        "PROM_PORT=9100\nWORKER_PORT=9101\nHTTP_HOST=10.0.0.5\nPUBLISH_HOST=10.0.0.5\n"
    )
    assert project.port("app") == ("10.0.0.5", "9100", "9100")
    assert project.port("worker") == ("10.0.0.5", "9101", "9101")
    assert settings_in(project, "app").prom_port == 9100
    assert settings_in(project, "worker").worker_port == 9101
    assert {settings_in(project, service).http_host for service in OURS} == {"0.0.0.0"}
    assert {settings_in(project, service).publish_host for service in OURS} == {"10.0.0.5"}
    # The page then needs a token; it does not where the ports are published to this machine.
    assert {settings_in(resolve(""), service).publish_host for service in OURS} == {"127.0.0.1"}


def test_a_list_in_json_and_paths_of_the_host(resolve: Resolve) -> None:
    text = 'WATCH_FILTER_GLOBS=["*.mp4", "*.mov"]\nFFMPEG_PATH=/opt/ffmpeg\nSTATE_DIR=/var/lib/x\n'
    project = resolve(text)
    for service in OURS:
        settings = settings_in(project, service)
        assert settings.watch_filter_globs == ("*.mp4", "*.mov")
        assert settings.ffmpeg_path == "ffmpeg"
        assert settings.state_dir == Path("/tmp/cefmp4")


def test_a_copy_of_the_example_with_everything_switched_on(resolve: Resolve) -> None:
    lines = example_env().splitlines()
    text = "\n".join(line[1:] for line in lines if line[:1] == "#" and line[1:2].isupper())
    assert {dotenv_values(stream=StringIO(text))["WATCH_DIR"]} == {"local_watch_dir"}
    bare, full = resolve(""), resolve(text)
    for service in OURS:
        assert full.mount(service) == bare.mount(service)
        without_image = {"app_env"}
        assert settings_in(full, service).model_dump(exclude=without_image) == settings_in(
            bare, service
        ).model_dump(exclude=without_image)


def test_every_variable_is_known() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    assert asked <= {*NAMES, *OLD_SPELLINGS, *REDIS_SPELLINGS, *OF_COMPOSE}
    assert {"WATCH_DIR", "PROM_PORT", *REDIS_SPELLINGS} <= asked
    kept = set(OLD_SPELLINGS) - {"PYTHON_LOG_LEVEL", "STREAM_CHUNK_SIZE_MB"}  # not set here
    assert kept <= asked
