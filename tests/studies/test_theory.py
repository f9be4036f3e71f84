"""The linear setting: its data, its target, the batched methods against references, and the fits of the report."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.methods.hypernetwork import HypernetworkOptions
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory import estimators, experiment
from dphyper.studies.theory.regression import LinearRegression
from dphyper.studies.theory.report import crossing, crossings, learned_against_analytic, slope, summary
from dphyper.studies.theory.worlds import LinearSpec, LinearWorld, load, make

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
D, K, SIZE = 20, 2, 128


def world_and_public(tasks: int = 300) -> tuple[LinearWorld, estimators.Public, torch.Tensor]:
    world = LinearWorld(d=D, k=K, noise_std=0.5, seed=3)
    records = world.records(world.weights(tasks), SIZE)
    left = [records]
    public = estimators.learn_public(lambda num: left.pop(), tasks=tasks, size=SIZE, k=K, d=D)
    return world, public, records


def settings(steps: int = 3, clip: float = 4.0, rate: float = 0.5, columns: int = 1, noise: float = 1.0):
    return estimators.Settings(
        steps=steps,
        rates=torch.full((columns,), rate),
        clips=torch.full((columns,), clip),
        noise=torch.full((columns,), noise),
    )


def test_splits_share_no_record_and_no_task() -> None:
    collection = make(LinearSpec(d=6, public_tasks=5, private_size=50, angle=30.0))
    seen = [set(map(bytes, collection.records[task.indices])) for task in collection.tasks]
    assert len(set().union(*seen)) == sum(map(len, seen)) == len(collection.records)
    again = make(LinearSpec(d=6, public_tasks=5, private_size=50, angle=30.0))
    np.testing.assert_array_equal(collection.records, again.records)
    assert collection.task("private/0").distance == "30°"


def test_source_reads_its_argument_and_refuses_what_it_cannot() -> None:
    assert load(DataSpec(source="linear:d=7,k=3,public_tasks=2,private_size=40")).records.shape[1] == 8
    for argument, message in (("kk=3", "did you mean 'k'"), ("k=three", "expected a number"), ("k=9,d=9", "below d")):
        with pytest.raises(UserError, match=message):
            load(DataSpec(source=f"linear:{argument}"))


@pytest.mark.parametrize("angle", [0.0, 20.0, 90.0])
def test_private_tasks_lie_at_the_angle(angle: float) -> None:
    world = LinearWorld(d=10, k=3, noise_std=0.1, seed=0)
    w_Bd = world.weights(50, angle=angle)
    torch.testing.assert_close(w_Bd.norm(dim=1), torch.ones(50))
    inside_B = (w_Bd @ world.basis_dk).norm(dim=1)
    torch.testing.assert_close(inside_B, torch.full((50,), math.cos(math.radians(angle))), atol=1e-5, rtol=0)


def test_excess_risk_equals_monte_carlo() -> None:
    world = LinearWorld(d=5, k=2, noise_std=0.3, seed=1)
    w_d, guess_d = world.weights(1)[0], torch.tensor([0.3, -0.1, 0.2, 0.0, 0.4])
    target = LinearRegression(5)
    records = world.records(w_d[None], 400_000)[0]
    gap = target.per_example_loss(guess_d, records, None) - target.per_example_loss(w_d, records, None)
    # The loss is half the squared error.
    mean, error = 2 * float(gap.mean()), 2 * float(gap.std()) / math.sqrt(len(records))
    assert abs(mean - float(target.evaluate(guess_d, w_d))) < 4 * error


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_and_features_of_the_target(inside: bool) -> None:
    basis = torch.linalg.qr(torch.randn(4, 2, generator=torch.Generator().manual_seed(0))).Q if inside else None
    target = LinearRegression(4, basis_dP=basis)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    theta = torch.full((target.num_parameters,), 0.3, requires_grad=True)
    wanted = [torch.autograd.grad(target.per_example_loss(theta, row[None], None).sum(), theta)[0] for row in x]
    found = target.per_example_gradients(theta.detach(), x, torch.Generator(), 1)
    torch.testing.assert_close(found, torch.stack(wanted))
    at_zero = target.per_example_gradients(target.initial(), x, torch.Generator(), 1)
    torch.testing.assert_close(target.features(x), -at_zero)


def test_analytic_form_equals_numpy() -> None:
    world, public, _ = world_and_public()
    records = world.records(world.weights(2), 200)
    x, y = records[..., :D], records[..., D]
    found = estimators.hypernetwork(x, y, public, FREE, draws=1, rng=torch.Generator())["hypernetwork"][:, 0]

    basis = public.basis_dk.numpy()
    rows = y.numpy()[..., None] * (x.numpy() @ basis)
    clip = np.sqrt(K) * public.label_rms
    rows = rows / np.maximum(1, np.linalg.norm(rows, axis=2, keepdims=True) / clip)
    wanted = rows.mean(1) / public.embedding_scale @ basis.T
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_subspace_comes_from_public_moments() -> None:
    world, public, _ = world_and_public(1000)
    leak = 1 - float((public.basis_dk.T @ world.basis_dk).square().sum()) / K
    # d k v (1 + v k / m) / (m T), half to twice.
    predicted = (D - K) * K * 1.25 / (SIZE * 1000) * (1 + 1.25 * K / SIZE)
    assert predicted / 2 < leak < 2 * predicted


@pytest.mark.parametrize("relation", list(Relation))
def test_batched_release_has_the_noise_of_private_data(relation: Relation) -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=relation)
    mechanism = estimators.one_shot(budget, 2.0)
    rows = torch.full((1, 400, K), 0.5)
    mean, std, _ = estimators.released_means(rows, mechanism, budget, draws=4000, rng=torch.Generator().manual_seed(0))
    noise = NoiseSource.reproducible(0)
    released = PrivateData(rows[0], n=400, ledger=Ledger(budget), noise=noise).release_mean(
        lambda x, rng: x, mechanism, role="embedding"
    )
    # The published std differs from draw to draw through the noisy count; its typical value must not.
    assert float(std[0, :-1].median()) == pytest.approx(released.noise_std, rel=0.15)
    torch.testing.assert_close(mean[0, -1], torch.full((K,), 0.5))
    # On a zero sum the noise is seen alone.
    zero, std, _ = estimators.released_means(
        0 * rows, mechanism, budget, draws=4000, rng=torch.Generator().manual_seed(1)
    )
    scaled = (zero / std[..., None])[0, :-1].flatten().numpy()
    assert [stats.kstest(scaled, "norm", (0, s)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)] == [True, False, False]


@pytest.mark.parametrize("kind", ["plain", "mirror", "centred"])
def test_batched_steps_have_the_noise_of_private_data(kind: estimators.Kind) -> None:
    _, public, _ = world_and_public()
    x, y = torch.zeros(1, 50, D), torch.zeros(1, 50)
    plan = settings(steps=1, rate=1.0, columns=500)
    theta = estimators.descend(x, y, plan, TIGHT, torch.Generator().manual_seed(0), kind=kind, public=public)[0]
    (mechanism,) = estimators.gradient_steps(TIGHT, 1)
    private = PrivateData(torch.zeros(50, D), n=50, ledger=Ledger(TIGHT), noise=NoiseSource.reproducible(0))
    draws = next(private.gradient_steps(lambda rows, rng: 0 * rows, mechanism, role="gradient"))
    assert float(draws.std()) == pytest.approx(mechanism.noise_std(TIGHT.relation) / 50, rel=0.5)
    expected = 4.0 * mechanism.noise_std(TIGHT.relation) / 50
    values = (theta - theta.mean(1, keepdim=True)).flatten().numpy()
    accepted = [stats.kstest(values, "norm", (0, s * expected)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)]
    assert accepted == [True, False, False]


def test_batched_descent_equals_private_data_step_by_step() -> None:
    world, _, _ = world_and_public()
    records = world.records(world.weights(1), 60)
    found = estimators.descend(records[..., :D], records[..., D], settings(), FREE, torch.Generator())[0, :, 0]
    target, theta = LinearRegression(D), torch.zeros(D)
    private = PrivateData(records[0], n=60, ledger=Ledger(FREE), noise=NoiseSource.reproducible(0))
    (mechanism,) = estimators.gradient_steps(FREE, 3)
    clipped = lambda x, rng: target.per_example_gradients(theta, x, torch.Generator(), 1) / 4.0  # noqa: E731
    for gradient in private.gradient_steps(clipped, mechanism, role="gradient"):
        theta = theta - 0.5 * 4.0 * gradient.float()
    torch.testing.assert_close(found, theta, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "projected", "residual", "mirror", "centred"])
def test_one_record_moves_a_step_by_at_most_its_clip(kind: estimators.Kind) -> None:
    """A record added to the data moves n·θ after one step of rate 1 by no more than the release's sensitivity."""
    world, public, _ = world_and_public()
    records = world.records(world.weights(1), 30)[0]
    plan = settings(steps=1, rate=1.0, noise=0.0)
    # GEP's two parts are charged as two releases; together they move the sum by at most this.
    bound = 4.0 * (math.hypot(1, estimators.RESIDUAL_CLIP) if kind == "residual" else 1.0)
    moved = 0.0
    for direction in torch.eye(D)[:5]:
        for scale, label in ((1e3, 1e3), (1.0, -1e4), (0.01, 5.0)):
            with_it = torch.cat([records[:-1], torch.cat([scale * direction, torch.tensor([label])])[None]])[None]
            without = with_it.clone()
            without[0, -1] = 0  # the null record
            both = [
                estimators.descend(r[..., :D], r[..., D], plan, TIGHT, torch.Generator(), kind=kind, public=public)
                for r in (with_it, without)
            ]
            null = 0.0
            if kind == "centred":  # a null record contributes clip(0 − h), a removed one nothing at all
                null = float((public.x_md * public.y_m[:, None]).mean(0).norm())
            moved = max(moved, 30 * float((both[0] - both[1]).norm()) - null)
    assert moved <= bound * (1 + 1e-4)
    if kind in ("plain", "mirror", "centred"):
        assert moved > 0.5 * bound, "the adversary is too weak to find a bound that is violated"


