"""example.env and the settings say the same."""

import re
from enum import StrEnum
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from cefmp4.config.example import render
from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "example.env"


def uncommented(text: str) -> str:
    """The example with every setting switched on; explanations begin with a blank after '#'."""
    lines = text.splitlines()
    return "\n".join(line[1:] for line in lines if line[:1] == "#" and line[1:2].isupper())


def test_the_file_is_up_to_date() -> None:
    assert EXAMPLE.read_text() == render(), "run: python -m cefmp4.config.example > example.env"


def test_every_setting_is_there_once_and_explained() -> None:
    names = [line.partition("=")[0] for line in uncommented(render()).splitlines()]
    assert names == [name.upper() for name in Settings.model_fields]
    assert all(field.description for field in Settings.model_fields.values())


def test_a_copy_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text(uncommented(render()))
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
        explained = render().partition(f"\n#{name.upper()}=")[0].rpartition("\n\n")[2]
        spelled_otherwise = {
            word for word in re.findall(r"[\w+]+", explained) if word.lower() in set(kind)
        }
        assert spelled_otherwise <= set(kind), explained


def test_no_secret_has_a_value() -> None:
    values = dotenv_values(stream=StringIO(uncommented(render())))
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Secret" in str(field.annotation)
    }
    assert len(secrets) >= 3
    assert {values[name] for name in secrets | {"S3_ACCESS_KEY_ID"}} == {""}
