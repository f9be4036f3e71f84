"""A cell in its canonical form: axes that a method does not use name one cell."""

from typing import Any

from dphyper.bench.catalog import canonical
from dphyper.core.specs import Cell


def test_unused_axes_collapse_and_used_ones_do_not() -> None:
    def ids(method: str, **axis: Any) -> set[str]:
        ((name, values),) = axis.items()
        return {canonical(Cell(method=method, task="8", **{name: value})).id for value in values}

    assert len(ids("public_only", epsilon=[1.0, 8.0])) == 1
    assert len(ids("dp_sgd", epsilon=[1.0, 8.0])) == 2
    assert len(ids("dp_sgd", embedding_dim=[4, 8])) == 1
    assert len(ids("hypernetwork", embedding_dim=[4, 8])) == 2
    assert len(ids("nonprivate_lora", seed=[0, 1])) == 2
