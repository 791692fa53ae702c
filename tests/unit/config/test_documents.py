"""example.env, docs/configuration.md and the settings say the same."""

import re
from collections.abc import Callable
from enum import StrEnum
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from cefmp4.config.documents import SECTIONS, configuration_page, example_env
from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings

ROOT = Path(__file__).parents[3]


def uncommented(text: str) -> str:
    """The example with every setting switched on; explanations begin with a blank after '#'."""
    lines = text.splitlines()
    return "\n".join(line[1:] for line in lines if line[:1] == "#" and line[1:2].isupper())


@pytest.mark.parametrize(
    ("name", "render"),
    [("example.env", example_env), ("docs/configuration.md", configuration_page)],
)
def test_the_file_is_up_to_date(name: str, render: Callable[[], str]) -> None:
    assert (ROOT / name).read_text() == render(), "run: python -m cefmp4.config.documents"


def test_each_setting_is_in_one_section() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)


def test_every_setting_is_there_once_and_explained() -> None:
    names = [line.partition("=")[0] for line in uncommented(example_env()).splitlines()]
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_a_copy_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text(uncommented(example_env()))
    assert load_settings(tmp_path / ".env")[0] == Settings()


def test_values_are_spelled_as_they_are_accepted() -> None:
    kinds = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum)
    }
    assert len(kinds) >= 6
    for name, kind in kinds.items():
        words = re.findall(r"[\w+]+", Settings.model_fields[name].description or "")
        assert set(kind) <= set(words), f"{name}: {words}"
        explained = example_env().partition(f"\n#{name.upper()}=")[0].rpartition("\n\n")[2]
        spelled_otherwise = {
            word for word in re.findall(r"[\w+]+", explained) if word.lower() in set(kind)
        }
        assert spelled_otherwise <= set(kind), explained


def test_no_secret_has_a_value() -> None:
    values = dotenv_values(stream=StringIO(uncommented(example_env())))
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Secret" in str(field.annotation)
    }
    assert len(secrets) >= 3
    assert {values[name] for name in secrets | {"S3_ACCESS_KEY_ID"}} == {""}
