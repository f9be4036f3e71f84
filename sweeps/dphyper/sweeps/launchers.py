"""Workers on a SLURM cluster, started by submitit.

Every job is one worker like any other. A job whose time is over, or that is preempted, gives back the cell in hand;
submitting again goes on. Any other scheduler needs no code here: it has to start ``dphyper sweep worker FILE``.
"""

from collections.abc import Sequence
from typing import Any

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.core.stopping import Stopped, stoppable
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.status import record_plan


def submit(sweep: Sweep, cells: Sequence[Cell], *, retry_failed: bool = False) -> list[str]:
    """Ask for as many jobs as ``performance.workers`` says, each one worker.

    Args:
        sweep: Its ``slurm`` holds what submitit takes, such as ``slurm_partition``, ``timeout_min``, ``gpus_per_node``.
        cells: What there is to do.
        retry_failed: As in `dphyper.sweeps.worker.work`.

    Returns:
        One line for each job.

    Raises:
        UserError: The storage serves one host, submitit is missing, or it does not take what ``slurm`` says.
    """
    return [f"job {job.job_id}, log {job.paths.stdout}" for job in launch(sweep, cells, retry_failed=retry_failed)]


def launch(sweep: Sweep, cells: Sequence[Cell], *, retry_failed: bool = False, cluster: str = "slurm") -> list[Any]:
    """The jobs of `submit`, on submitit's own kind of cluster.

    Raises:
        UserError: As in `submit`.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError("dphyper sweep submit needs submitit: pip install 'dphyper[cluster]'") from error
    if cluster == "slurm" and sweep.storage == "journal":
        raise UserError(
            "storage = 'journal' serves one host, and SLURM may use several: name a database that all nodes reach, "
            "storage: postgresql://USER@HOST/DATABASE"
        )
    record_plan(sweep, cells)
    try:
        executor = submitit.AutoExecutor(folder=Store(sweep.store_path).root / "jobs", cluster=cluster)
        executor.update_parameters(name=f"dphyper-{sweep.name}", **sweep.slurm)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise UserError(f"submitit refuses: {' '.join(str(error).split())}") from error
    with executor.batch():
        return [
            executor.submit(_worker, sweep, [cell.to_dict() for cell in cells], retry_failed)
            for _ in range(sweep.performance.workers)
        ]


def _worker(sweep: Sweep, plain: Sequence[dict[str, Any]], retry_failed: bool) -> str:
    """One worker; the job ends in order when it is told to stop."""
    from dphyper.sweeps.worker import work

    try:
        with stoppable():
            work(sweep, [*map(Cell.from_dict, plain)], retry_failed=retry_failed)
    except Stopped as stopped:
        return f"stopped by {stopped}"
    return "nothing is left"
