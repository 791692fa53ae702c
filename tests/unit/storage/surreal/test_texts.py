"""What SurrealDB cannot give back is spelled out, and nothing else is changed."""

import pytest

from cefmp4.storage.surreal.texts import storable


@pytest.mark.parametrize("value", ["", "é ⟩ '", {"a": [1, 2.5, None, True, {"b": "c"}]}, None, 5])
def test_what_it_can_keep_stays(value: object) -> None:
    assert storable(value) == value


def test_what_it_cannot_keep_is_spelled_out() -> None:
    assert storable({"a\0": ["\ud800x", ("\0",)]}) == {"a\\x00": ["\\ud800x", ["\\x00"]]}
