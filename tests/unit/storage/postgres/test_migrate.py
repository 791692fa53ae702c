"""What is shipped of migrations."""

from pathlib import Path

import pytest

from cefmp4.storage.postgres.migrate import shipped


def test_they_are_numbered_one_by_one() -> None:
    found = shipped()
    assert [one.version for one in found] == [*range(1, len(found) + 1)]
    assert all(one.statements.strip() for one in found)


@pytest.mark.parametrize("names", [["0002_b"], ["0001_a", "0003_c"], ["0001_a", "0001_b"]])
def test_a_gap_or_a_number_twice_is_a_mistake_of_ours(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / f"{name}.sql").touch()
    with pytest.raises(ValueError, match="not numbered one by one"):
        shipped(tmp_path)
