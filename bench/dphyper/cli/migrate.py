"""``dphyper migrate``: bring a store, or a ``rows.parquet``, of a former schema to the present one, in place."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dphyper.cli.run import SEARCHES

HELP = "rewrite a store, or a rows.parquet, of a former version"


def parser() -> ArgumentParser:
    """What is rewritten, and the searches that explain its options."""
    made = ArgumentParser(exit_on_error=False, description="Bring rows of the former schema to the present one.")
    made.add_argument("store", type=str, help="folder of results, or a rows.parquet; rewritten in place")
    made.add_argument("--searches", nargs="*", default=[], help=SEARCHES)
    return made


def execute(config: Namespace) -> int:
    """Rewrite the rows and print what was changed, with counts."""
    from dphyper.bench.migration import migrate_file, migrate_store
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.store import Store

    path, searches = Path(config.store), [RecordedSearch.read(search) for search in config.searches]
    counts = migrate_file(path, searches) if path.is_file() else migrate_store(Store(path), searches)
    print("\n".join(f"{count:6} {what}" for what, count in counts.items()) or f"{path}: nothing to migrate")
    return 0
