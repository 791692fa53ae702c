"""What Prometheus makes of our scrapes: the alerts that fire, the values of expressions.
promtool's clock begins at 0, so times of day are moved there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "docs" / "alerts.yml"
TARGET = {"job": "cefmp4", "instance": "here"}
INTERVAL_S = 15
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_IS_TIME = "process_start_time_seconds"

PROMTOOL = shutil.which("promtool", path=f"{sys.prefix}/bin:{os.environ.get('PATH', '')}")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing (scripts/promtool fetches it)"
)


class Scrapes:
    """What one instance answered, one scrape an interval. "" stands for no answer."""

    def __init__(self, texts: Sequence[str], began_at: float) -> None:
        self.texts = list(texts)
        self._began_at = began_at

    @property
    def seconds(self) -> int:
        return (len(self.texts) - 1) * INTERVAL_S

    def lasting(self, seconds: float) -> "Scrapes":
        """The last answer again and again."""
        more = int(seconds // INTERVAL_S)
        return Scrapes([*self.texts, *self.texts[-1:] * more], self._began_at)

    def series(self) -> list[dict[str, str]]:
        columns: dict[str, list[str]] = {}
        for number, text in enumerate(self.texts):
            for name, labels, value in _SAMPLE.findall(text):
                at = f"{float(value) - self._began_at}" if name == _IS_TIME else value
                column = columns.setdefault(_named(name, labels), [])
                column += ["_"] * (number - len(column)) + [at]
        for column in columns.values():
            if len(column) < len(self.texts):
                column.append("stale")
        return [{"series": name, "values": " ".join(v)} for name, v in columns.items()]


def _named(name: str, labels: str) -> str:
    target = ",".join(f'{key}="{value}"' for key, value in TARGET.items())
    return f"{name}{{{','.join(filter(None, (labels, target)))}}}"


def _run(folder: Path, scrapes: Scrapes, cases: Sequence[Mapping[str, object]]) -> None:
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{INTERVAL_S}s",
        "tests": [
            {
                "interval": f"{INTERVAL_S}s",
                "input_series": scrapes.series(),
                "promql_expr_test": list(cases),
            }
        ],
    }
    path = folder / "promtool.json"
    path.write_text(json.dumps(test))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check_alerts(folder: Path, scrapes: Scrapes, fired: set[str]) -> None:
    """Fails unless just these alerts fired at some moment."""
    firing = 'group by (alertname) (max_over_time(ALERTS{alertstate="firing"}[100h]))'
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in fired]
    case = {"expr": firing, "eval_time": f"{scrapes.seconds}s", "exp_samples": expected}
    _run(folder, scrapes, [case])


def check_value(folder: Path, scrapes: Scrapes, expression: str, value: float) -> None:
    """`expression` of all that was scraped, as one number; $range is how long that took."""
    case = {
        "expr": expression.replace("$range", f"{scrapes.seconds}s"),
        "eval_time": f"{scrapes.seconds}s",
        "exp_samples": [{"labels": "{}", "value": value}],
    }
    _run(folder, scrapes, [case])
