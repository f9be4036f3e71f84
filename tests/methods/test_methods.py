"""Tests that await their own room: the studies of limits and edge, and the targets that methods adapt.

They lie here until `dphyper.studies` and `dphyper.targets` have test files of their own.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dphyper.audits import contract
from dphyper.core.errors import UserError
from dphyper.core.specs import Protocol
from dphyper.metrics.evaluation import Evaluator
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies import edge, limits
from dphyper.targets.all_weights import AllWeights
from dphyper.targets.diffusion import corrupt, new_unet

target, method, images = contract.tiny_target, contract.tiny_method, contract.tiny_records


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


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_few_step_samples_are_those_of_a_deterministic_sampler(greys: Any) -> None:
    """Against diffusers' DDIM at the same times; and they have a gradient in θ."""
    from diffusers import DDIMScheduler

    theta = 0.1 * torch.randn(greys.target.num_parameters, generator=seeded(1))
    theta.requires_grad_()
    images = greys.target.few_step_samples(theta, 3, 3, seeded(2))
    (gradient,) = torch.autograd.grad(images.sum(), theta)
    assert gradient.isfinite().all()
    assert float(gradient.abs().max()) > 0

    solver = DDIMScheduler.from_config(greys.target.scheduler.config, clip_sample=True)
    solver.set_timesteps(3)
    x = torch.randn((3, *greys.target.image_shape), generator=seeded(2))
    solver.timesteps = torch.tensor([999, 666, 333])
    alpha = greys.target.scheduler.alphas_cumprod
    with torch.no_grad():
        for t, after in ((999, 666), (666, 333), (333, None)):
            with greys.target._bound(theta.detach()):
                v = greys.target.unet(x, t, return_dict=False)[0]
            step = solver.step(v, t, x)
            clean = step.pred_original_sample
            if after is not None:
                noise = (x - alpha[t].sqrt() * clean) / (1 - alpha[t]).sqrt()
                x = alpha[after].sqrt() * clean + (1 - alpha[after]).sqrt() * noise
    torch.testing.assert_close(images.detach(), clean, rtol=1e-3, atol=1e-3)


def moved(theta: Tensor) -> torch.nn.Module:
    """A copy of the U-Net, written over in place."""
    unet = copy.deepcopy(target().unet)
    start = 0
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "lora_" not in name:
                weight.add_(theta[start : start + weight.numel()].view_as(weight))
                start += weight.numel()
    assert start == len(theta)
    return unet


def test_full_target_has_all_weights_and_leaves_no_trace() -> None:
    lora, full = target(), AllWeights(target())
    plain = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    assert full.num_parameters == sum(weight.numel() for weight in plain.parameters())
    theta = 0.02 * torch.randn(full.num_parameters, generator=torch.Generator().manual_seed(0))
    before = lora.sample(lora.initial(), 4, torch.Generator().manual_seed(1))
    changed = full.sample(theta, 4, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(full.sample(full.initial(), 4, torch.Generator().manual_seed(1)), before)
    np.testing.assert_array_equal(lora.sample(lora.initial(), 4, torch.Generator().manual_seed(1)), before)
    assert (changed != before).mean() > 0.1
    varied = full.vary(theta, images(), 0.5, torch.Generator().manual_seed(1))
    assert not torch.allclose(varied, lora.vary(lora.initial(), images(), 0.5, torch.Generator().manual_seed(1)))


def test_full_loss_is_that_of_a_moved_network() -> None:
    full, x = AllWeights(target()), images()
    theta = 0.02 * torch.randn(full.num_parameters, generator=torch.Generator().manual_seed(0))
    noisy, t, wanted = corrupt(target().scheduler, x, torch.Generator().manual_seed(2), stratified=False)
    with torch.no_grad():
        reference = (moved(theta)(noisy, t, return_dict=False)[0] - wanted).square().flatten(1).mean(1)
        found = full.per_example_loss(theta, x, torch.Generator().manual_seed(2))
        torch.testing.assert_close(found, reference)
        assert not torch.allclose(full.per_example_loss(full.initial(), x, torch.Generator().manual_seed(2)), reference)
    with pytest.raises(UserError, match="one for all examples"):
        full.per_example_loss(theta.expand(6, -1), x, None)
