"""Whether a server answers and does what we ask, as told by every request to it. An outage is one
line when it begins and one when it is over, however many requests it meets; health checks and
metrics tell of it at once."""

import contextvars
import logging
import time
from collections.abc import Callable
from functools import partial

import structlog

from cefmp4 import metrics
from cefmp4.errors import AccessDeniedError, ServerUnreachableError, StoreFullError

log = structlog.get_logger()

# So long without a failure, and the outage is over: a Redis whose disk is full answers every
# reading request between two writing ones that it refuses.
SETTLED_S = 3.0
FULL_MEMORY_S = 30.0  # whoever was refused asks again within seconds; if not, nobody knows


class Reachability:
    is_told = False  # see tell_of_outages

    def __init__(
        self,
        name: str,
        *,
        held_up: str = "uploads and jobs",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._held_up = held_up
        self._server = name.lower()  # in metrics and logs
        self._clock = clock
        self._began_at: float | None = None
        self._failed_at = 0.0
        self._is_silent = False  # nobody knows of a server that was not asked yet
        self._full_at: float | None = None
        self._refusals: dict[str, str] = {}  # by operation: each is a right of its own

    def __repr__(self) -> str:
        return f"<Reachability {self._server} away_since={self._began_at}>"

    def failed(self, error: BaseException) -> None:
        is_full = isinstance(error, StoreFullError)
        self._is_silent = not is_full  # a refusal is an answer
        metrics.server_up.labels(self._server).set(float(is_full))
        self._failed_at = self._clock()
        if is_full:
            self._full_at = self._failed_at
        # Of other errors it answered, if badly.
        is_outage = is_full or isinstance(error, ServerUnreachableError)
        if is_outage and self._began_at is None and self.is_told:
            self._began_at = self._failed_at
            trouble = "has no space left" if is_full else "does not answer"
            self._tell(f"{self._name} {trouble}: {self._held_up} wait", reason=str(error))

    def answered(self) -> None:
        self._is_silent = False
        metrics.server_up.labels(self._server).set(1)
        if self._began_at is None or self._clock() - self._failed_at < SETTLED_S:
            return
        seconds, self._began_at = self._failed_at - self._began_at, None
        self._tell(f"{self._name} answers again after {seconds:.0f} s")

    def allowed(self, operation: str) -> None:
        """It answered, and did what was asked."""
        self.answered()
        self._refusals.pop(operation, None)

    def refused(self, operation: str, error: AccessDeniedError) -> None:
        self._refusals[operation] = str(error.args[0])

    def has_room(self) -> None:
        """It has stored something."""
        self._full_at = None

    @property
    def is_full(self) -> bool:
        return self._full_at is not None and self._clock() - self._full_at < FULL_MEMORY_S

    @property
    def troubles(self) -> list[str]:
        """Why nothing goes on, for health checks; a refusal until the same request is taken."""
        return [
            *([f"{self._name} does not answer"] if self._is_silent else []),
            *([f"the disk of the {self._name} server is full"] if self.is_full else []),
            *(f"{self._name} refuses us: {reason}" for reason in self._refusals.values()),
        ]

    def _tell(self, event: str, **fields: object) -> None:
        """Without the ids of the stream or job whose request noticed it: it meets all of them."""
        contextvars.Context().run(partial(log.warning, event, server=self._server, **fields))


REDIS = Reachability("Redis", held_up="uploads")
S3 = Reachability("S3")
TEMPORAL = Reachability("Temporal", held_up="jobs")
POSTGRES = Reachability("Postgres", held_up="jobs and their results")
SQS = Reachability("SQS", held_up="the jobs in its queue")
SURREALDB = Reachability("SurrealDB", held_up="its jobs and results")
WEBHOOK_URL = Reachability("WEBHOOK_URL", held_up="callbacks")
metrics.server_full.labels("s3").set_function(lambda: float(S3.is_full))


def tell_of_outages() -> None:
    """For processes that wait until a server is back; a command that ends says so by itself."""
    Reachability.is_told = True


def level_of(error: BaseException) -> int:
    """At which level to log that something did not work because of this error: a silent server was
    told of already, for all that wait for it."""
    is_told = Reachability.is_told and isinstance(error, ServerUnreachableError)
    return logging.DEBUG if is_told else logging.WARNING
