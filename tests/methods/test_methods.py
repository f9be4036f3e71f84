"""The contract suite: every registered method passes every check, and the number of checks is asserted.

The checks call methods as the harness does, on a tiny U-Net. A method that joins the registry is checked without
a line here. What keeps records private is checked by `dphyper.audits.contract`, which an outside method goes
through as well.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from scipy.stats import multivariate_normal
from torch import Tensor

from dphyper.audits import contract, guards
from dphyper.bench.catalog import DATASETS, METHODS
from dphyper.bench.method import Method
from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.specs import DataSpec, Protocol
from dphyper.methods.hypernetwork import Novelty, Shrinkage
from dphyper.metrics.evaluation import Evaluator
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies import edge, limits

# Where a record's draws of time and noise come with its place in the batch.
DEALT_BY_POSITION = {
    *("dp_sgd", "dp_sgd_tuned", "pda_dpmd", "adadps", "dope_sgd", "dpagg", "privimage", "dp_feta", "nonprivate_lora"),
    *("pdp_sgd", "gep", "b_gep", "rgp", "pazo", "pe_sgd", "subspace_dp_sgd", "subspace_one_shot", "nonprivate_full"),
}
target, method, images = contract.tiny_target, contract.tiny_method, contract.tiny_records
subject = cache(contract.Subject)


def adapt(name: str, records: Tensor, n: int = 0) -> Tensor:
    return contract.adapt(method(name, records.shape[1]), records, n=n or len(records))[0].theta


def check_result_is_a_parameter_vector(name: str) -> None:
    for records in (images(32), images(33, channels=3), images(300)):
        theta = adapt(name, records)
        assert theta.shape == (method(name, records.shape[1]).target.num_parameters,)
        assert theta.isfinite().all()
        assert not theta.requires_grad


def check_declares_itself(name: str) -> None:
    kind = METHODS[name]
    assert kind.role in ("method", "control", "floor", "ceiling")
    assert {"task", "seed"} <= kind.uses
    assert ("epsilon" in kind.uses) == (kind.role == "method")
    assert kind.__doc__
    assert "about" in vars(kind), "a method says itself what it is, its base class cannot"
    about = dataclasses.asdict(kind.about)
    about.pop("departures")
    assert all(text.endswith(".") for text in about.values()), "whole sentences"
    assert kind.selection in ("fixed", "tuned_public", "tuned_private", "non_private")


def check_same_inputs_give_the_same_result(name: str) -> None:
    assert torch.equal(adapt(name, images()), subject(name).run()[0])


def check_parameters_move(name: str) -> None:
    theta, ledger = subject(name).run()
    if ledger.charges:
        assert not torch.equal(theta, method(name).target.initial())


def check_order_of_records_is_irrelevant(name: str) -> None:
    """Without sampling, the same records in another order give the same parameters."""
    records = images()
    if name in DEALT_BY_POSITION:
        return  # their sums are checked record by record below
    torch.testing.assert_close(adapt(name, records.flip(0)), subject(name).run()[0], rtol=0, atol=0)


def check_save_and_load(name: str) -> None:
    saved, fresh = method(name).state_dict(), METHODS[name]
    made = fresh(target(), fresh.options_type.parse(name, fresh.quick_options), embedding_dim=4)
    made.load_state_dict(saved)
    assert all(torch.equal(value, saved[key]) for key, value in made.state_dict().items())


def check_empty_data_set(name: str) -> None:
    """No record at all, as an empty Poisson batch at every step: noise, no error."""
    assert adapt(name, images(24)[:0], n=24).isfinite().all()


CHECKS: list[Callable[[str], None]] = [value for key, value in sorted(globals().items()) if key.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_contract(name: str, check: Callable[[str], None]) -> None:
    check(name)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_privacy_contract(name: str, check: Callable[[contract.Subject], guards.Guard]) -> None:
    assert check(subject(name)) is None


def test_number_of_checks() -> None:
    assert len(CHECKS) * len(METHODS) >= 7 * 25, "the contract suite lost checks or methods"
    assert len(contract.CHECKS) * len(METHODS) >= 6 * 25, "the contract suite lost checks or methods"


def test_contract_catches_a_method_that_reads_for_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite can fail: a method without noise, or one that never asks the door, is caught."""
    from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkSigma0
    from dphyper.methods.public_only import PublicOnly

    monkeypatch.setattr(Hypernetwork, "mechanisms", HypernetworkSigma0.mechanisms)
    with pytest.raises(PrivacyError, match="above its budget"):
        contract.charged(contract.Subject("hypernetwork"))

    def peek(self: Method, private: PrivateData, budget: Budget, rng: torch.Generator) -> Tensor:
        records = private.release_mean.__self__._selected.__closure__[4].cell_contents  # type: ignore[attr-defined]
        return self.target.initial() + records.mean()

    monkeypatch.setattr(PublicOnly, "adapt", peek)
    found = contract.charged(contract.Subject("public_only"))
    assert found == "records change the result without a charge"


