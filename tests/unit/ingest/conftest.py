from tests.support.rig import hashing, rig
from tests.support.routed_rig import routed

__all__ = ["hashing", "rig", "routed"]  # fixtures
