"""What methods cost, and that a secret cost stays one."""

from pathlib import Path

from toy_store import add, only

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.tables.cost import Cost


def test_cost_stands_beside_that_of_dp_sgd(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seconds = {"hypernetwork": 0.2, "dp_sgd": 10.0, "dp_sgd_tuned": None}
    for method, adapt in seconds.items():
        for seed in (0, 1, 2):
            timed = {"seconds_public": 300.0 * (method == "hypernetwork"), "seconds_adapt": adapt}
            timed = {key: value for key, value in timed.items() if value is not None}
            cell = Cell(task="kettle", method=method, epsilon=1.0, seed=seed, embedding_dim=8)
            add(store, cell, "private", 1.0)
            row = store.row(cell.id)
            row.pop("seconds_adapt")
            row.update(timed)  # type: ignore[typeddict-item]
            store.write(cell, row)
    shown = Cost.make(only(store), "").cells
    network, dp_sgd, tuned = (
        shown.loc[shown.index.str.startswith(name)].iloc[0] for name in ("Hyp", "DP-SGD (", "DP-SGD,")
    )
    assert (network["Public phase"], network["Of DP-SGD's"]) == ("300 s", "2.0 %")
    assert (dp_sgd["Adaptation"], tuned["Adaptation"]) == ("10.00 s", "secret")
