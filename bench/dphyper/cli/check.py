"""``dphyper check``: find what a hostile reviewer would find in a store."""

from jsonargparse import ArgumentParser, Namespace

HELP = "find what a hostile reviewer would find in a store"


def parser() -> ArgumentParser:
    """The store."""
    made = ArgumentParser(exit_on_error=False, description="Derive every row's ε again, by two accountants.")
    made.add_argument("--store", type=str, required=True, help="folder of results")
    return made


def execute(config: Namespace) -> int:
    """Print the findings, one a line; 1 if there are any."""
    from dphyper.audits.store_check import check_store
    from dphyper.bench.store import Store

    findings = check_store(Store(config.store))
    print("\n".join(findings) or f"{config.store}: no finding")
    return int(bool(findings))
