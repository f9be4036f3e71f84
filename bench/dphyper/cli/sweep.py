"""``dphyper sweep plan FILE`` sums up the cells of a sweep file and their states; ``dphyper sweep run FILE`` runs them.

A plan reads the data, so that it finds the mistakes that a run would find in them; it trains and writes nothing.
``dphyper sweep worker FILE`` is one more worker, here or on any host that sees the store, and ``dphyper sweep submit
FILE`` asks SLURM for workers.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.parsing import build
from dphyper.core.specs import Cell
from dphyper.sweeps.plan import Sweep, summary, sweep_parser

if TYPE_CHECKING:
    from dphyper.bench.store import Store

HELP = "plan or run a grid of cells"


def parser() -> ArgumentParser:
    """What to do, and the keys of a sweep file."""
    made = sweep_parser()
    made.add_argument(
        "action",
        choices=["plan", "run", "worker", "submit"],
        help="plan reads the data and sums up the cells and their states; run runs what is not done, and resumes; "
        "worker is one more worker of a sweep, on any host; submit asks SLURM for workers",
    )
    made.add_argument("--cells", action="store_true", help="of a plan: every single cell with its state")
    made.add_argument(
        "--reduced", action="store_true", help="the same methods on tiny models and other data, to see that all runs"
    )
    made.add_argument("--retry-failed", action="store_true", help="run failed cells again, too")
    return made


def execute(config: Namespace) -> int:
    """Plan, run or help; 1 if a run leaves cells undone."""
    from dphyper.sweeps.storage import check_storage

    sweep = build(Sweep, config)
    if config.reduced:
        from dphyper.sweeps.reduced import reduced

        sweep = reduced(sweep)
    check_storage(sweep.storage, alone=config.action in ("plan", "run") and sweep.performance.workers == 1)
    cells = sweep.known_cells()[0] if sweep.search else sweep.cells()
    if config.action == "run":
        from dphyper.sweeps.work import run_sweep

        return int(run_sweep(sweep, cells, _report, retry_failed=config.retry_failed) > 0)
    if config.action == "worker":
        from dphyper.sweeps.status import record_plan
        from dphyper.sweeps.worker import work

        record_plan(sweep, cells)
        work(sweep, cells, retry_failed=config.retry_failed)
    elif config.action == "submit":
        from dphyper.sweeps.launchers import submit

        for line in submit(sweep, cells, retry_failed=config.retry_failed):
            print(line)
    else:
        _plan(sweep, cells, single=config.cells)
    return 0


def _report(store: "Store") -> Path:
    from dphyper.reports.page import write_report

    return write_report(store, store.root / "report").parent


def _plan(sweep: Sweep, cells: list[Cell], *, single: bool) -> None:
    from dphyper.bench.estimate import estimate
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.store import Store
    from dphyper.bench.tracking import Tracking
    from dphyper.sweeps.work import states
    from dphyper.sweeps.worker import agenda_of

    store = Store(sweep.store_path)
    store.require_current()
    for path in sweep.searches:
        RecordedSearch.read(path)
    runner, agenda = Runner(store, sweep.performance, Tracking("off", Path(), sweep.name), sweep.name), agenda_of(sweep)
    if agenda:
        runner.check_data(agenda.examples(), agenda.judges())
        agenda.look(propose=False)
        cells = [*agenda.cells.values()]
        for line in agenda.lines():
            print(line)
    else:
        runner.check_data(cells)
    if cells:
        frame = states(cells, store)
        known = dict(zip(frame["cell"], frame["state"], strict=True))
        print(frame.to_string(index=False) if single else "\n".join(summary(cells, known)))
        missing = [cell for cell in cells if store.status(cell.id) != "done"]
        print("\n".join(estimate(missing, runner.public)))
        print(f"{len(cells)} cells: " + ", ".join(f"{n} {s}" for s, n in frame["state"].value_counts().items()))
    if agenda and agenda.open:
        waiting = f", {agenda.waiting} of the grid until it has chosen" * bool(agenda.waiting)
        print(f"more cells become known as the search goes on{waiting}")
