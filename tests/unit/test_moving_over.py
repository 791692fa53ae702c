"""docs/moving-over.md says of every name that the three older systems had what has its place, and
the code agrees."""

import re
from pathlib import Path

import pytest

from cefmp4.config.spellings import _MOVED, NAMES, NOT_YET, OLD_SPELLINGS, REDIS_SPELLINGS
from cefmp4.metrics import REGISTRY

PAGE = (Path(__file__).parents[2] / "docs/moving-over.md").read_text()
_ROW = re.compile(r"^\| `?([A-Za-z_0-9]+)`? \| (?:`(\w+)`)? ?\| (.*?) ?\|$", re.MULTILINE)
ROWS = {old: (new, note) for old, new, note in _ROW.findall(PAGE)}
PROMISED = [
    "APP_ENV",
    "LOG_LEVEL",
    "PROM_PORT",
    "MAX_CONCURRENT_STREAMS",
    "WATCH_DIR",
    "CHUNK_SIZE_BYTES",
    "STREAM_TIMEOUT_SECONDS",
    "S3_ENDPOINT_URL",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "S3_BUCKET_NAME",
    "S3_REGION_NAME",
    "REDIS_URL",
    "FFPROBE_PATH",
    "WATCH_FILTER_GLOBS",
    "WATCH_FILE_MIN_AGE_SECONDS_FOR_IDLE",
    "PYTHON_LOG_LEVEL",
    "REDIS_HOST",
    "REDIS_PORT",
    "STREAM_CHUNK_SIZE_MB",
    "S3_ENDPOINT",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_BUCKET",
    "JOB_SOURCE_TYPE",
    "STORAGE_TYPE",
    "DATABASE_URL",
    "POSTGRES_POOL_SIZE",
    "POSTGRES_TIMEOUT",
    "AWS_SQS_QUEUE_URL",
    "AWS_REGION",
    "SQS_MAX_MESSAGES",
    "SQS_WAIT_TIME",
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "WEBHOOK_PORT",
    "AWS_S3_BUCKET",
    "S3_PREFIX",
    "METADATA_STORAGE",
    "FILE_STORAGE",
    "SURREAL_ENDPOINT",
    "SURREAL_USERNAME",
    "SURREAL_PASSWORD",
    "SURREAL_NAMESPACE",
    "SURREAL_DATABASE",
    "MAX_FRAMES_PER_VIDEO",
    "ENABLE_TRANSCRIPTION",
    "ENABLE_VISION_ANALYSIS",
    "ENABLE_EMBEDDINGS",
    "WORKER_POLL_MS",
    "WORKER_MAX_ATTEMPTS",
    "WORKER_DEV_HTTP",
    "WORKER_HTTP_PORT",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "VISION_MAX_CONCURRENT",
]


@pytest.mark.parametrize("name", PROMISED)
def test_every_setting_that_people_have_is_in_a_table_and_means_what_it_says(name: str) -> None:
    new, note = ROWS[name]
    if "not yet" in note:
        assert name in NOT_YET
    elif "gone" in note:
        assert name in _MOVED
    elif name != new:
        assert OLD_SPELLINGS.get(name) == new or (name in REDIS_SPELLINGS and new == "REDIS_URL")
        assert "older spelling" in note
    else:
        assert name in NAMES


def test_no_setting_of_before_is_left_out_of_the_page() -> None:
    assert {*OLD_SPELLINGS, *REDIS_SPELLINGS, *NOT_YET, *_MOVED} <= ROWS.keys()


def test_the_metrics_are_there() -> None:
    named = [old for old, (new, _) in ROWS.items() if old == new and old.islower()]
    metrics = [name for name in named if name.startswith(("video_", "active_", "streams_"))]
    ours = {family.name for family in REGISTRY.collect()}
    assert len(metrics) == 8
    assert {name.removesuffix("_total") for name in metrics} <= ours
