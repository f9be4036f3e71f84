"""One cell from Python: adapt one method to one private draw, judge it, store the row."""

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, Cell, Performance

store = Store("runs/mine")
runner = Runner(store, Performance(), Tracking("off", store.root, "mine"), "mine")
base = BaseSpec(train_steps=8000, sampling_steps=12)  # the base model that comes with the package
row = runner.run(Cell(base=base, task="documents", method="dp_sgd", epsilon=1.0))
print(row["metrics"], row["epsilon_spent"])
