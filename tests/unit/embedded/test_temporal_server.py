"""Tests of cefmp4.embedded.temporal_server."""

from pathlib import Path

from cefmp4.embedded.temporal_server import command, temporal_process


def test_it_has_a_page_only_where_one_is_wanted() -> None:
    told = command("temporal", "/data", 7233, None)
    assert told[1:3] == ["server", "start-dev"]
    assert "--ip=127.0.0.1" in told
    assert "--headless" in told
    shown = command("temporal", "/data", 7233, 8000)
    assert "--headless" not in shown
    assert "--ui-port=8000" in shown
    assert "--ui-disable-news-fetch" in shown  # its makers would learn of each look at it


def test_new_data_is_told_anew_how_long_to_keep_jobs(tmp_path: Path) -> None:
    told = tmp_path / "temporal" / "keeps-30-days"
    temporal_process(tmp_path, 7233)
    (tmp_path / "temporal" / "temporal.db").touch()
    told.touch()
    temporal_process(tmp_path, 7233)
    assert told.exists()
    (tmp_path / "temporal" / "temporal.db").unlink()
    temporal_process(tmp_path, 7233)
    assert not told.exists()
