"""``dphyper merge``: take over the finished rows of another store, so that a sweep goes on from there."""

from jsonargparse import ArgumentParser, Namespace

HELP = "take over the rows of another store's rows.parquet"


def parser() -> ArgumentParser:
    """The file of rows, and the store that takes them."""
    made = ArgumentParser(
        exit_on_error=False, description="Take finished rows of another store over, so that a sweep goes on from there."
    )
    made.add_argument("file", type=str, help="the rows.parquet of a store, for instance one under docs/results")
    made.add_argument("--store", type=str, required=True, help="folder of results that takes them")
    return made


def execute(config: Namespace) -> int:
    """Take the rows over and print how many there were."""
    from dphyper.bench.store import Store

    taken = Store(config.store).merge(config.file)
    print(f"{taken} rows of {config.file} taken into {config.store}")
    return 0
