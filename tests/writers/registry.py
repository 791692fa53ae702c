"""Every writer by its name."""

from tests.writers.awkward import AWKWARD
from tests.writers.copiers import COPIERS
from tests.writers.editors import EDITORS
from tests.writers.recorders import RECORDERS
from tests.writers.recording import Writer

WRITERS: dict[str, Writer] = {
    writer.name: writer for writer in (*RECORDERS, *COPIERS, *AWKWARD, *EDITORS)
}