def test_contract_asks_every_method_for_its_own_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a base class says of itself does not count."""
    check_declares_itself("nonprivate_lora")
    monkeypatch.delattr(METHODS["nonprivate_lora"], "about")
    assert METHODS["nonprivate_lora"].about == METHODS["dp_sgd"].about
    with pytest.raises(AssertionError, match="says itself"):
        check_declares_itself("nonprivate_lora")


def test_encoder_is_record_wise() -> None:
    """The embedding of a record depends on no other record; a batch-normalising encoder would fail."""
    made: Any = method("hypernetwork")
    records = images(6)

    def embed(x: Tensor) -> Tensor:
        with torch.no_grad():
            return made.embed(x)

    assert guards.record_wise(embed, records) is None
    assert guards.record_wise(lambda x: embed(x) - embed(x).mean(0), records) is not None
    assert float(embed(100 * records).norm(dim=1).max()) <= 1 + 1e-6


def test_hypernetwork_at_infinite_noise_is_the_prior() -> None:
    made: Any = method("hypernetwork")
    far = torch.tensor([[5.0, -3.0, 2.0, 1.0]])
    infinite, n = torch.tensor([math.inf]), torch.tensor([24.0])
    prior = made.decode(torch.zeros_like(far), infinite, n)
    torch.testing.assert_close(made.decode(far, infinite, n), prior)
    assert not torch.allclose(made.decode(far, torch.tensor([0.1]), n), prior)


def meta_trained(logs: Path) -> tuple[Any, lightning.Trainer]:
    """A hypernetwork after four steps on the 8×8 digits, and its trainer."""
    torch.manual_seed(0)
    collection = DATASETS["digits8"].load(DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)))
    options = {"train_steps": 4, "tasks": 2, "support": 16, "query": 2, "width": 8, "nested": "2, 4"}
    kind = METHODS["hypernetwork"]
    made = kind(target(), kind.options_type.parse("hypernetwork", options), embedding_dim=4)
    trainer = lightning.Trainer(
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=CSVLogger(logs),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(made, datamodule=made.public_data(collection))
    return made, trainer


def test_meta_training_logs_its_progress_against_prior_and_optimum(tmp_path: Path) -> None:
    logged = meta_trained(tmp_path)[1].logged_metrics
    names = ("base", "optimum", "clean", "noise_0.03", "noise_0.1", "prior")
    losses = {name: float(logged[f"hypernetwork/tuning_{name}"]) for name in names}
    assert losses["optimum"] < 0.99 * losses["base"]  # four steps from zero teach the network next to nothing
    assert all(losses[name] == pytest.approx(losses["base"], rel=0.05) for name in names if name != "optimum")


def test_what_public_images_never_vary_in_moves_no_embedding(tmp_path: Path) -> None:
    made, trainer = meta_trained(tmp_path)
    public: Tensor = trainer.datamodule.images  # type: ignore[attr-defined]
    (empty,) = (public.flatten(1).std(0) == 0).nonzero(as_tuple=True)
    features = target().features(public[:50])
    greyer = features.index_add(1, empty, torch.full((50, len(empty)), 0.05))

    def moved() -> float:
        with torch.no_grad():
            return float((made.encoder(greyer) - made.encoder(features)).norm(dim=1).mean())

    size = float(made.encoder(features).norm(dim=1).mean())
    assert 0 < moved() < size / 2
    made.encoder.std_F[empty] = 1e-3
    assert moved() > 2 * size


@pytest.mark.parametrize("k", [2, 4, 3])
def test_one_network_serves_the_listed_dimensions(k: int) -> None:
    kind = METHODS["hypernetwork"]
    made = kind(target(), kind.options_type.parse("hypernetwork", {"nested": "4, 2"}), embedding_dim=k)
    assert made.public_dim == (3 if k == 3 else 4)  # the key of the public phase: 3 is not listed and has its own
    embedded = made.embed(100 * images(5))
    assert embedded.shape == (5, k)
    assert float(embedded.norm(dim=1).max()) <= 1 + 1e-6
    if k == 2:
        wide = kind(target(), kind.options_type.parse("hypernetwork", {"nested": "4, 2"}), embedding_dim=4)
        wide.load_state_dict(made.state_dict())
        first = wide.encoder(target().features(images(5)))[:, :2]
        torch.testing.assert_close(made.embed(images(5)), first / first.norm(dim=1, keepdim=True).clamp(min=1))
        assert not torch.allclose(made.embed(100 * images(5)), wide.embed(100 * images(5))[:, :2])


def test_limits_tell_a_mute_head_from_an_able_one() -> None:
    """A zero head says the same whatever it is given; with free parameters the same images teach something."""

    def losses(made: Any) -> dict[str, float]:
        given, unseen = limits.cut(images(60) * 0.2)
        return {name: limits.judged(made, theta, unseen) for name, theta in limits.answers(made, given, n=16).items()}

    mute: Any = method("hypernetwork").requires_grad_(False)
    mute.head.weight.zero_()
    mute.head.bias.fill_(0.01)
    found = losses(mute)
    assert found["best_hidden"] == found["best_embedding"] == found["hypernetwork"] == found["prior"]
    assert found["best_parameters"] < 0.99 * found["hypernetwork"]
    able: Any = method("hypernetwork").requires_grad_(False)
    able.head.weight.mul_(0.1)
    found = losses(able)
    assert found["best_hidden"] < 0.99 * found["hypernetwork"]


def test_limits_judge_samples_of_the_same_noise(tmp_path: Path) -> None:
    made: Any = method("hypernetwork")
    evaluator = Evaluator(Protocol(num_images=12), weights=tmp_path, device=torch.device("cpu"))
    given, public = images(12), made.target.initial()
    own = limits.drawn(made, public, given, evaluator)
    assert limits.drawn(made, public, given, evaluator) == own
    assert limits.drawn(made, public + 0.5, given, evaluator) != pytest.approx(own, rel=1e-3)


def test_edge_measures_distance_and_losses_under_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BUDGET", Budget(epsilon=20.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE))
    made, records = method("hypernetwork").requires_grad_(False), images(60) * 0.2
    found = {name: edge.measured(made, apply(records), n=16) for name, apply in edge.changes().items()}
    assert len(found) == 17
    assert len({row["embedding_shift"] for row in found.values()}) == 17  # each is another task
    assert all(row["hypernetwork"] != row["prior"] for row in found.values())  # and none is given up
    assert all(row["noisy_hypernetwork"] != row["hypernetwork"] for row in found.values())
    assert all(
        row["noisy_with_retreat"] == pytest.approx(row["noisy_hypernetwork"], rel=1e-5) for row in found.values()
    )
    assert all(row["novel"] == 0 for row in found.values())
    made.novelty.unit.fill_(1e-6)
    timid = edge.measured(made, records, n=16)
    assert timid["noisy_with_retreat"] == timid["prior"] != timid["noisy_hypernetwork"]
    assert timid | {"novel": 0.0, "noisy_with_retreat": 0.0} == found["none"] | {"noisy_with_retreat": 0.0}
    assert timid["novel"] == 1
    assert made.novelty.limit == 4  # the network keeps it
    made.head.weight.zero_()
    mute = edge.measured(made, records, n=16)
    assert mute["hypernetwork"] == mute["prior"]


def test_edge_measures_the_network_of_a_sweep_file_and_goes_on_where_it_stopped(
    sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file names the control without noise first, whose releases no budget allows."""
    monkeypatch.setattr(edge, "JUDGED", 20)
    few = dict(list(edge.changes().items())[:2])
    monkeypatch.setattr(edge, "changes", lambda: few)
    path = str(sweep_file(grid=[{"method": ["hypernetwork_sigma0", "hypernetwork"], "epsilon": [1]}]))
    out = tmp_path / "edge.csv"
    edge.main(path, out)
    whole = pd.read_csv(out, dtype={"task": str})
    tasks = [*limits.looked_at(path).images]
    assert [*zip(whole["task"], whole["change"], strict=True)] == [(task, change) for task in tasks for change in few]
    assert np.isfinite(whole["noisy_hypernetwork"]).all()

    # A run that was stopped, whose table also has a row of a network that is no more.
    former = whole.tail(1).assign(network="another")
    pd.concat([former, whole.head(1)]).to_csv(out, index=False)
    measured, calls = edge.measured, []
    monkeypatch.setattr(edge, "measured", lambda *given: calls.append(1) or measured(*given))
    edge.main(path, out)
    assert len(calls) == len(whole) - 1
    pd.testing.assert_frame_equal(pd.read_csv(out, dtype={"task": str}), whole)

    with pytest.raises(UserError, match="has no cell of hypernetwork: expected one"):
        limits.looked_at(str(sweep_file(grid=[{"method": ["public_only"]}])))


