"""What SurrealDB takes and cannot give back, or its client cannot send."""

from typing import TypeVar

T = TypeVar("T")


def storable(value: T) -> T:
    """The same with such characters spelled out, in all that it holds. It must be fit for JSON."""
    return _storable(value)  # type: ignore[return-value]


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_storable(name): _storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
