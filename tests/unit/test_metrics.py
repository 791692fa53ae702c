"""docs/metrics.md lists what is exported, no more and no less; what can be known is born at 0."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

import cefmp4
from cefmp4 import metrics
from cefmp4.ingest.fate import End
from cefmp4.ingest.rules import StaleOutcome
from cefmp4.jobs.outcomes import Outcome
from cefmp4.model.job import OFFERED_KINDS, FailReason
from cefmp4.stream_series import STREAM_ID, StreamCounter
from cefmp4.watch.rescans import RescanCause

SOURCE = Path(cefmp4.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "metrics.md"
FAILED_ENDS = {End.FAILED, End.TRUNCATED}


def exported() -> str:
    return generate_latest(metrics.REGISTRY).decode()


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {
        name: (kind, tuple(re.findall(r"\w+", labels.replace("†", ""))))
        for name, kind, labels in rows
    }


def labels_in_code() -> dict[str, tuple[str, ...]]:
    """Of the metrics that have any. `stream_id` comes with METRICS_PER_STREAM."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, StreamCounter):
            found[metric.name] = (*filter(None, [metric.label]), STREAM_ID)
        elif isinstance(metric, MetricWrapperBase) and metric._labelnames:
            suffix = "_total" if metric._type == "counter" else ""
            found[metric._name + suffix] = tuple(metric._labelnames)
    return found | {"cefmp4_build_info": ("version",)}


def test_the_page_lists_every_metric_with_its_type() -> None:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", exported(), re.MULTILINE))
    assert {name: kind for name, (kind, _) in documented().items()} == kinds


def test_the_page_lists_the_labels() -> None:
    assert {name: labels for name, (_, labels) in documented().items() if labels} == (
        labels_in_code()
    )


def test_the_page_of_operations_shows_the_rules_and_says_what_each_alert_means() -> None:
    page, rules = (DOCS / "operations.md").read_text(), (DOCS / "alerts.yml").read_text()
    assert f"```yaml\n{rules}```" in page
    assert re.findall(r"^\| `(CefMP4\w+)`", page, re.MULTILINE) == re.findall(
        r"- alert: (\w+)", rules
    )


def test_no_series_tells_when_another_was_created() -> None:
    assert "_created" not in exported()


def _values(family: str, label: str) -> set[str]:
    return set(re.findall(rf'^{family}{{.*?\b{label}="(.*?)"', exported(), re.MULTILINE))


def test_known_label_values_are_there_from_the_start() -> None:
    assert set(RescanCause) <= _values("cefmp4_rescans_total", "cause")
    assert set(StaleOutcome) <= _values("cefmp4_stale_streams_total", "outcome")
    assert set(metrics.SERVERS) <= _values("cefmp4_retries_total", "server")
    assert set(OFFERED_KINDS) <= _values("cefmp4_job_results_total", "kind")
    assert {*Outcome, *FailReason} == _values("cefmp4_job_results_total", "outcome")
    assert {"cpu", "gpu"} <= _values("cefmp4_job_slots_in_use", "slot")
    assert _values("video_failed_operations_total", "operation_type") >= FAILED_ENDS


def _operations() -> Iterator[str]:
    """What the code says is an operation that may fail."""
    for path in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            if ast.unparse(call.func).endswith("count_failure"):
                yield from _texts(call.args[:1])
            elif ast.unparse(call.func).endswith("patiently"):
                yield from _texts([k.value for k in call.keywords if k.arg == "what"])


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant):
            yield str(node.value).replace(" ", "_")


def test_each_operation_of_the_code_is_born_at_0() -> None:
    found = set(_operations())
    assert {"part_upload", "upload_gone"} <= found
    assert found <= set(metrics.FAILED_OPERATIONS)


def test_a_queue_nobody_can_look_into_has_no_depth() -> None:
    metrics.queues_measured(OFFERED_KINDS[0], depth=3, age_s=1, workers=1)
    assert "cefmp4_job_queue_depth{" in exported()
    metrics.queues_unknown()
    assert "cefmp4_job_queue_depth{" not in exported()


def test_a_disk_that_is_gone_has_no_room(tmp_path: Path) -> None:
    metrics.disk_folders["t"] = tmp_path / "there"
    (tmp_path / "there").mkdir()
    try:
        metrics.measure_disks()
        assert 'cefmp4_disk_free_bytes{folder="t"}' in exported()
        (tmp_path / "there").rmdir()
        metrics.measure_disks()
        assert 'cefmp4_disk_free_bytes{folder="t"}' not in exported()
    finally:
        del metrics.disk_folders["t"]
