"""What may be told to whoever listens at WEBHOOK_URL."""

from enum import StrEnum


class MessageType(StrEnum):
    STORED = "recording.stored"  # its object is proven, and described
    COMPLETED = "job.completed"
    FAILED = "job.failed"  # or was cancelled: its reason says


class Delivery(StrEnum):
    """What became of one try."""

    DELIVERED = "delivered"
    FAILED = "failed"  # it is tried again
    GONE = "gone"  # nobody wants to know any more
