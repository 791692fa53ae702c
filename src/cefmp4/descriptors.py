"""How many files and connections the process may hold open, and which errors tell that it holds so
many already."""

import errno
import resource

MOST = 65536
# What the kernel answers when we, or the machine, have run out: it passes, it is nobody's bug.
RAN_OUT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_limit() -> int:
    """Raises the soft limit as far as it goes, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MOST) if hard != resource.RLIM_INFINITY else MOST
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
