"""What is said before anything is sent."""

import argparse

import pytest

from cefmp4.commands import upload


@pytest.mark.parametrize("prefix", ["..", "a/../b", "./", "x" * 1100])
def test_a_prefix_that_fits_no_key_is_one_error(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    upload.add_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["folder", "--prefix", prefix])
    assert "argument --prefix: " in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "/", "a", "a/b/"])
def test_others_are_taken(prefix: str) -> None:
    parser = argparse.ArgumentParser()
    upload.add_arguments(parser)
    assert parser.parse_args(["folder", "--prefix", prefix]).prefix == prefix
