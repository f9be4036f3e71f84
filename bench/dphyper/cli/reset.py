"""``dphyper reset``: give up what a cell left, so that it can be begun anew, and say what was spent on nothing.

A cell that was killed inside a private selection, or whose θ or ledger is damaged, can never be finished: its noise
would have to be drawn twice. The ledger of what it had released stays, and `dphyper check` tells of it.
"""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

HELP = "give up what a cell left, and say what budget was spent on nothing"


def parser() -> ArgumentParser:
    """The cell, and its store."""
    made = ArgumentParser(
        exit_on_error=False, description="Remove what a cell left, save its ledger, so that it can be begun anew."
    )
    made.add_argument("cell", type=str, help="id of the cell, the name of its folder")
    made.add_argument("--store", type=str, required=True, help="folder of results")
    made.add_argument("--storage", type=str, default="", help="database of its sweeps, if it asks for a password")
    return made


def execute(config: Namespace) -> int:
    """Give the cell up, and print what it had spent."""
    from dphyper.bench.store import Store
    from dphyper.core.errors import UserError, unknown_name
    from dphyper.sweeps.status import statuses

    store = Store(config.store)
    cells = {path.name for path in store.root.glob("cells/*") if path.is_dir()}
    if config.cell not in cells:
        raise unknown_name("cell", config.cell, cells or {f"none, '{store.root}' has no cell"})
    in_hand = [entry for sweep in statuses(store, config.storage) for entry in sweep.running if not entry.silent]
    if config.cell in {entry.item for entry in in_hand}:
        raise UserError(f"cell {config.cell} is running: stop its sweep first")
    if store.status(config.cell) == "done":
        raise UserError(
            f"cell {config.cell} is done: drawing it again would be a second release. Run it as another `noise_draw` "
            "if you want one, and show both"
        )
    kept = store.give_up(config.cell)
    if kept is None:
        print(f"cell {config.cell}: it had released nothing; the next run of its sweep begins it anew")
        return 0
    print(f"cell {config.cell}: {_spent(kept)} was spent on nothing, and stays spent")
    print(f"its ledger is now {kept}; the next run of its sweep begins the cell anew, and spends its budget again")
    return 0


def _spent(ledger: Path) -> str:
    from dphyper.core.errors import PrivacyError, UserError
    from dphyper.core.files import read_json
    from dphyper.privacy.ledger import Ledger

    try:
        found = Ledger.from_json(read_json(ledger))
        return f"ε = {found.spent():.4g} of {found.budget.epsilon:.4g} at δ = {found.budget.delta:g}"
    except (PrivacyError, UserError, LookupError, TypeError, ValueError, AttributeError):
        return "an ε that its damaged ledger does not tell, in the worst case all its budget,"
