"""``dphyper pull``: make a store of the runs that a sweep left in W&B, online or on disk."""

from jsonargparse import ArgumentParser, Namespace

HELP = "make a store of a sweep's W&B runs"


def parser() -> ArgumentParser:
    """Where the runs are, and the store that takes their rows."""
    made = ArgumentParser(exit_on_error=False, description="Make a store of the W&B runs of a sweep.")
    made.add_argument("source", type=str, help="wandb:ENTITY/PROJECT/GROUP, or a folder of offline runs")
    made.add_argument("--store", type=str, required=True, help="folder of results that takes the rows")
    return made


def execute(config: Namespace) -> int:
    """Take the rows over and print how many there were."""
    from dphyper.bench.store import Store
    from dphyper.bench.tracking import pull

    taken = pull(config.source, Store(config.store))
    print(f"{taken} rows of {config.source} taken into {config.store}")
    return 0
