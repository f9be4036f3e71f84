"""`limits` tells a head that cannot speak from one that can, and judges samples of the same noise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dphyper.core.specs import Protocol
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.metrics.evaluation import Evaluator
from dphyper.studies import limits
from dphyper.studies.limits import find_answers, sample_distance, split_records
from dphyper.studies.probe import Probe, mean_loss

Draw = Callable[[int], Any]


def test_limits_tell_a_mute_head_from_an_able_one(network: Hypernetwork, draw_images: Draw) -> None:
    """A zero head says the same whatever it is given; with free parameters the same images teach something."""
    given, unseen = (network.target.encode(part) for part in split_records(draw_images(60)))
    assert (len(given), len(unseen)) == (40, 20)

    def losses() -> dict[str, float]:
        answers = find_answers(network, given, n=16)
        return {name: mean_loss(network, theta_P, unseen) for name, theta_P in answers.items()}

    head = network.head.weight.clone()
    network.head.weight.zero_()
    network.head.bias.fill_(0.01)
    mute = losses()
    assert mute["best_hidden"] == mute["best_embedding"] == mute["hypernetwork"] == mute["prior"]
    assert mute["best_parameters"] < 0.99 * mute["hypernetwork"]
    network.head.weight.copy_(0.1 * head)
    able = losses()
    assert able["best_hidden"] < 0.99 * able["hypernetwork"]


def test_samples_of_the_same_noise_are_judged(network: Hypernetwork, draw_images: Draw, tmp_path: Path) -> None:
    evaluator = Evaluator(Protocol(num_images=12), weights=tmp_path, device=torch.device("cpu"))
    records, public = draw_images(12), network.target.initial()
    own = sample_distance(network, public, records, evaluator)
    assert sample_distance(network, public, records, evaluator) == own
    assert sample_distance(network, public + 0.5, records, evaluator) != pytest.approx(own, rel=1e-3)


def test_every_task_has_a_row_of_losses_and_one_of_distances(
    network: Hypernetwork, draw_images: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is resumed task by task, and begun anew for another network."""
    probe = Probe(
        method=network,
        network="this",
        n=16,
        evaluator=Evaluator(Protocol(num_images=12), weights=tmp_path, device=torch.device("cpu")),
        records={"1": draw_images(30), "2": draw_images(36)},
    )
    monkeypatch.setattr(limits, "load_probe", lambda sweep: probe)
    monkeypatch.setattr(limits, "FIT", {"fit_steps": 2, "fit_batch_size": 8})
    out = tmp_path / "limits.csv"
    limits.main("any.yaml", out)
    whole = pd.read_csv(out, dtype={"task": str})
    assert [*zip(whole["task"], whole["measure"], strict=True)] == [
        (task, measure) for task in ("1", "2") for measure in ("denoising_loss", "frechet")
    ]
    assert np.isfinite(whole.drop(columns=["network", "task", "measure"])).all(axis=None)

    asked = []
    monkeypatch.setattr(limits, "find_answers", lambda *given: asked.append(1) or find_answers(*given))
    whole.head(2).to_csv(out, index=False)
    limits.main("any.yaml", out)
    assert len(asked) == 1
    pd.testing.assert_frame_equal(pd.read_csv(out, dtype={"task": str}), whole, rtol=1e-3)
    whole.assign(network="another").to_csv(out, index=False)
    limits.main("any.yaml", out)
    assert len(asked) == 3
