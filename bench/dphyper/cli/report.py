"""``dphyper report``: figures, tables and one HTML page from a store."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

HELP = "figures, tables and an HTML page from a store"


def parser() -> ArgumentParser:
    """The store, and where the report goes."""
    made = ArgumentParser(exit_on_error=False, description="Turn a store into curves, tables and one HTML page.")
    made.add_argument("--store", type=str, required=True, help="folder of results, for instance runs/demo")
    made.add_argument("--out", type=str, default="", help="folder of the report (default: STORE/report)")
    return made


def execute(config: Namespace) -> int:
    """Write the report and print where it is."""
    from dphyper.bench.store import Store
    from dphyper.reports.page import write_report

    page = write_report(Store(config.store), Path(config.out or f"{config.store}/report"))
    print(f"report: {page}")
    return 0
