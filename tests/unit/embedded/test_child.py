"""Tests of cefmp4.embedded.child."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from cefmp4.embedded.child import die_with_parent
die_with_parent(int(sys.argv[1]))
print("alive")
"""


@pytest.mark.parametrize(
    ("parent", "output"), [(os.getpid(), "alive\n"), (2**22 + 1, "")], ids=["here", "gone"]
)
def test_a_server_whose_parent_is_gone_does_not_start(parent: int, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout == output
