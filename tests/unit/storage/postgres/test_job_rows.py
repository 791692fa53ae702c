"""What POSTGRES_JOBS_NAMES says of a table."""

import pytest

from cefmp4.errors import SettingsError
from cefmp4.storage.postgres.job_rows import NEEDED, Names


def test_without_a_word_everything_is_called_as_ours() -> None:
    names = Names.of()
    assert all(ours == theirs for ours, theirs in names.columns.items())
    assert set(NEEDED) < names.columns.keys()
    assert list(names.states) == ["pending", "processing", "done", "failed"]


def test_columns_and_states_have_the_names_of_the_users() -> None:
    names = Names.of(("key = object_key", "bucket=", "done=it is ready"))
    assert (names.columns["key"], names.states["done"]) == ("object_key", "it is ready")
    assert "bucket" not in names.columns
    assert names.columns["priority"] == "priority"


@pytest.mark.parametrize(
    ("pairs", "twice"),
    [
        (("error=result",), "the column result"),
        (("pending=new", "failed=new"), "the state new"),
    ],
)
def test_no_name_may_stand_for_two(pairs: tuple[str, ...], twice: str) -> None:
    with pytest.raises(SettingsError, match=f"POSTGRES_JOBS_NAMES: {twice} is named twice"):
        Names.of(pairs)
