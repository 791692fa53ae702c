"""A driver that is missing is named with its extra."""

import sys

import pytest

from cefmp4.errors import SettingsError
from cefmp4.storage.postgres import check_installed


@pytest.mark.parametrize("package", ["psycopg", "psycopg_pool"])
def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"DATABASE_URL.*pip install 'cefmp4\[postgres\]'"):
        check_installed()
