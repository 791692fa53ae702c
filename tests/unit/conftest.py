"""What the unit tests share."""

from tests.support.leaping_loop import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