def test_an_embedding_far_from_all_public_tasks_gives_the_prior() -> None:
    rng = np.random.default_rng(0)
    cov = np.diag([4.0, 1.0, 0.25])
    tasks = torch.from_numpy(rng.multivariate_normal(np.ones(3), cov, 4000)).float()
    shrinkage = Shrinkage(3, doubt=0.01)
    shrinkage.mean_K.copy_(torch.ones(3))
    shrinkage.cov_KK.copy_(torch.from_numpy(cov))
    shrinkage.within.fill_(0.0)
    clean, many = torch.zeros(4000), torch.full((4000,), 100.0)
    distance = shrinkage.distance(tasks, clean, many)
    mahalanobis = np.sqrt(((tasks.numpy() - 1) ** 2 / np.diag(cov)).mean(1))
    np.testing.assert_allclose(distance.numpy(), mahalanobis, rtol=1e-4)
    assert float(distance.square().mean()) == pytest.approx(1.0, abs=0.05)
    assert float((distance > shrinkage.reach).float().mean()) == pytest.approx(0.01, abs=0.005)
    free = Shrinkage(3)
    free.load_state_dict(shrinkage.state_dict())
    (shrunk, resolved), (taken, all_resolved) = shrinkage(tasks, clean, many), free(tasks, clean, many)
    density = multivariate_normal(np.ones(3), cov).pdf(tasks.numpy())
    edge = multivariate_normal(np.ones(3), cov).pdf(np.ones(3) + np.sqrt(np.diag(cov)) * shrinkage.reach)
    belief = torch.from_numpy(density / (density + edge)).float()
    torch.testing.assert_close(resolved, belief * all_resolved, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(shrunk, belief[:, None] * taken, rtol=1e-3, atol=1e-6)
    gone = torch.tensor([[1.0, 1.0, 1.0 + 1e3]])
    assert not any(part.any() for part in shrinkage(gone, clean[:1], many[:1]))
    assert float(free(gone, clean[:1], many[:1])[0].norm()) > 100  # without a reach the decoder meets what it never met


def test_novelty_is_what_lies_outside_of_the_public_plane() -> None:
    """Against the singular value decomposition of numpy, on records near a plane of two dimensions."""
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spread = np.array([5.0, 3.0, 0.1, 0.1, 0.1, 0.1])
    public, same = (torch.from_numpy((rng.normal(size=(500, 6)) * spread) @ plane.T).float() for _ in range(2))
    novelty = Novelty(6, limit=4.0, components=2)
    assert not novelty(100 * public).any()  # before it has seen any
    novelty.fit(public)
    axes = np.linalg.svd(public.numpy())[2][:2]
    outside = public.numpy() - public.numpy() @ axes.T @ axes
    assert float(novelty.unit) == pytest.approx(np.sqrt((outside**2).sum(1).mean()), rel=1e-3)
    assert not novelty(same).any()
    assert not novelty(same + 30 * axes[0]).any()  # far, but within the plane
    moved = same.clone()
    moved[::2] += torch.from_numpy(2 * plane[:, 2]).float()
    assert torch.equal(novelty(moved), torch.tensor([1.0, 0.0] * 250))
    assert torch.equal(torch.cat([novelty(row[None]) for row in moved]), novelty(moved))


@pytest.mark.parametrize(("novel", "known"), [(0, True), (6, True), (14, False), (20, False)])
def test_where_most_records_are_novel_the_output_is_the_prior(novel: int, known: bool) -> None:
    made: Any = method("hypernetwork").requires_grad_(False)
    records = 0.2 * images(20)
    made.novelty.unit.copy_(made.encoder.standardised(made.target.features(records)).norm(dim=1).max())
    records[:novel] *= 100
    added = made.contribution(records)
    assert torch.equal(added[:, -1] > 0, torch.arange(20) < novel)
    assert float(added.norm(dim=1).max()) <= 1 + 1e-6
    torch.testing.assert_close(added[novel:, :-1], made.embed(records)[novel:])
    prior = made.decode(torch.zeros(1, made.embedding_dim), torch.full((1,), torch.inf), torch.ones(1))[0]
    for budget in (contract.NO_BUDGET, Budget(epsilon=20.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)):
        private = PrivateData(records, n=20, ledger=Ledger(budget), noise=NoiseSource.reproducible(0))
        theta = made.adapt(private, budget, torch.Generator().manual_seed(0)).theta
        assert torch.equal(theta, prior) != known


def test_what_is_not_believed_is_decoded_as_nothing_at_all() -> None:
    network: Any = method("hypernetwork")
    shape, zero, n = network.shrinkage["4"].mean_K.shape, torch.zeros(1), torch.full((1,), 100.0)
    far = torch.full(shape, 1e3)[None]
    prior = network.decode(far, torch.full((1,), math.inf), n)
    assert torch.equal(network.decode(far, zero, n), prior)
    assert not torch.equal(network.decode(network.shrinkage["4"].mean_K[None], zero, n), prior)


def test_shrinkage_is_the_posterior_mean() -> None:
    """Against the textbook formula S (S + Σ)⁻¹ (z - m), whitened by S^(-1/2), in numpy."""

    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    cov, mean, z = root @ root.T, rng.normal(size=4), rng.normal(size=4)
    shrinkage = Shrinkage(4)
    shrinkage.mean_K.copy_(torch.from_numpy(mean))
    shrinkage.cov_KK.copy_(torch.from_numpy(cov))
    shrinkage.within.fill_(0.5)
    noise = 0.3**2 + 0.5 / 20
    values, vectors = np.linalg.eigh(cov)
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = whitening @ cov @ np.linalg.solve(cov + noise * np.eye(4), z - mean)
    got, resolved = shrinkage(torch.from_numpy(z).float()[None], torch.tensor([0.3]), torch.tensor([20.0]))
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-4)
    assert float(resolved) == pytest.approx(values.mean() / (values.mean() + noise), rel=1e-4)


