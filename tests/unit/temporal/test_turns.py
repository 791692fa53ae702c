"""Folders get their turns by a key that the engine takes, whatever their names are made of."""

import pytest

from cefmp4.temporal.desk import MOST_KEY_BYTES, turns_of


@pytest.mark.parametrize("folder", ["", "cam1", "Kamera Süd/Höfe"])
def test_a_folder_that_fits_can_be_read_in_the_engine(folder: str) -> None:
    assert turns_of(folder) == folder


@pytest.mark.parametrize("folder", ["ü" * 40, "a" * 65, "cam\udcff", "a\nb", "日本" * 30])
def test_any_other_has_a_key_of_its_own(folder: str) -> None:
    key = turns_of(folder)
    assert len(key.encode()) <= MOST_KEY_BYTES
    assert key != turns_of(folder + "x")
