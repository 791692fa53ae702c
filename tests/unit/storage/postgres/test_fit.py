import json

import pytest

from cefmp4.storage.postgres.fit import fit_json, fit_text


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("Pr\xfcfung \U0001f3ac", "Pr\xfcfung \U0001f3ac"),
        ("a\0b", "a\ufffdb"),
        ("a\udcffb", "a\ufffdb"),  # a byte of a file name that is no UTF-8
        ("\ud83c", "\ufffd"),  # half of a picture
    ],
)
def test_a_text_has_nothing_that_postgres_refuses(text: str, stored: str) -> None:
    assert fit_text(text) == stored
    stored.encode()


def test_a_document_is_fit_in_all_of_its_depth() -> None:
    document = {"a\0": [{"b": ("\udcff", 1, None, True)}], "c": float("inf"), "d": 0.5}
    assert json.loads(fit_json(document)) == {
        "a\ufffd": [{"b": ["\ufffd", 1, None, True]}],
        "c": None,
        "d": 0.5,
    }
