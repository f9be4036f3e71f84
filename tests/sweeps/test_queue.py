"""The queue hands each cell of a plan out once."""

from pathlib import Path

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.sweeps.queue import Queue


def test_parts_of_a_sweep_side_by_side_never_take_each_others_cells(tmp_path: Path) -> None:
    store, (first, second) = Store(tmp_path), [Cell(task="0", method="dp_sgd", seed=seed) for seed in (1, 2)]
    plans = ([first], [second], [first, second])
    queues = [Queue(store, "parts", plan) for plan in plans]
    for queue, plan in zip(queues, plans, strict=True):
        queue.fill(plan)
    for queue, plan in zip(queues, plans, strict=True):
        twin = Queue(store, "parts", plan[::-1])  # a second run of the same part shares its queue
        taken = [twin.take(), *(queue.take() for _ in plan)]
        assert [entry[1] if entry else None for entry in taken] == [*(cell.id for cell in plan), None]
