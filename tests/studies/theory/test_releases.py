"""Batched releases, against `PrivateData`."""

import pytest
import torch
from scipy import stats

from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.releases import calibrate_mean, release_means


@pytest.mark.parametrize("relation", list(Relation))
def test_batched_release_has_the_noise_of_private_data(relation: Relation) -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=relation)
    mechanism = calibrate_mean(budget, 2.0)
    rows = torch.full((1, 400, 2), 0.5)
    mean, std, _ = release_means(rows, mechanism, budget, draws=4000, rng=torch.Generator().manual_seed(0))
    noise = NoiseSource.reproducible(0)
    released = PrivateData(rows[0], n=400, ledger=Ledger(budget), noise=noise).release_mean(
        lambda x, rng: x, mechanism, role="embedding"
    )
    # The published std differs from draw to draw through the noisy count; its typical value must not.
    assert float(std[0, :-1].median()) == pytest.approx(released.noise_std, rel=0.15)
    torch.testing.assert_close(mean[0, -1], torch.full((2,), 0.5))
    # On a zero sum the noise is seen alone.
    zero, std, _ = release_means(0 * rows, mechanism, budget, draws=4000, rng=torch.Generator().manual_seed(1))
    scaled = (zero / std[..., None])[0, :-1].flatten().numpy()
    assert [stats.kstest(scaled, "norm", (0, s)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)] == [True, False, False]
