"""The iterative methods by name: their settings, and how these are tuned on public tasks.

Tuning is done at every point, on public tasks of the first world, whose true weights stand in for a large public test
set; so it costs no privacy. Methods named ``fixed`` and ``one_step`` are not tuned, so tuning does not bend their laws.

Shapes: as in `dphyper.studies.theory.descent`.
"""

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from dphyper.studies.theory.descent import (
    CentredGradients,
    Columns,
    MirroredGradients,
    PlainGradients,
    ProjectedGradients,
    ResidualGradients,
    descend,
)
from dphyper.studies.theory.draws import derive_seed, learn_public, make_world
from dphyper.studies.theory.knowledge import PublicKnowledge
from dphyper.studies.theory.laws import clip_statistics
from dphyper.studies.theory.points import Point
from dphyper.studies.theory.worlds import excess_risk


class Setting(NamedTuple):
    """Hyper-parameters of an iterative method, in units that suit every point.

    Attributes:
        steps: T.
        clip: Clip norm over √p rms(y), the root mean square norm of a gradient at 0.
        length: Learning rate times √T.
    """

    steps: int
    clip: float
    length: float


# A small clip norm wants a large rate, so the grid is one of clip norms and of their products with the length.
# The least product leaves 0 almost alone: where noise hides everything, a tuned method may predict next to nothing.
GRID = [
    Setting(steps, clip, product_length / clip)
    for steps, clip, product_length in product(
        (1, 4, 24),
        (0.03, 0.1, 0.3, 1.0, 2.0),
        (0.0003, 0.0012, 0.005, 0.02, 0.08, 0.16, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0),
    )
]
FIXED = Setting(8, 1.0, math.sqrt(2.0))  # a rate of 0.5
TUNING_TASKS = 8  # on which the whole grid is judged, with one draw of the noise
FINALISTS, FINAL_TASKS, FINAL_DRAWS = 6, 16, 2  # the best settings meet again on new tasks
GRADIENTS: dict[str, type[PlainGradients]] = {
    "dp_sgd": PlainGradients,
    "dp_sgd_subspace": PlainGradients,
    "pdp_sgd": ProjectedGradients,
    "gep": ResidualGradients,
    "pda_dpmd": MirroredGradients,
    "dope": CentredGradients,
}
"""The tuned methods. Names that end in ``subspace`` see features in the coordinates of Û."""


def one_step_setting(dimension: int) -> Setting:
    """One step from 0 whose rate undoes the shrinkage by clipping: the release of the theory."""
    return Setting(1, 1.0, 1 / clip_statistics(dimension)[1])


def untuned_settings(point: Point) -> dict[str, Setting]:
    """The methods that are not tuned, all of them DP-SGD, with their settings."""
    return {
        "dp_sgd_fixed": FIXED,
        "dp_sgd_fixed_subspace": FIXED,
        "dp_sgd_one_step": one_step_setting(point.d),
        "dp_sgd_one_step_subspace": one_step_setting(point.k),
    }


def make_columns(point: Point, method: str, public: PublicKnowledge, settings: list[Setting]) -> Columns:
    """Settings that all have the same number of steps, in absolute units, all of them with noise."""
    steps = settings[0].steps
    norm = math.sqrt(_dimension(point, method)) * public.label_rms
    return Columns(
        steps=steps,
        rates_R=torch.tensor([setting.length / math.sqrt(steps) for setting in settings]),
        clips_R=torch.tensor([setting.clip * norm for setting in settings]),
        noise_R=torch.ones(len(settings)),
    )


def _dimension(point: Point, method: str) -> int:
    """p, the number of features that the method sees."""
    return point.k if method.endswith("subspace") else point.d


def run_descent(
    point: Point, method: str, public: PublicKnowledge, data: tuple[Tensor, Tensor], *, columns: Columns, seed: int
) -> Tensor:
    """(B, R, d) weights of one iterative method on (B, n, d) features and (B, n) labels."""
    x_Bnd, y_Bn = data
    inside = method.endswith("subspace")
    x_Bnp = x_Bnd @ public.basis_dk if inside else x_Bnd
    rng = torch.Generator().manual_seed(seed)
    kind = GRADIENTS.get(method, PlainGradients)
    theta_BpR = descend(kind(x_Bnp, y_Bn, columns, point.budget, rng, public))
    return (public.basis_dk @ theta_BpR if inside else theta_BpR).mT


@lru_cache(maxsize=2)
def _tuning_data(point: Point, tasks: int, purpose: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and weights of new public tasks of the first world."""
    world = make_world(point, 0, purpose)
    w_Bd = world.draw_weights(tasks)
    records_Bnd1 = world.draw_records(w_Bd, point.n)
    return records_Bnd1[..., : point.d], records_Bnd1[..., point.d], w_Bd


def measure_risks(
    point: Point, method: str, settings: list[Setting], *, tasks: int, draws: int, purpose: str
) -> dict[Setting, float]:
    """Mean excess risk of each setting over tuning tasks and draws of the noise."""
    public = learn_public(point, 0)
    x_Bnd, y_Bn, w_Bd = _tuning_data(point, tasks, purpose)
    risks: dict[Setting, float] = {}
    for steps in sorted({setting.steps for setting in settings}):
        alike = [setting for setting in settings if setting.steps == steps]
        columns = make_columns(point, method, public, alike * draws)
        seed = derive_seed(method, steps, purpose)
        weights_BRd = run_descent(point, method, public, (x_Bnd, y_Bn), columns=columns, seed=seed)
        risk_R = excess_risk(weights_BRd, w_Bd).mean(0).nan_to_num(math.inf)
        risks |= dict(zip(alike, risk_R.unflatten(0, (draws, -1)).mean(0).tolist(), strict=True))
    return risks


@lru_cache(maxsize=64)
def tune(point: Point, method: str) -> Setting:
    """The best setting on tuning tasks of the first world, for a point of angle 0: these tasks are public.

    `GRID` and the untuned settings compete. The least of so many noisy risks flatters its owner, so the best few are
    judged once more on new tasks.
    """
    settings = [*GRID, FIXED, one_step_setting(_dimension(point, method))]
    first = measure_risks(point, method, settings, tasks=TUNING_TASKS, draws=1, purpose="tuning")
    best = sorted(first, key=first.__getitem__)[:FINALISTS]
    final = measure_risks(point, method, best, tasks=FINAL_TASKS, draws=FINAL_DRAWS, purpose="final tuning")
    return min(final, key=final.__getitem__)
