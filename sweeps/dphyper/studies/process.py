"""Peak memory of one piece of work, in a process of its own (Linux only)."""

import multiprocessing
import resource
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def run_alone(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a new process that has imported the caller's modules and done nothing else."""
    # Forked from a server that has only imported: a spawned process would begin with the peak of this one.
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.apply(work, args, kwargs)


def peak_mib() -> int:
    """Greatest resident memory of this process so far in MiB; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
