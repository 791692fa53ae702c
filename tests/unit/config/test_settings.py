"""What the settings of jobs take, and how they refuse the rest."""

from typing import Any

import pytest

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.config.worker import GpuUse
from cefmp4.errors import SettingsError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load() -> tuple[Settings, list[str]]:
    return load_settings(env_file=None)


def test_defaults_of_jobs() -> None:
    settings, warnings = load()
    assert (settings.worker_port, settings.worker_drain_seconds) == (8001, 10)
    assert (settings.hls_remux, settings.hls_thumbnails) == (True, True)
    assert settings.hls_gpu is GpuUse.AUTO
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HLS_REMUX", "false", False),
        ("HLS_THUMBNAILS", "0", False),
        ("HLS_GPU", "off", GpuUse.OFF),
        ("HLS_RUNGS", "360, 1080,720,720", (1080, 720, 360)),
        ("WORKER_DRAIN_SECONDS", "0.5", 0.5),
        ("WORKER_PORT", "0", 0),
        ("POSTGRES_JOBS_NAMES", "key=k, bucket=", ("key=k", "bucket=")),
        ("POSTGRES_JOBS_NAMES", "pending=not yet!", ("pending=not yet!",)),
    ],
)
def test_values_that_are_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: Any
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load()[0], name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HLS_REMUX", "maybe"),
        ("POSTGRES_JOBS_TABLE", "a.b.c"),
        ("POSTGRES_JOBS_NAMES", "key"),
        ("POSTGRES_JOBS_NAMES", "id="),
        ("POSTGRES_JOBS_NAMES", "done="),
        ("POSTGRES_JOBS_NAMES", "key=two words"),
        ("POSTGRES_JOBS_NAMES", "colour=red"),
        ("HLS_GPU", "on"),
        ("HLS_RUNGS", "1080p"),
        ("HLS_RUNGS", "1080,-720"),
        ("HLS_RUNGS", "721"),
        ("HLS_RUNGS", "118"),
        ("HLS_RUNGS", "4322"),
        ("HLS_RUNGS", ","),
        ("WORKER_DRAIN_SECONDS", "-1"),
        ("WORKER_DRAIN_SECONDS", "1e9"),
        ("WORKER_PORT", "65536"),
    ],
)
def test_values_that_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}={value}: "):
        load()


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.eu-west-1.amazonaws.com/123456789012/recordings",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/recordings.fifo",
        "http://elasticmq:9324/000000000000/jobs_of-today",
        "http://[::1]:9324/queue/jobs",
    ],
)
def test_addresses_of_queues(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_SQS_QUEUE_URL", url)
    assert load()[0].aws_sqs_queue_url == url


@pytest.mark.parametrize(
    "url",
    [
        "recordings",
        "arn:aws:sqs:eu-west-1:123456789012:recordings",
        "https://sqs.eu-west-1.amazonaws.com",
        "https://sqs.eu-west-1.amazonaws.com/recordings",
        "https://key:secret@sqs.eu-west-1.amazonaws.com/1/recordings",
        "sqs://box/1/recordings",
        "http://box:99999/1/recordings",
        "http://box/1/re cordings",
        "http://box/1/recordings?Action=DeleteQueue",
        "http://box/1/recordings#x",
    ],
)
def test_what_is_no_address_of_a_queue(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_SQS_QUEUE_URL", url)
    with pytest.raises(SettingsError, match=r"^AWS_SQS_QUEUE_URL=.*(it must|its port)") as refused:
        load()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "wants"),
    [
        ({}, False),
        ({"JOB_SOURCE_TYPE": "postgres"}, True),
        ({"STORAGE_TYPE": "postgres"}, True),
        ({"STORAGE_TYPE": "hybrid"}, True),
        ({"STORAGE_TYPE": "postgres", "HANDOVER_JOBS": "none"}, False),  # no results at all
    ],
)
def test_postgres_is_wanted_by_whom_it_serves(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], wants: bool
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert load()[0].wants_postgres is wants
