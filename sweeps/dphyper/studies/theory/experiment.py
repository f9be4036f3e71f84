"""All runs of one point of the theory study: every method on the same data sets, several times with fresh noise.

A run is one method on one data set with one draw of the noise: one row. Equal arguments give equal numbers on one
machine: the noise comes from a seed, which is right for simulated records only. Nothing is averaged here;
`dphyper.studies.theory.fits` does that.

Shapes: B data sets, n records of each, d features, k dimension of the subspace, R draws of the noise.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from dphyper.core.files import whole_file
from dphyper.core.specs import content_hash
from dphyper.studies.theory.draws import derive_seed, learn_public, make_world, train_network
from dphyper.studies.theory.hypernetworks import adapt_analytic, adapt_learned
from dphyper.studies.theory.knowledge import PublicKnowledge
from dphyper.studies.theory.least_squares import fit_adassp, fit_least_squares
from dphyper.studies.theory.points import CENTRE, Point
from dphyper.studies.theory.tuning import GRADIENTS, make_columns, run_descent, tune, untuned_settings
from dphyper.studies.theory.worlds import excess_risk

# Raise this when the rows of a point change their meaning or their numbers: another method, grid, constant, estimator
# or public training. Finished points of another version are run again, all 60,000 runs of them.
# tests/studies/theory/test_experiment.py pins numbers of each version and fails where this was forgotten.
VERSION = 1
WORLDS, TASKS, DRAWS = 4, 4, 2  # draws of the subspace and its public data, private data sets of each, noise draws
BOUND_QUANTILE = 0.99  # of the public ‖x‖ and |y|, at which AdaSSP clips


def run(point: Point) -> pd.DataFrame:
    """All runs of one point: one row for each method, world, data set and noise draw.

    Returns:
        Columns of `Point`, ``method``, ``world``, ``task``, ``draw``, ``excess`` (excess risk; 1 is predicting 0),
        ``excess_noiseless`` (the same method, data and hyper-parameters without privacy noise) and ``moved`` (the
        squared distance of the weights to those; both NaN where that was not run).
    """
    rows: list[dict[str, object]] = []
    for index in range(WORLDS):
        world, public = make_world(point, index, f"private {point.n}"), learn_public(point, index)
        w_Bd = world.draw_weights(TASKS, angle=point.angle)
        records_Bnd1 = world.draw_records(w_Bd, point.n)
        for method, weights_BRd in _estimate(point, index, public, records_Bnd1):
            risk_BR = excess_risk(weights_BRd, w_Bd)
            moved_BR = (weights_BRd - weights_BRd[:, -1:]).square().sum(2)
            noisy = risk_BR.shape[1] > 1
            draws = risk_BR.shape[1] - noisy
            for task, draw in product(range(TASKS), range(draws)):
                rows.append(
                    {
                        "method": method,
                        "world": index,
                        "task": task,
                        "draw": draw,
                        "excess": float(risk_BR[task, draw]),
                        "excess_noiseless": float(risk_BR[task, -1]) if noisy else math.nan,
                        "moved": float(moved_BR[task, draw]) if noisy else math.nan,
                    }
                )
    return pd.DataFrame(rows).assign(**dataclasses.asdict(point))


def _estimate(point: Point, index: int, public: PublicKnowledge, records_Bnd1: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each method's (B, R + 1, d) weights, the noiseless ones last; (B, 1, d) where there is no noise to draw."""
    x_Bnd, y_Bn = records_Bnd1[..., : point.d], records_Bnd1[..., point.d]
    rng = torch.Generator().manual_seed(derive_seed(repr(point), index))
    budget = point.budget
    yield from adapt_analytic(x_Bnd, y_Bn, public, budget, draws=DRAWS, rng=rng).items()
    if point == dataclasses.replace(CENTRE, n=point.n, epsilon=point.epsilon, angle=point.angle):
        network = train_network(index)
        yield "hypernetwork_learned", adapt_learned(network, records_Bnd1, public, budget, draws=DRAWS, rng=rng)
    tuning_point, untuned = dataclasses.replace(point, angle=0.0), untuned_settings(point)
    for method in [*GRADIENTS, *untuned]:
        setting = untuned[method] if method in untuned else tune(tuning_point, method)
        columns = make_columns(point, method, public, [setting] * (DRAWS + 1))
        columns.noise_R[-1] = 0
        seed = derive_seed(rng.initial_seed(), method)
        yield method, run_descent(point, method, public, (x_Bnd, y_Bn), columns=columns, seed=seed)
    inner_Bnk, basis_kd = x_Bnd @ public.basis_dk, public.basis_dk.T
    norms_M, inner_norms_M = public.x_Md.norm(dim=1), (public.x_Md @ public.basis_dk).norm(dim=1)
    for name, features, bounded_M in (("adassp", x_Bnd, norms_M), ("adassp_subspace", inner_Bnk, inner_norms_M)):
        bounds = {"x_bound": float(bounded_M.quantile(BOUND_QUANTILE)), "y_bound": public.label_bound}
        theta_BRp = fit_adassp(features, y_Bn, budget, **bounds, draws=DRAWS, rng=rng)
        yield name, theta_BRp @ basis_kd if name.endswith("subspace") else theta_BRp
    yield "public_mean", public.mean_d.expand(TASKS, 1, -1)
    yield "least_squares", fit_least_squares(x_Bnd, y_Bn)[:, None]
    yield "least_squares_subspace", (fit_least_squares(inner_Bnk, y_Bn) @ basis_kd)[:, None]


def path_of_runs(store: Path, point: Point) -> Path:
    """The file of a point's runs, of this `VERSION`, in a folder."""
    return store / f"{content_hash([repr(point), VERSION])}.parquet"


def run_into(job: tuple[Point, Path]) -> tuple[int, float]:
    """Run one point on one core and write its file; return the number of runs and the processor's seconds."""
    torch.set_num_threads(1)
    point, path = job
    begin = time.process_time()
    runs = run(point)
    with whole_file(path) as temporary:
        runs.to_parquet(temporary, index=False)
    return len(runs), time.process_time() - begin
