"""What privacy accounting costs: ``python -m dphyper.studies.accounting_cost --store runs/demo``.

It times the code that runs use, on this machine: calibration of the first cell of a kind and of the next ones, the
charge to a ledger in memory, and `check_store` on a real store, the first time in a process and again. Wall times
are the minimum of a few repetitions, which other load on the machine can only raise.
"""

import timeit
from pathlib import Path

from dphyper.audits.store_check import check_store
from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import GaussianMechanism, OneShotMean, PoissonGradientSteps
from dphyper.studies.command import run_command

BUDGET = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
MECHANISMS: dict[str, GaussianMechanism] = {
    "one release": OneShotMean(),
    "DP-SGD, q = 1, T = 30": PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=30),
    "DP-SGD, q = 1/4, T = 200": PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.25, steps=200),
}


def main(store: Path = Path("runs/demo"), repetitions: int = 200) -> None:
    """Print one line for each cost, in milliseconds.

    Args:
        store: A store with finished cells.
        repetitions: Of what is cached; the minimum of five such rounds is printed.
    """
    cells = int((Store(store).rows()["status"] == "done").sum())
    if not cells:
        raise UserError(f"store '{store}' has no finished cell: expected one to check, run its sweep again")
    for name, mechanism in MECHANISMS.items():
        print(f"{name}: {_describe_cost(mechanism, repetitions)}")
    first, again = timeit.repeat(lambda: check_store(Store(store)), number=1, repeat=2)
    print(f"check {store}: {1e3 * first / cells:.2f} ms a cell, {1e3 * again / cells:.2f} ms cached ({cells} cells)")


def _describe_cost(mechanism: GaussianMechanism, repetitions: int) -> str:
    first = timeit.timeit(lambda: calibrate(BUDGET, mechanism), number=1)
    (calibrated,) = calibrate(BUDGET, mechanism)
    cached = min(timeit.repeat(lambda: calibrate(BUDGET, mechanism), number=repetitions))
    charge = min(timeit.repeat(lambda: Ledger(BUDGET).charge(calibrated, "cost"), number=repetitions))
    return (
        f"calibrate {1e3 * first:.0f} ms the first time, {1e3 * cached / repetitions:.3f} ms cached; "
        f"charge {1e3 * charge / repetitions:.3f} ms"
    )


if __name__ == "__main__":
    run_command(main)
