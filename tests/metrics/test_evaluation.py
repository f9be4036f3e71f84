"""Evaluation: what real records score, and what the protocol hash covers."""

import dataclasses
import importlib.metadata

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dphyper.core.errors import UserError
from dphyper.core.specs import Protocol
from dphyper.metrics import extractors
from dphyper.metrics.evaluation import Evaluator
from dphyper.metrics.extractors import NETWORKS
from dphyper.metrics.metric import METRICS, Evidence

CPU = torch.device("cpu")


def random_features(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    return np.maximum(rng.standard_normal((n, d)) @ mixing + shift, 0)


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(Protocol(num_images=100), weights="unused", device=CPU)


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    """(600, 8, 8, 1), in random order: scikit-learn has them by writer, so neighbours are alike."""
    order = np.random.default_rng(0).permutation(1797)[:600]
    return np.asarray(load_digits().images[order, :, :, None] * (255 / 16), np.uint8)


def test_real_images_score_as_real_ones_and_others_do_not(evaluator, digits):
    features = evaluator.features(digits)
    reference, held_out = features[:450], features[450:550]
    real, num_real = evaluator.judge_real(reference, seed=0)
    losses = np.zeros(2, np.float32)

    def judge(features):
        given = Evidence(generated_features=features, reference_features=reference, reference_losses=losses)
        return evaluator.judge(given)

    own, inverted = judge(held_out), judge(evaluator.features(255 - digits[450:550]))
    assert num_real == 100
    looks = {name for name in METRICS if "private_features" in METRICS[name].needs}
    assert looks == {"nearest_private", "nearest_heldout"}, "none of them is computed without the private records"
    assert set(own) == set(METRICS) - looks
    assert set(real) == {name for name in METRICS if METRICS[name].needs == {"features"}}
    assert 0.75 * real["frechet"] < own["frechet"] < 1.25 * real["frechet"]
    assert inverted["frechet"] > 3 * real["frechet"]
    assert abs(own["kernel"]) < 0.1 * inverted["kernel"]
    assert abs(real["kernel"]) < 0.1 * inverted["kernel"]


def test_what_real_images_score_is_fixed_by_the_seed(evaluator):
    reference = random_features(300, 16, 0)
    assert evaluator.judge_real(reference, seed=3) == evaluator.judge_real(reference, seed=3)
    assert evaluator.judge_real(reference, seed=3) != evaluator.judge_real(reference, seed=4)


def test_a_small_reference_is_halved(evaluator):
    assert evaluator.judge_real(random_features(151, 4, 0), seed=0)[1] == 75
    assert evaluator.judge_real(random_features(4, 4, 0), seed=0)[1] == 2
    with pytest.raises(UserError, match="reference of 3 images: expected at least 4"):
        evaluator.judge_real(random_features(3, 4, 0), seed=0)


def test_real_images_show_the_bias_of_few_images():
    reference = random_features(1000, 64, 0)
    few, many = (Evaluator(Protocol(num_images=n), weights="unused", device=CPU) for n in (50, 500))
    assert few.judge_real(reference, seed=0)[0]["frechet"] > 2 * many.judge_real(reference, seed=0)[0]["frechet"]


def test_protocol_hash_is_the_same_twice(evaluator):
    again = Evaluator(Protocol(num_images=100), weights="elsewhere", device=CPU)
    assert again.protocol_hash == evaluator.protocol_hash


def test_protocol_hash_changes_with_every_part(evaluator, monkeypatch):
    hashes = [evaluator.protocol_hash]

    def efficientnet(**change):
        with monkeypatch.context() as patch:
            known = NETWORKS["efficientnet_lite0"]
            patch.setitem(NETWORKS, "efficientnet_lite0", dataclasses.replace(known, **change))
            return Evaluator(Protocol(num_images=100), weights="unused", device=CPU).protocol_hash

    hashes += [efficientnet(size=32), efficientnet(resize_name="other")]
    hashes.append(Evaluator(Protocol(num_images=101), weights="unused", device=CPU).protocol_hash)
    for digest in ("a" * 64, "b" * 64):  # the same network with another weight file
        monkeypatch.setattr(extractors, "_sha256", lambda _path, digest=digest: digest)
        hashes.append(efficientnet(sha256=digest))
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "version", lambda _package: "0.0.0")
    hashes.append(efficientnet())
    assert len(set(hashes)) == len(hashes)
