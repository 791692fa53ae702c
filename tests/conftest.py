"""What all tests share."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from tests.support.leaping_loop import LeapingLoop

pytest_plugins = [
    "tests.support.postgres_server",
    "tests.support.servers",
    "tests.support.sqs_server",
    "tests.support.temporal_server",
]


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("leaps"):
        return {"leaping": LeapingLoop}
    return {"usual": asyncio.new_event_loop}
