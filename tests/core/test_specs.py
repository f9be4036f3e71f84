"""Specs: what no cell may say, and ids that change with everything that a cell says."""

import dataclasses
import json
import math
from typing import Any

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (DataSpec, {"image_size": 0}, "image_size = 0: expected a number above 0"),
        (DataSpec, {"channels": 2}, r"data.channels = 2: expected 1 .grey. or 3 .RGB."),
        (DataSpec, {"cluster_sizes": (60, 0)}, "cluster_sizes = 0"),
        (
            DataSpec,
            {"private": ("a",), "tuning": ("a",)},
            "family 'a' is named both in data.private and in data.tuning",
        ),
        (BaseSpec, {"rank": 0}, "rank = 0"),
        (BaseSpec, {"block_out_channels": (12,)}, r"expected multiples of 8 above 0, one a level"),
        (Protocol, {"num_images": 1}, "protocol.num_images = 1: expected at least 2"),
        (Cell, {"epsilon": 0.0}, "epsilon = 0.0: expected a number above 0, or inf"),
        (Cell, {"epsilon": math.nan}, "epsilon = nan"),
        (Cell, {"n": 1}, "n = 1: expected at least 2 private records"),
        (Cell, {"n": 100, "delta": 0.01}, r"delta = 0.01: expected above 0 and below 1/n = 0.01"),
        (Cell, {"embedding_dim": -1}, "embedding_dim = -1"),
        (Performance, {"workers": 0}, "workers = 0"),
        (Performance, {"threads": -1}, "performance.threads = -1"),
    ],
)
def test_what_no_spec_may_say(kind: type[Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**given)
    kind()  # the defaults are sound


def test_an_id_changes_with_every_field() -> None:
    cell = Cell(task="a")
    changes: dict[str, Any] = {
        "data": DataSpec(image_size=8), "base": BaseSpec(rank=8), "protocol": Protocol(num_images=9), "task": "b",
        "n": 64, "method": "dp_sgd", "options": {"steps": 3}, "epsilon": 2.0, "delta": 1e-6, "relation": "zero_out",
        "embedding_dim": 8, "seed": 1, "noise_draw": 1, "reproducible_noise": True,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(Cell)}
    ids = [dataclasses.replace(cell, **{name: value}).id for name, value in changes.items()]
    assert len({cell.id, *ids}) == len(changes) + 1


@pytest.mark.parametrize("epsilon", [0.5, math.inf])
def test_a_cell_goes_through_json(epsilon: float) -> None:
    cell = Cell(task="a", epsilon=epsilon, data=DataSpec(private=("x", "y")))
    again = Cell.from_dict(json.loads(json.dumps(cell.to_dict())))
    assert again == cell
    assert again.id == cell.id


def test_a_source_is_a_scheme_and_an_argument() -> None:
    spec = DataSpec(source="npz:a:b.npz")
    assert (spec.scheme, spec.argument) == ("npz", "a:b.npz")
    assert (DataSpec(source="glyphs").scheme, DataSpec(source="glyphs").argument) == ("glyphs", "")
