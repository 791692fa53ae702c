from tests.support.ingest_site import site
from tests.support.ingest_world import hashing, world

__all__ = ["hashing", "site", "world"]  # fixtures
