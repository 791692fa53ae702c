"""What Postgres cannot hold, replaced: no text may have a NUL or half of a surrogate pair, which
names of files and answers of others can, and its JSON knows no numbers without end."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\ufffd"
_UNFIT = re.compile("[\0\ud800-\udfff]")


def fit_text(text: str) -> str:
    return _UNFIT.sub(REPLACEMENT, text)


def fit_json(value: Any) -> str:
    """As the text of a json or jsonb."""
    return json.dumps(_fit(value), separators=(",", ":"), ensure_ascii=False)


def _fit(value: Any) -> Any:
    if isinstance(value, str):
        return fit_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {fit_text(str(name)): _fit(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(one) for one in value]
    return value
