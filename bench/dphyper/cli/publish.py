"""``dphyper publish``: copy what of a store may leave the house."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

HELP = "copy what of a store may leave the house"


def parser() -> ArgumentParser:
    """The store, and where the copy goes."""
    made = ArgumentParser(exit_on_error=False, description="Copy what of a store may leave the house.")
    made.add_argument("store", type=str, help="folder of results")
    made.add_argument("--out", type=str, required=True, help="folder that takes the copy; must not exist or be empty")
    return made


def execute(config: Namespace) -> int:
    """Copy, and print what was left behind, with counts."""
    from dphyper.bench.publishing import publish
    from dphyper.bench.store import Store

    store = Store(config.store)
    copied, left = publish(store, Path(config.out))
    print(f"{copied} rows of {store.root} copied to {config.out}; left behind:")
    print("\n".join(f"{count:6} {what}" for what, count in left.items()) or "  nothing")
    return 0
