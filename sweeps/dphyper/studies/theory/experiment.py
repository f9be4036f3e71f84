"""The theory as an experiment: ``python -m dphyper.studies.theory.experiment --out docs/results/theory``.

A point is one linear world of dimensions d and k, private data sets of n records, a budget, an angle between the
private tasks and the public subspace, and a number and size of public tasks. At each point every method meets the
same data sets, several times with fresh noise; a run is one of these, one row. Finished points are kept and
skipped when the command is repeated. Equal arguments give equal numbers on one machine: the
noise comes from a seed, which is right for simulated records only.

Hyper-parameters of the iterative methods are tuned at every point on public tasks of the same world, whose true
weights stand in for a large public test set; those named ``fixed`` and ``one_step`` are not tuned, so that tuning
does not bend their laws. Nothing is averaged here; see `dphyper.studies.theory.report` for fits and figures.

Shapes: as in `dphyper.studies.theory.estimators`.
"""

import dataclasses
import inspect
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli
from torch import Tensor

from dphyper.core.specs import content_hash
from dphyper.methods import hypernetwork
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkOptions
from dphyper.privacy.accounting import gaussian_noise_multiplier
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory import estimators
from dphyper.studies.theory.worlds import LinearWorld

DELTA = 1e-5
NOISE_STD = 0.5
WORLDS, TASKS, DRAWS = 4, 4, 2  # draws of the subspace and its public data, private data sets of each, noise draws
TUNING_TASKS = 8
FINALISTS, FINAL_TASKS, FINAL_DRAWS = 6, 16, 2  # the best settings of tuning meet again on new tasks
Combo = tuple[int, float, float]  # T, C over √p rms(y), rate times √T
# A small clip norm wants a large rate, so that the grid is one of clip norms and of their products with the rate.
# The least product leaves 0 almost alone: where noise hides everything, a tuned method may predict next to nothing.
GRID: list[Combo] = [
    (steps, clip, length / clip)
    for steps, clip, length in product(
        (1, 4, 24),
        (0.03, 0.1, 0.3, 1.0, 2.0),
        (0.0003, 0.0012, 0.005, 0.02, 0.08, 0.16, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0),
    )
]
FIXED = (8, 1.0, math.sqrt(2.0))  # in the same units: a rate of 0.5
LEARNED = HypernetworkOptions(
    train_steps=3000,
    tasks=64,
    support=64,
    query=64,
    width=128,
    learning_rate=3e-3,
    # Most tasks are seen without noise: there the decoder has to be exact, while under noise any is good enough.
    clean_fraction=0.5,
    prior_fraction=0.03,
)
ANGLES = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0)
KINDS: dict[str, estimators.Kind] = {
    "dp_sgd": "plain",
    "dp_sgd_subspace": "plain",
    "pdp_sgd": "projected",
    "gep": "residual",
    "pda_dpmd": "mirror",
    "dope": "centred",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the sweep.

    Attributes:
        d: Features.
        k: Dimension of the shared subspace and of the embedding.
        n: Private records.
        epsilon: ε, ``inf`` for no privacy.
        angle: Degrees between private tasks and the public subspace.
        public_tasks: Number of public tasks.
        public_size: Records of each.
    """

    d: int = 200
    k: int = 8
    n: int = 512
    epsilon: float = 2.0
    angle: float = 0.0
    public_tasks: int = 1000
    public_size: int = 128

    @property
    def budget(self) -> Budget:
        """The budget, under add-or-remove-one."""
        return Budget(epsilon=self.epsilon, delta=DELTA, relation=Relation.ADD_OR_REMOVE_ONE)


CENTRE = Point()


def axes() -> Iterator[tuple[str, Point]]:
    """Every point with the axis it belongs to; a point may lie on several axes."""
    base = CENTRE
    for epsilon in (0.5, 2.0):
        yield from (("n", dataclasses.replace(base, n=2**i, epsilon=epsilon)) for i in range(5, 13))
        yield from (("d", dataclasses.replace(base, d=d, epsilon=epsilon)) for d in (50, 100, 200, 400, 800, 1000))
        yield from (("k", dataclasses.replace(base, k=k, epsilon=epsilon)) for k in (2, 4, 8, 16, 32))
    for n, epsilon in product((128, 1024), (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)):
        yield "epsilon", dataclasses.replace(base, n=n, epsilon=epsilon)
    yield from (("d x k", dataclasses.replace(base, d=d, k=k)) for d, k in product((50, 200, 1000), (2, 8, 32)))
    for n, epsilon in product((512, 4096), (2.0, 8.0)):
        cross = dataclasses.replace(base, n=n, epsilon=epsilon)
        yield from (("angle", dataclasses.replace(cross, angle=angle)) for angle in ANGLES)
        yield from (("public_tasks", dataclasses.replace(cross, public_tasks=2**i)) for i in range(3, 13))
    yield from (("public_size", dataclasses.replace(base, public_size=m)) for m in (8, 32, 128, 512))


def _world(point: Point, index: int, purpose: str) -> LinearWorld:
    """World number ``index`` of these dimensions, its stream set for one purpose."""
    world = LinearWorld(d=point.d, k=point.k, noise_std=NOISE_STD, seed=index)
    world.rng.manual_seed(_seed(point.d, point.k, index, purpose))
    return world


def _seed(*parts: object) -> int:
    return int(content_hash([*parts])[:15], 16)


def _public_records(point: Point, index: int) -> Callable[[int], Tensor]:
    """Draws the records of some more public tasks; the same calls in the same order give the same records."""
    world = _world(point, index, "public")
    return lambda num: world.records(world.weights(num), point.public_size)


@lru_cache(maxsize=8)
def _public(d: int, k: int, public_tasks: int, public_size: int, index: int) -> estimators.Public:
    draw = _public_records(Point(d=d, k=k, public_size=public_size), index)
    return estimators.learn_public(draw, tasks=public_tasks, size=public_size, k=k, d=d)


@lru_cache(maxsize=8)
def _network(index: int) -> Hypernetwork:
    """The learned form, trained at the centre of the sweep; one network serves all n, ε and angles there.

    It meets the very records that Û comes from, drawn once more, and no other.
    """
    draw, kept = _public_records(CENTRE, index), list[Tensor]()

    def keep(num: int) -> Tensor:
        kept.append(draw(num))
        return kept[-1]

    shape = {"tasks": CENTRE.public_tasks, "size": CENTRE.public_size, "k": CENTRE.k, "d": CENTRE.d}
    public = estimators.learn_public(keep, **shape)
    return estimators.meta_train(torch.cat(kept), public, LEARNED, seed=index)


def _public_of(point: Point, index: int) -> estimators.Public:
    return _public(point.d, point.k, point.public_tasks, point.public_size, index)


def _settings(point: Point, public: estimators.Public, combos: list[Combo], inside: bool) -> estimators.Settings:
    """Columns for hyper-parameters that all have the same number of steps."""
    steps = combos[0][0]
    norm = math.sqrt(point.k if inside else point.d) * public.label_rms
    return estimators.Settings(
        steps=steps,
        rates=torch.tensor([rate / math.sqrt(steps) for _, _, rate in combos]),
        clips=torch.tensor([clip * norm for _, clip, _ in combos]),
        noise=torch.ones(len(combos)),
    )


def _descend(
    point: Point,
    method: str,
    public: estimators.Public,
    data: tuple[Tensor, Tensor],
    *,
    settings: estimators.Settings,
    seed: int,
) -> Tensor:
    """(B, R, d) weights of one iterative method."""
    x_Bnd, y_Bn = data
    inside = method.endswith("subspace")
    theta_BpR = estimators.descend(
        x_Bnd @ public.basis_dk if inside else x_Bnd,
        y_Bn,
        settings,
        point.budget,
        torch.Generator().manual_seed(seed),
        kind=KINDS.get(method, "plain"),
        public=public,
    )
    return (public.basis_dk @ theta_BpR if inside else theta_BpR).mT


def _one_step(dimension: int) -> Combo:
    """One step from 0 whose rate undoes the shrinkage by clipping: the release of the theory."""
    return 1, 1.0, 1 / _clipping(dimension)[1]


@lru_cache(maxsize=2)
def _tuning_data(point: Point, tasks: int, purpose: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and weights of new public tasks of the first world."""
    world = _world(point, 0, purpose)
    w_Bd = world.weights(tasks)
    records_Bnd1 = world.records(w_Bd, point.n)
    return records_Bnd1[..., : point.d], records_Bnd1[..., point.d], w_Bd


def _judged(
    point: Point, method: str, combos: list[Combo], *, tasks: int, draws: int, purpose: str
) -> dict[Combo, float]:
    """Mean excess risk of each setting over tuning tasks and draws of the noise."""
    public = _public_of(point, 0)
    x_Bnd, y_Bn, w_Bd = _tuning_data(point, tasks, purpose)
    scores: dict[Combo, float] = {}
    for steps in sorted({combo[0] for combo in combos}):
        alike = [combo for combo in combos if combo[0] == steps]
        settings = _settings(point, public, alike * draws, method.endswith("subspace"))
        seed = _seed(method, steps, purpose)
        weights_BRd = _descend(point, method, public, (x_Bnd, y_Bn), settings=settings, seed=seed)
        risk_R = (weights_BRd - w_Bd[:, None]).square().sum(2).mean(0).nan_to_num(math.inf)
        scores |= dict(zip(alike, risk_R.unflatten(0, (draws, -1)).mean(0).tolist(), strict=True))
    return scores


@lru_cache(maxsize=64)
def _tuned(point: Point, method: str) -> Combo:
    """The best setting on tuning tasks of the first world; the angle of ``point`` is 0, for these are public.

    `GRID` and the untuned settings compete. The least of so many noisy scores flatters its owner, so that the best
    few are judged once more on new tasks.
    """
    combos = [*GRID, FIXED, _one_step(point.k if method.endswith("subspace") else point.d)]
    first = _judged(point, method, combos, tasks=TUNING_TASKS, draws=1, purpose="tuning")
    best = sorted(first, key=first.__getitem__)[:FINALISTS]
    final = _judged(point, method, best, tasks=FINAL_TASKS, draws=FINAL_DRAWS, purpose="final tuning")
    return min(final, key=final.__getitem__)


def run(point: Point) -> pd.DataFrame:
    """All runs of one point: one row for each method, world, data set and noise draw.

    Returns:
        Columns of `Point`, ``method``, ``world``, ``task``, ``draw``, ``excess`` (excess risk; 1 is predicting 0),
        ``excess_noiseless`` (the same method, data and hyper-parameters without privacy noise) and ``moved`` (the
        squared distance of the weights to those; both NaN where that was not run).
    """
    rows: list[dict[str, object]] = []
    flat = dataclasses.replace(point, angle=0.0)
    for index in range(WORLDS):
        world, public = _world(point, index, f"private {point.n}"), _public_of(point, index)
        w_Bd = world.weights(TASKS, angle=point.angle)
        records_Bnd1 = world.records(w_Bd, point.n)
        for method, weights_BRd in _estimates(point, flat, index, public, records_Bnd1):
            risk_BR = (weights_BRd - w_Bd[:, None]).square().sum(2)
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


def _estimates(
    point: Point, flat: Point, index: int, public: estimators.Public, records_Bnd1: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Each method's (B, R + 1, d) weights, the noiseless ones last; (B, 1, d) where there is no noise to draw."""
    x_Bnd, y_Bn = records_Bnd1[..., : point.d], records_Bnd1[..., point.d]
    inner_Bnk = x_Bnd @ public.basis_dk
    rng = torch.Generator().manual_seed(_seed(repr(point), index))
    budget = point.budget
    yield from estimators.hypernetwork(x_Bnd, y_Bn, public, budget, draws=DRAWS, rng=rng).items()
    centre = dataclasses.replace(CENTRE, n=point.n, epsilon=point.epsilon, angle=point.angle)
    if point == centre:
        yield (
            "hypernetwork_learned",
            estimators.learned(_network(index), records_Bnd1, public, budget, draws=DRAWS, rng=rng),
        )
    untuned = {
        "dp_sgd_fixed": FIXED,
        "dp_sgd_fixed_subspace": FIXED,
        "dp_sgd_one_step": _one_step(point.d),
        "dp_sgd_one_step_subspace": _one_step(point.k),
    }
    for method in [*KINDS, *untuned]:
        chosen = untuned[method] if method in untuned else _tuned(flat, method)
        settings = _settings(point, public, [chosen] * (DRAWS + 1), method.endswith("subspace"))
        settings.noise[-1] = 0
        yield (
            method,
            _descend(point, method, public, (x_Bnd, y_Bn), settings=settings, seed=_seed(rng.initial_seed(), method)),
        )
    for name, features, scale in (("adassp", x_Bnd, None), ("adassp_subspace", inner_Bnk, public.basis_dk)):
        norms_m = (public.x_md if scale is None else public.x_md @ public.basis_dk).norm(dim=1)
        bounds = {"x_bound": float(norms_m.quantile(0.99)), "y_bound": public.label_bound}
        theta_BRp = estimators.adassp(features, y_Bn, budget, **bounds, draws=DRAWS, rng=rng)
        yield name, theta_BRp if scale is None else theta_BRp @ scale.T
    yield "public_mean", public.mean_d.expand(TASKS, 1, -1)
    yield "least_squares", estimators.least_squares(x_Bnd, y_Bn)[:, None]
    yield "least_squares_subspace", (estimators.least_squares(inner_Bnk, y_Bn) @ public.basis_dk.T)[:, None]


@lru_cache(maxsize=256)
def _clipping(dimension: int) -> tuple[float, float, float]:
    """Clip norm, γ and trace of the covariance of clipped y·x in that dimension, by Monte Carlo for ‖w‖ = 1."""
    rng = np.random.default_rng(0)
    along, label_noise = rng.standard_normal((2, 400_000))
    norm = np.sqrt(along**2 + (rng.chisquare(dimension - 1, along.shape) if dimension > 1 else 0.0))
    y = along + NOISE_STD * label_noise
    clip = math.sqrt(dimension * (1 + NOISE_STD**2))
    factor = np.minimum(1, clip / np.abs(y * norm))
    scale = float((factor * y * along).mean())
    return clip, scale, float(((factor * y * norm) ** 2).mean()) - scale**2


def curves(point: Point) -> dict[str, float]:
    """The theory at one point, constants included; ``docs/theory.md`` derives it.

    Returns:
        ``privacy_*`` and ``sampling_*`` for one release in k dimensions and in d, ``subspace``, ``misalignment``,
        the totals ``theory_subspace`` and ``theory_ambient``, and the bare rates p² log(1/δ)/(n² ε²).
    """
    finite = math.isfinite(point.epsilon)
    multiplier = gaussian_noise_multiplier(point.epsilon, DELTA) if finite else 0.0
    v = 1 + NOISE_STD**2
    out: dict[str, float] = {}
    for name, p, count in (("subspace", point.k, 1 / 3), ("ambient", point.d, 0.0)):
        clip, scale, variance = _clipping(p)
        out[f"privacy_{name}"] = p * (multiplier * clip * math.hypot(1, count) / (scale * point.n)) ** 2
        out[f"sampling_{name}"] = variance / (scale**2 * point.n)
        out[f"rate_{name}"] = p**2 * math.log(1 / DELTA) / (point.n * point.epsilon) ** 2 if finite else 0.0
    records = point.public_tasks * point.public_size
    leak = (point.d - point.k) * point.k * v / records * (1 + v * point.k / point.public_size)
    sine = math.sin(math.radians(point.angle)) ** 2
    out["subspace_error"], out["misalignment"] = min(leak, 1.0) * (1 - sine), sine
    inside = out["privacy_subspace"] + out["sampling_subspace"]
    out["theory_subspace"] = inside + out["subspace_error"] + out["misalignment"]
    out["theory_ambient"] = out["privacy_ambient"] + out["sampling_ambient"]
    return out


def _work(job: tuple[Point, Path]) -> tuple[int, float]:
    torch.set_num_threads(1)
    point, path = job
    begin = time.process_time()
    frame = run(point)
    frame.to_parquet(path.with_suffix(".part"), index=False)
    path.with_suffix(".part").replace(path)
    return len(frame), time.process_time() - begin


def main(
    out: Path = Path("docs/results/theory"), store: Path = Path("runs/theory"), workers: int = 2, limit: int = 0
) -> None:
    """Run the theory sweep and write its table, figures and LaTeX.

    Args:
        out: Folder of tables and figures.
        store: Folder of the runs, one file a point; finished points are skipped.
        workers: Processes, one core each.
        limit: Run at most so many new points and then report on what there is; 0 for all.
    """
    from dphyper.studies.theory.report import report

    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    store.mkdir(parents=True, exist_ok=True)
    plan = [*axes()]
    # Points that other code made are not taken for finished.
    code = [inspect.getsource(module) for module in (estimators, hypernetwork, sys.modules[__name__])]
    paths = {point: store / f"{content_hash([repr(point), code])}.parquet" for _, point in plan}
    jobs = [(point, path) for point, path in paths.items() if not path.exists()]
    jobs.sort(
        key=lambda job: (job[0].d, job[0].k, job[0].public_tasks, job[0].public_size, job[0].n, job[0].epsilon),
        reverse=True,
    )
    # Neighbours in this order share public data and tuning, which a worker keeps: it takes a stretch at a time. The
    # largest come first, so that no worker is left alone with them.
    jobs = jobs[: limit or None]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        spent = 0.0
        for number, (rows, seconds) in enumerate(pool.imap_unordered(_work, jobs, chunksize=4), 1):
            spent += seconds
            print(f"{number}/{len(jobs)} points, {rows} runs in {seconds:.1f} s", file=sys.stderr, flush=True)
    table = pd.DataFrame(
        [{"axis": axis, **dataclasses.asdict(point), **curves(point)} for axis, point in plan if paths[point].exists()]
    )
    runs = pd.concat([pd.read_parquet(path) for path in paths.values() if path.exists()], ignore_index=True)
    print(report(runs, table, out))
    wall = time.perf_counter() - begin
    print(f"{len(runs)} runs in the store; this call took {wall:.0f} s, and {spent:.0f} s of its workers' processors")


if __name__ == "__main__":
    auto_cli(main)
