"""What a server refuses us although it answers: until it takes the same request again, nothing goes
on, so health checks must say so. Told by every request, as `reachability` is."""

from cefmp4.errors import AccessDeniedError


class Refusals:
    def __init__(self, server: str) -> None:
        self._server = server
        self._reasons: dict[str, str] = {}  # by operation: each is a right of its own

    def __repr__(self) -> str:
        return f"<Refusals {self._server} {sorted(self._reasons)}>"

    def refused(self, operation: str, error: AccessDeniedError) -> None:
        self._reasons[operation] = str(error.args[0])

    def allowed(self, operation: str) -> None:
        self._reasons.pop(operation, None)

    @property
    def reasons(self) -> list[str]:
        return [f"{self._server} refuses us: {reason}" for reason in self._reasons.values()]


S3 = Refusals("S3")
REDIS = Refusals("Redis")
