"""``dphyper sweep``: a mistake in a sweep file is answered by one line, and nothing is lost or begun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.store import Store

Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": []}, "grid is empty"),
        ({"wandbb": "off"}, "unknown key 'wandbb': did you mean 'wandb'?"),
        ({"grid": [{"metod": ["dp_sgd"]}]}, "unknown key 'metod': did you mean 'method'?"),
        ({"grid": [{"data.source": ["digits"]}]}, "unknown data source 'digits': did you mean 'digits8'?"),
        ({"cell": {"n": "many"}}, "n: Expected a int. Got value: many"),
        ({"options": {"dp_sgb": {}}}, "unknown method in options 'dp_sgb': did you mean 'dp_sgd'?"),
        ({"options": {"dp_sgd": {"steps": "ten"}}}, "options.dp_sgd.steps = 'ten': expected int"),
        ({"performance": {"workers": 0}}, "workers = 0: expected a number above 0"),
        ({"searches": ["nowhere"]}, "search 'nowhere' is missing: name a store's folder or its rows.parquet"),
    ],
)
def test_mistakes_in_a_sweep_file(change: dict[str, Any], said: str, tmp_path: Path, refusal: Refusal) -> None:
    sweep: dict[str, Any] = {
        "name": "wrong",
        "store": str(tmp_path / "store"),
        "wandb": "off",
        "grid": [{"method": ["dp_sgd"]}],
        "cell": {"data": {"source": "digits8", "image_size": 8}, "task": "8"},
    }
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps({**sweep, **change}))  # JSON is YAML
    assert said in refusal("sweep", "run", path)


def test_store_of_another_protocol(
    sweep_file: Callable[..., Path], dphyper: Callable[..., int], refusal: Refusal, tmp_path: Path
) -> None:
    grid = [{"method": ["public_only"]}]
    assert dphyper("sweep", "run", sweep_file(grid=grid)) == 0
    before = Store(tmp_path / "store").rows()
    other = sweep_file(grid=grid, cell={"protocol": {"num_images": 33}})
    assert "would mix evaluation protocols" in refusal("sweep", "run", other)
    assert Store(tmp_path / "store").rows().equals(before)
