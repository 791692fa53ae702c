"""What ffmpeg and ffprobe say is kept short, counted, and told without secrets."""

import pytest

from cefmp4.media.stderr import Stderr, last_line


def test_what_the_encoder_says_of_the_machine_is_no_fault_of_the_recording() -> None:
    complaints = Stderr()
    complaints.add(b"x265 [error]: Failed to genrate CPU mask\n[h264 @ 0x1] [error] broken\n")
    assert complaints.errors == 1


def test_endless_complaints_stay_small() -> None:
    complaints = Stderr()
    for _ in range(1000):
        complaints.add(b"[error] x" * 100 + b"\n" + b"y" * 10_000)
    assert len(complaints.head) < 20_000
    assert len(complaints.tail) < 10_000
    assert complaints.errors == 1000


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("[mov,mp4 @ 0x55d1] moov atom not found\n", "moov atom not found"),
        ("[error] https://s3/clip?X-Amz-Signature=abc: Server returned 403\n", ""),
        ("file:/proc/self/fd/7: Invalid data found\n", "Invalid data found"),
        ("", ""),
    ],
)
def test_what_ffmpeg_said_is_cleaned(stderr: str, said: str) -> None:
    line = last_line(stderr)
    assert "Signature" not in line
    assert said in line


def test_what_is_an_error_says_more_than_a_warning_after_it() -> None:
    said = (
        "[Parsed_zscale_0 @ 0x55ba] [error] code 3074: no path between colorspaces\n"
        "[libx265 @ 0x55bb] [warning] 2 frames left in the queue on closing\n"
    )
    assert last_line(said) == "code 3074: no path between colorspaces"
    assert last_line("[mov @ 0x1] [warning] alone\n") == "alone"
