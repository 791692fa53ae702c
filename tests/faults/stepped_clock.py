"""A wall clock that can be set, for services of one world alone."""

from tests.faults.world import World


class SteppedClock:
    """The wall clock of the services that are started with its command."""

    def __init__(self, world: World) -> None:
        self._path = world.folder / "clock"
        self._path.write_text("0", encoding="ascii")
        self.command = ("tests.faults.stepped", str(self._path), "ingest")

    def set_ahead(self, seconds: float) -> None:
        """Whole at any instant: the services read it all the time."""
        beside = self._path.with_suffix(".new")
        beside.write_text(str(seconds), encoding="ascii")
        beside.replace(self._path)
