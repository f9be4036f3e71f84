"""``dphyper sweep plan FILE`` prints every cell of a sweep file with its state; ``dphyper sweep run FILE`` runs them.

A plan reads the data, so that it finds the mistakes that a run would find in them; it trains and writes nothing.
"""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.parsing import build
from dphyper.core.specs import Cell
from dphyper.sweeps.plan import Sweep, sweep_parser

HELP = "plan or run a grid of cells"


def parser() -> ArgumentParser:
    """What to do, and the keys of a sweep file."""
    made = sweep_parser()
    made.add_argument(
        "action",
        choices=["plan", "run"],
        help="plan reads the data and prints every cell with its state; run runs what is not done, and resumes",
    )
    return made


def execute(config: Namespace) -> int:
    """Plan or run; 1 if a run leaves cells undone."""
    from dphyper.sweeps.work import run_sweep

    sweep = build(Sweep, config)
    cells = sweep.cells()
    if config.action == "run":
        return int(run_sweep(sweep, cells) > 0)
    _plan(sweep, cells)
    return 0


def _plan(sweep: Sweep, cells: list[Cell]) -> None:
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.store import Store
    from dphyper.bench.tracking import Tracking
    from dphyper.sweeps.work import states

    store = Store(sweep.store_path)
    store.require_current()
    for path in sweep.searches:
        RecordedSearch.read(path)
    Runner(store, sweep.performance, Tracking("off", Path(), sweep.name), sweep.name).check_data(cells)
    frame = states(cells, store)
    print(frame.to_string(index=False))
    print(f"{len(cells)} cells: " + ", ".join(f"{n} {s}" for s, n in frame["state"].value_counts().items()))
