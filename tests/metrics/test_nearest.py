"""Copies are seen, and images of the same distribution are not taken for copies."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from dphyper.metrics.metric import METRICS, Evidence, Features

RNG = np.random.default_rng(0)
PRIVATE, HELD_OUT = RNG.standard_normal((2, 128, 16)).astype(np.float32)


def ratio(generated: Features) -> float:
    """Distance to the private records over that to held-out ones."""
    given = Evidence(generated_features=generated, reference_features=HELD_OUT, private_features=PRIVATE)
    return METRICS["nearest_private"].compute(given) / METRICS["nearest_heldout"].compute(given)


def test_copies_are_near_the_private_records_and_other_images_are_not() -> None:
    assert ratio(PRIVATE) == 0.0
    assert ratio(PRIVATE + 0.1 * RNG.standard_normal(PRIVATE.shape)) < 0.2
    assert ratio(RNG.standard_normal((500, 16))) == pytest.approx(1.0, abs=0.03)


def test_the_distances_are_those_of_scikit_learn_and_as_many_records_are_asked_on_both_sides() -> None:
    generated = RNG.standard_normal((50, 16))
    given = Evidence(generated_features=generated, reference_features=HELD_OUT, private_features=PRIVATE[:30])
    for name, records in (("nearest_private", PRIVATE[:30]), ("nearest_heldout", HELD_OUT[:30])):
        distances, _ = NearestNeighbors(n_neighbors=1).fit(records).kneighbors(generated)
        assert METRICS[name].compute(given) == pytest.approx(distances.mean(), rel=1e-5)
