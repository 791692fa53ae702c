import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cefmp4.jobs.workplace import open_workplace, sweep

_HOLDER = """
import sys, time
from pathlib import Path
from cefmp4.jobs.workplace import open_workplace
with open_workplace(Path(sys.argv[1])) as workplace, workplace.attempt("hls-1") as folder:
    (folder / "left").write_bytes(b"x")
    print("there", flush=True)
    time.sleep(60)
"""


def test_an_attempts_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with open_workplace(tmp_path) as workplace:
        with suppress(ZeroDivisionError), workplace.attempt("hls-1") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_bytes(b"x")
            raise ZeroDivisionError
        assert not folder.exists()
        assert list(workplace.folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_folders_of_dead_workers_are_swept(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"there\n"
        assert sweep(tmp_path) == []
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert len(list(tmp_path.glob("worker-*/*/left"))) == 1
    with open_workplace(tmp_path) as workplace:
        assert list(tmp_path.iterdir()) == [workplace.folder]
