"""AdaSSP: sensitivities under adversarial records, its noise, and its control without noise."""

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy import stats

from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.least_squares import clip_records, fit_adassp, fit_least_squares
from dphyper.studies.theory.releases import calibrate_steps

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
D = 20


def test_adassp_sensitivities_under_adversarial_records() -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(1, 25, 6, generator=rng), torch.randn(1, 25, generator=rng)

    def statistics(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = clip_records(x, y, 2.0, 1.5)
        return x.mT @ x, (x.mT @ y[..., None])[..., 0]

    gram, moment = statistics(*base)
    worst = torch.zeros(3, dtype=torch.float64)
    least = torch.linalg.eigh(gram[0]).eigenvectors[:, 0].float()
    for direction in (least, torch.ones(6), torch.eye(6)[0]):
        for scale, label in ((1e4, 1e4), (1e4, -1e4), (0.5, 0.1)):
            x = torch.cat([base[0], scale * direction[None, None]], dim=1)
            y = torch.cat([base[1], torch.tensor([[label]])], dim=1)
            after, total = statistics(x, y)
            least_change = (torch.linalg.eigvalsh(after) - torch.linalg.eigvalsh(gram))[0, 0].abs()
            worst = worst.maximum(torch.stack([(after - gram).norm(), (total - moment).norm(), least_change]))
    bounds = torch.tensor([4.0, 3.0, 4.0], dtype=torch.float64)
    assert (worst <= bounds * (1 + 1e-6)).all()
    assert (worst[:2] > 0.99 * bounds[:2]).all()


def test_adassp_without_noise_is_least_squares(small_world: Callable[..., Any]) -> None:
    x, y, _ = small_world().draw(3, 400)
    found = fit_adassp(x, y, FREE, x_bound=1e3, y_bound=1e3, draws=1, rng=torch.Generator())[:, 0]
    torch.testing.assert_close(found, fit_least_squares(x, y), atol=1e-5, rtol=1e-4)
    few = fit_adassp(x[:, :10], y[:, :10], FREE, x_bound=1e3, y_bound=1e3, draws=2, rng=torch.Generator())
    assert float(few.norm(dim=2).max()) < 10, "fewer records than features: the least norm, not an explosion"
    wide = fit_least_squares(x[:, :10], y[:, :10])
    torch.testing.assert_close((x[:, :10] @ wide[..., None])[..., 0], y[:, :10], atol=1e-4, rtol=1e-4)


def test_adassp_control_is_least_squares_on_the_clipped_records(small_world: Callable[..., Any]) -> None:
    x, y, _ = small_world().draw(3, 400)
    found = fit_adassp(x, y, TIGHT, x_bound=4.0, y_bound=1.5, draws=2, rng=torch.Generator())
    assert found.shape == (3, 3, D)
    wanted = fit_least_squares(*clip_records(x, y, 4.0, 1.5))
    torch.testing.assert_close(found[:, -1], wanted)
    assert float((found[:, -1] - fit_least_squares(x, y)).norm()) > 0.1, "the records are clipped in earnest"
    assert float((found[:, :-1] - wanted[:, None]).norm(dim=2).min()) > 0.1, "the draws carry noise"


def test_adassp_moment_noise() -> None:
    """With n² far above the noise on XᵀX, the error is the noise on Xᵀy over n."""
    x = math.sqrt(3.0) * torch.eye(3).repeat(100_000, 1)[None]  # XᵀX = n I
    n = x.shape[1]
    theta = fit_adassp(x, torch.zeros(1, n), TIGHT, x_bound=2.0, y_bound=1.5, draws=300, rng=torch.Generator())
    (mechanism, *_) = calibrate_steps(TIGHT, 1, releases=3)
    scaled = (theta[:, :-1] * n / (mechanism.noise_std(TIGHT.relation) * 2.0 * 1.5)).flatten().numpy()
    assert [stats.kstest(scaled, "norm", (0, s)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)] == [True, False, False]
