"""Each alert of docs/alerts.yml on what the product really exports: it fires for its cause, by
itself, and a healthy process fires none. The counts are made by a process of its own, whose
registry is as young as the service's at its start."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.promtool import RULES, Scrapes, check_alerts, check_value, needs_promtool

HOUR = 3600
HEALTHY = """
from cefmp4 import metrics as m
from prometheus_client import generate_latest
def scrape(): texts.append(generate_latest(m.REGISTRY).decode())
texts = []
m.is_live.set(1), m.is_ready.set(1)
m.server_up.labels("s3").set(1), m.server_up.labels("redis").set(1)
m.queues_measured("hls", depth=0, age_s=0, workers=1)
m.disk_folders["state_dir"] = "."
m.disk_free.labels("watch_dir").set(50), m.disk_size.labels("watch_dir").set(100)
"""
CAUSES = {
    "CefMP4Stalled": "m.is_live.set(0)",
    "CefMP4NotReady": "m.is_ready.set(0)",
    "CefMP4ServerAway": "m.server_up.labels('s3').set(0)",
    "CefMP4Behind": "m.seconds_behind.set(301)",
    "CefMP4StreamFailed": "m.streams_failed.inc()",
    "CefMP4ProofFailed": "m.count_failure('proof', 'a')",
    "CefMP4UploadGone": "m.count_failure('upload_gone', 'a')",
    "CefMP4EventsDropped": "m.events_dropped.inc()",
    "CefMP4LeasesLost": "m.leases_lost.inc()",
    "CefMP4OrphanUploads": "m.orphan_uploads.set(1)",
    "CefMP4DiskFull": "m.disk_free.labels('watch_dir').set(4)",
    "CefMP4JobFailed": "m.job_results.labels('hls', 'dead_letter').inc()",
    "CefMP4NoWorker": "m.queues_measured('hls', depth=1, age_s=0, workers=0)",
    "CefMP4JobsWait": "m.queues_measured('hls', depth=1, age_s=3601, workers=1)",
}
LASTING = {"CefMP4OrphanUploads": 25 * HOUR + 60}

pytestmark = [needs_promtool, pytest.mark.integration]


def scrapes_of(code: str) -> Scrapes:
    """What a new process exports that does this."""
    program = f"{HEALTHY}\n{code}\nimport json; print(json.dumps(texts))"
    began_at = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return Scrapes(json.loads(done.stdout), began_at)


def test_a_healthy_process_alarms_nobody(tmp_path: Path) -> None:
    work = """
scrape()
m.streams.begin('a'), m.count_part('a', 100, is_copy=False), m.active_streams.inc()
scrape()
m.streams_completed.inc(), m.streams.end('a', 0), m.active_streams.dec(), m.seconds_behind.set(20)
m.job_results.labels('hls', 'complete').inc(), m.count_failure('part_upload')
scrape()
"""
    check_alerts(tmp_path, scrapes_of(work).lasting(2 * HOUR), set())


@pytest.mark.parametrize("alert", CAUSES)
def test_an_alert_fires_for_its_cause_alone(tmp_path: Path, alert: str) -> None:
    code = f"scrape(); scrape(); m.streams.begin('a'); scrape()\n{CAUSES[alert]}\nscrape()"
    check_alerts(tmp_path, scrapes_of(code).lasting(LASTING.get(alert, 600)), {alert})


@pytest.mark.parametrize(
    "alert", ["CefMP4StreamFailed", "CefMP4ProofFailed", "CefMP4UploadGone", "CefMP4JobFailed"]
)
def test_what_failed_before_the_first_scrape_counts(tmp_path: Path, alert: str) -> None:
    check_alerts(tmp_path, scrapes_of(f"{CAUSES[alert]}; scrape()").lasting(60), {alert})


def test_a_process_that_is_gone_is_missed(tmp_path: Path) -> None:
    check_alerts(tmp_path, scrapes_of("scrape(); texts.append('')").lasting(600), {"CefMP4Gone"})


def test_every_alert_is_tested() -> None:
    names = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert names == {*CAUSES, "CefMP4Gone"}


STREAMS = """
scrape()
m.streams.begin('short'), m.count_part('short', 10, is_copy=False)
m.count_failure('proof', 'short'), m.streams.end('short', 0), m.streams.begin('long')
scrape(), scrape()
for _ in range(4): m.count_part('long', 10, is_copy=False), scrape()
m.count_failure('proof', 'long'), scrape(), m.count_failure('proof', 'long'), scrape()
for _ in range(150): scrape()
m.streams.end('long', 100), scrape()
m.streams.sweep(300), scrape(), scrape()
"""


@pytest.mark.parametrize("per_stream", [True, False])
def test_rates_and_increases_count_everything_once(tmp_path: Path, per_stream: bool) -> None:
    """As users ask, with and without series per stream. Rounded, as Prometheus takes a series that
    ends to have gone on for half an interval."""
    scrapes = scrapes_of(f"m.streams.is_per_stream = {per_stream}\n{STREAMS}")
    rate = f"round(sum(rate(video_chunks_uploaded_total[$range])) * {scrapes.seconds})"
    bytes_sent = "round(sum(increase(video_bytes_uploaded_total[$range])))"
    failures = 'round(sum(increase(video_failed_operations_total{operation_type="proof"}[$range])))'
    check_value(tmp_path, scrapes, rate, 5)
    check_value(tmp_path, scrapes, bytes_sent, 50)
    check_value(tmp_path, scrapes, failures, 3)
    living = Scrapes(scrapes.texts[:-2], 0.0)
    check_value(tmp_path, living, "sum(video_bytes_uploaded_total)", 50)
