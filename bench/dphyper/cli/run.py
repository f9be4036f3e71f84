"""``dphyper run``: adapt one method to one private draw, judge it, and store the row."""

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.parsing import build
from dphyper.core.specs import Cell, Performance

HELP = "run one cell and store its row"
SEARCHES = "recorded searches that options come from: folders of stores or rows.parquet files, on tuning tasks alone"


def parser() -> ArgumentParser:
    """The keys of a cell, where its row goes, and knobs that change speed."""
    made = ArgumentParser(
        exit_on_error=False, description="Adapt one method to one private draw, judge it, and store the row."
    )
    made.add_argument("--config", action="config", help="YAML file with any of the keys below")
    made.add_argument("--store", type=str, default="runs/single", help="folder of results")
    made.add_argument("--wandb", choices=["auto", "online", "offline", "off"], default="offline", help="W&B mode")
    made.add_argument("--searches", nargs="*", default=[], help=SEARCHES)
    made.add_class_arguments(Cell)
    made.add_class_arguments(Performance, "performance")
    return made


def execute(config: Namespace) -> int:
    """Run the cell and print its row; 1 if it failed."""
    from dphyper.bench.catalog import canonical
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.store import Store, flat
    from dphyper.bench.tracking import Tracking

    cell = canonical(build(Cell, config))
    store = Store(config.store)
    store.require_current()
    searches = [RecordedSearch.read(path) for path in config.searches]
    runner = Runner(store, config.performance, Tracking(config.wandb, store.root, "single"), "single", searches)
    runner.check([cell])
    row = runner.run(cell)
    print("\n".join(f"{key:18} {value}" for key, value in flat(row).items() if key not in ("versions", "statement")))
    print(f"stored in {store.directory(cell.id)}")
    return int(row["status"] != "done")