def test_opacus_gradients_equal_those_of_expanded_parameters() -> None:
    """Two independent ways to per-example gradients: opacus' hooks, and one copy of θ for each example."""
    model, x = target(), images(6)
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(2))
    by_hooks = model.per_example_gradients(theta, x, torch.Generator().manual_seed(3), 1)
    copies = theta.expand(6, -1).clone().requires_grad_()
    loss = model.per_example_loss(copies, x, torch.Generator().manual_seed(3)).sum()
    (by_copies,) = torch.autograd.grad(loss, copies)
    torch.testing.assert_close(by_hooks, by_copies, rtol=1e-3, atol=1e-7)


def test_noise_multiplicity_averages_before_clipping() -> None:
    """K draws of one image give one gradient row, the mean over the draws."""
    model, x = target(), images(3)
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(2))
    rows = model.per_example_gradients(theta, x, torch.Generator().manual_seed(3), 4)
    copies = theta.expand(12, -1).clone().requires_grad_()
    loss = model.per_example_loss(copies, x.repeat_interleave(4, 0), torch.Generator().manual_seed(3)).sum()
    (each,) = torch.autograd.grad(loss, copies)
    torch.testing.assert_close(rows, each.view(3, 4, -1).mean(1), rtol=1e-3, atol=1e-7)


def test_dp_sgd_without_noise_and_clipping_is_adam_on_the_mean_loss() -> None:
    options = {"steps": 4, "sampling_prob": 1.0, "multiplicity": 1, "average_last": 0.0, "learning_rate": 0.01}
    kind = METHODS["nonprivate_lora"]
    private = PrivateData(images(), n=24, ledger=Ledger(contract.NO_BUDGET), noise=NoiseSource.reproducible(0))
    made = kind(target(), kind.options_type.parse("nonprivate_lora", options), embedding_dim=0)
    theta = made.adapt(private, contract.NO_BUDGET, torch.Generator().manual_seed(5)).theta

    plain = target().initial().requires_grad_()
    optimizer = torch.optim.Adam([plain], lr=0.01)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=4)
    noise = NoiseSource.reproducible(0)
    for _ in range(4):
        noise.uniform(24)  # who takes part
        rng = noise.generator()
        optimizer.zero_grad()
        target().per_example_loss(plain, images(), rng).mean().backward()
        optimizer.step()
        decay.step()
    torch.testing.assert_close(theta, plain.detach(), rtol=1e-3, atol=1e-4)
