"""A driver that is not installed is named, with what brings it."""

import sys

import pytest

from cefmp4.app.extras import load
from cefmp4.config.backends import RESULTS, SOURCES
from cefmp4.errors import SettingsError


@pytest.mark.parametrize(
    ("group", "name", "module", "missing", "extra"),
    [
        (SOURCES, "postgres", "cefmp4.jobs.sources.postgres", "psycopg", "postgres"),
        (RESULTS, "postgres", "cefmp4.results.postgres", "psycopg_pool", "postgres"),
        (SOURCES, "surrealdb", "cefmp4.jobs.sources.surrealdb", "surrealdb", "surrealdb"),
    ],
)
async def test_what_is_not_installed_is_named_with_its_extra(
    group: str, name: str, module: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [
        one for one in sys.modules if one.startswith((missing, "cefmp4.storage.")) or one == module
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError, match=f"JOBS=x needs the package {missing}") as refused:
        await load({name: module}, group, name, "JOBS=x")
    assert refused.value.hint == f"pip install 'cefmp4[{extra}]'"