def test_adassp_sensitivities_under_adversarial_records() -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(1, 25, 6, generator=rng), torch.randn(1, 25, generator=rng)

    def statistics(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = estimators.clip_records(x, y, 2.0, 1.5)
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


def test_adassp_without_noise_is_least_squares() -> None:
    world, _, _ = world_and_public()
    w_Bd = world.weights(3)
    records = world.records(w_Bd, 400)
    x, y = records[..., :D], records[..., D]
    found = estimators.adassp(x, y, FREE, x_bound=1e3, y_bound=1e3, draws=1, rng=torch.Generator())[:, 0]
    torch.testing.assert_close(found, estimators.least_squares(x, y), atol=1e-5, rtol=1e-4)
    few = estimators.adassp(x[:, :10], y[:, :10], FREE, x_bound=1e3, y_bound=1e3, draws=2, rng=torch.Generator())
    assert float(few.norm(dim=2).max()) < 10, "fewer records than features: the least norm, not an explosion"
    wide = estimators.least_squares(x[:, :10], y[:, :10])
    torch.testing.assert_close((x[:, :10] @ wide[..., None])[..., 0], y[:, :10], atol=1e-4, rtol=1e-4)


def test_adassp_control_is_least_squares_on_the_clipped_records() -> None:
    world, _, _ = world_and_public()
    records = world.records(world.weights(3), 400)
    x, y = records[..., :D], records[..., D]
    found = estimators.adassp(x, y, TIGHT, x_bound=4.0, y_bound=1.5, draws=2, rng=torch.Generator())
    assert found.shape == (3, 3, D)
    wanted = estimators.least_squares(*estimators.clip_records(x, y, 4.0, 1.5))
    torch.testing.assert_close(found[:, -1], wanted)
    assert float((found[:, -1] - estimators.least_squares(x, y)).norm()) > 0.1, "the records are clipped in earnest"
    assert float((found[:, :-1] - wanted[:, None]).norm(dim=2).min()) > 0.1, "the draws carry noise"


def test_adassp_moment_noise() -> None:
    """With n² far above the noise on XᵀX, the error is the noise on Xᵀy over n."""
    x = math.sqrt(3.0) * torch.eye(3).repeat(100_000, 1)[None]  # XᵀX = n I
    n = x.shape[1]
    theta = estimators.adassp(x, torch.zeros(1, n), TIGHT, x_bound=2.0, y_bound=1.5, draws=300, rng=torch.Generator())
    (mechanism, *_) = estimators.gradient_steps(TIGHT, 1, releases=3)
    scaled = (theta[:, :-1] * n / (mechanism.noise_std(TIGHT.relation) * 2.0 * 1.5)).flatten().numpy()
    assert [stats.kstest(scaled, "norm", (0, s)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)] == [True, False, False]


def test_learned_form_comes_within_a_tenth_of_the_analytic() -> None:
    """Also where n is far above the public sizes and the decoder's bias is most of what the network adds."""
    world, public, records = world_and_public(400)
    options = HypernetworkOptions(
        train_steps=1000, tasks=24, support=64, query=64, width=64, learning_rate=6e-3, clean_fraction=0.5
    )
    networks = [estimators.meta_train(records, public, options, seed=0, rotations=8)]
    networks.append(estimators.meta_train(records[:20], public, options, seed=0, rotations=1))
    ratios = []
    for size, num in ((SIZE, 400), (1024, 100)):
        w_Bd = world.weights(num)
        private = world.records(w_Bd, size)
        rng = torch.Generator().manual_seed(0)
        analytic = estimators.hypernetwork(private[..., :D], private[..., D], public, TIGHT, draws=5, rng=rng)
        found = [estimators.learned(network, private, public, TIGHT, draws=5, rng=rng) for network in networks]
        risks = [float((w - w_Bd[:, None])[:, :-1].square().sum(2).mean()) for w in (analytic["hypernetwork"], *found)]
        ratios.append([risk / risks[0] for risk in risks[1:]])
    assert max(good for good, _ in ratios) < 1.1, ratios
    assert max(bad for _, bad in ratios) > 1.5, "a network of twenty tasks must be caught"


def test_rotated_tasks_are_tasks_of_the_same_records() -> None:
    _, public, records = world_and_public(10)
    inner = estimators.project(records, public.basis_dk)
    options = HypernetworkOptions(train_steps=3, tasks=4, support=32, query=16)
    tasks = estimators.LinearTasks(inner, options, seed=0, rotations=3)
    turned = tasks.images.unflatten(0, (3, 10, SIZE))
    torch.testing.assert_close(turned[..., -1], inner[..., -1].expand(3, -1, -1))
    # One rotation for all records of a task keeps their inner products; one for each record would not.
    gram = inner[..., :-1] @ inner[..., :-1].mT
    torch.testing.assert_close(turned[..., :-1] @ turned[..., :-1].mT, gram.expand(3, -1, -1, -1), atol=1e-4, rtol=0)
    broken = turned[0, :, :, :-1].clone()
    broken[:, 1::2] = turned[1, :, 1::2, :-1]
    assert float((broken @ broken.mT - gram).abs().max()) > 1
    assert float((turned[0] - turned[1]).abs().max()) > 1, "the copies are turned differently"
    for episode in tasks.train_dataloader():
        rows = torch.cat([episode.support_TS, episode.query_TQ], dim=1)
        assert (rows // SIZE == rows[:, :1] // SIZE).all(), "an episode's rows belong to one task"
        assert all(len(set(row.tolist())) == len(row) for row in rows), "support and query share a record"


def test_learned_form_meets_the_records_of_its_subspace(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(estimators, "meta_train", lambda records, *args, **kwargs: seen.append(records))
    centre = experiment.Point(d=12, k=2, public_tasks=40, public_size=64)
    monkeypatch.setattr(experiment, "CENTRE", centre)
    experiment._network.__wrapped__(0)
    public = experiment._public_of(centre, 0)

    def subspace(records: torch.Tensor) -> torch.Tensor:
        return estimators.learn_public(lambda num: records, tasks=40, size=64, k=2, d=12).basis_dk

    torch.testing.assert_close(subspace(seen[0]), public.basis_dk)
    world = experiment._world(centre, 0, "other")
    other = subspace(world.records(world.weights(40), 64))
    assert float((other @ other.T - public.basis_dk @ public.basis_dk.T).norm()) > 0.01


def test_theory_predicts_the_analytic_form() -> None:
    point = experiment.Point(d=50, k=4, n=256, epsilon=1.0)
    world, public = experiment._world(point, 0, "test"), experiment._public_of(point, 0)
    w_Bd = world.weights(100)
    records = world.records(w_Bd, point.n)
    rng = torch.Generator().manual_seed(0)
    found = estimators.hypernetwork(records[..., :50], records[..., 50], public, point.budget, draws=5, rng=rng)
    risk = float((found["hypernetwork"] - w_Bd[:, None])[:, :-1].square().sum(2).mean())
    assert risk == pytest.approx(experiment.curves(point)["theory_subspace"], rel=0.2)


@pytest.mark.parametrize("method", ["dp_sgd", "dp_sgd_subspace", "dope"])
def test_tuning_yields_to_zero_where_noise_hides_everything(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = experiment.Point(d=100, k=8, n=16, epsilon=0.1, public_tasks=50)

    def risk() -> float:
        chosen = experiment._tuned.__wrapped__(point, method)
        return experiment._judged(point, method, [chosen], tasks=32, draws=4, purpose="check")[chosen]

    assert risk() < 1.02
    monkeypatch.setattr(
        experiment, "GRID", [combo for combo in experiment.GRID if combo[1] >= 0.3 and combo[2] >= 0.05]
    )
    assert risk() > 1.02, "a grid without small steps must be caught"


@pytest.mark.parametrize(("n", "epsilon"), [(512, 1.0), (2048, 0.5)])
def test_tuned_steps_are_no_worse_than_untuned_ones(n: int, epsilon: float) -> None:
    point = experiment.Point(d=30, k=3, n=n, epsilon=epsilon, public_tasks=300)
    for method, dimension in (("dp_sgd", point.d), ("dp_sgd_subspace", point.k)):
        combos = [
            experiment.FIXED,
            experiment._one_step(dimension),
            experiment._tuned(point, method),
            experiment.GRID[0],
        ]
        judged = experiment._judged(point, method, combos, tasks=64, draws=8, purpose="check")
        *untuned, tuned, idle = (judged[combo] for combo in combos)
        assert tuned < 1.05 * min(untuned), (method, judged)
        assert idle > 1.05 * tuned, "a setting that hardly moves must be caught"


def test_docs_state_the_size_of_the_grid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
    assert f"{len(experiment.GRID)} settings" in text
    assert len(experiment.GRID) == len(set(experiment.GRID))


def test_axes_cover_four_octaves_and_enough_runs() -> None:
    plan = [*experiment.axes()]
    for axis in ("n", "epsilon", "d", "k"):
        values = [value for name, point in plan if name == axis and math.isfinite(value := getattr(point, axis))]
        assert math.log2(max(values) / min(values)) >= 4, axis
    # Nine noisy methods at the least, and every draw is a run.
    assert len({point for _, point in plan}) * 9 * experiment.WORLDS * experiment.TASKS * experiment.DRAWS >= 20_000


def test_fits_recover_a_law_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(5, 13)
    hits = 0
    for _ in range(300):
        _, low, high = slope(x, x**-2.0 * np.exp(0.1 * rng.standard_normal(len(x))))
        hits += low <= -2 <= high
    assert 0.9 < hits / 300 < 0.99
    assert math.isnan(slope(x, x - x[0])[0])
    assert math.isnan(crossing(x, np.ones(len(x))))


def test_intervals_of_the_theory_are_those_of_worlds() -> None:
    """The data sets of a world move together here: taken as independent, they would feign an interval half as wide."""
    rng, angles, n_tasks = np.random.default_rng(1), (0.0, 20.0, 40.0), 16
    shift = np.array([-6.0, -1.0, 2.0, 5.0])
    where = {"d": 64, "k": 8, "n": 512, "epsilon": 2.0, "public_tasks": 90, "public_size": 64}
    runs = pd.DataFrame(
        {"method": method, "world": world, "task": task, "draw": 0, "excess": excess, "excess_noiseless": excess}
        | {"moved": 0.1, "angle": angle, **where}
        for world in range(4)
        for task, wobble in enumerate(0.01 * rng.standard_normal(n_tasks))
        for angle in angles
        for method, excess in {
            "dp_sgd": 30.0,
            "hypernetwork": 10.0 + angle + shift[world] + wobble,
            "hypernetwork_learned": 12.0 + angle + shift[world] + wobble,
        }.items()
    )
    own = summary(runs).query("method == 'hypernetwork' and angle == 0").iloc[0]
    values = runs.query("method == 'hypernetwork' and angle == 0")
    worlds = values.groupby("world")["excess"].mean()
    low, high = stats.ttest_1samp(worlds, 0).confidence_interval(0.95)
    assert (own["mean"], own["low"], own["high"]) == pytest.approx((worlds.mean(), low, high))
    alone = stats.ttest_1samp(values["excess"], 0).confidence_interval(0.95)
    assert own["high"] - own["low"] > 2 * (alone.high - alone.low)

    points = pd.DataFrame({"axis": "angle", "angle": angle, **where} for angle in angles)
    mark = crossings(runs, points).query("method == 'hypernetwork'").iloc[0]
    found = 20.0 - shift
    half = stats.t.ppf(0.975, 3) * stats.sem(found)
    assert (mark["crossing"], mark["no_crossing"]) == (pytest.approx(20.0, abs=0.05), 0)
    assert (mark["low"], mark["high"]) == pytest.approx((20 - half, 20 + half), abs=0.05)
    never = runs.assign(excess=runs["excess"].where((runs["method"] == "dp_sgd") | (runs["world"] > 0), 29.0))
    mark = crossings(never, points).query("method == 'hypernetwork'").iloc[0]
    assert (mark["no_crossing"], math.isnan(mark["low"])) == (0.25, True)

    ratio = learned_against_analytic(runs).iloc[0]
    assert ratio["ratio"] == pytest.approx(stats.gmean((12 + shift) / (10 + shift)), abs=0.01)


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], pd.DataFrame]:
    monkeypatch.setattr(experiment, "WORLDS", 1)
    monkeypatch.setattr(experiment, "TASKS", 2)
    monkeypatch.setattr(experiment, "TUNING_TASKS", 2)
    point = experiment.Point(d=12, k=2, n=64, epsilon=4.0, angle=10.0, public_tasks=40, public_size=64)
    return lambda: experiment.run(point)


def test_a_point_is_reproducible_and_holds_every_run(small_runs: Callable[[], pd.DataFrame]) -> None:
    first, second = small_runs(), small_runs()
    pd.testing.assert_frame_equal(first, second)
    counts = first.groupby("method").size()
    assert counts["hypernetwork"] == 2 * experiment.DRAWS
    assert counts["public_mean"] == 2
    assert {"dp_sgd", "gep", "pdp_sgd", "pda_dpmd", "dope", "adassp", "least_squares"} <= {*counts.index}
    assert first["excess"].notna().all()
    unnoised = {"public_mean", "least_squares", "least_squares_subspace"}
    assert {*first["method"][first["moved"].isna()]} == unnoised, "every private method has its noiseless control"
