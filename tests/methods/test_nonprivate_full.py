"""All weights without privacy: plain gradient descent on a copy of the network."""

import copy
from typing import Any

import torch
from torch import Tensor

from dphyper.audits import contract
from dphyper.methods.nonprivate_full import NonprivateFull, NonprivateFullOptions
from dphyper.privacy.noise import NoiseSource
from dphyper.targets.diffusion import corrupt


def images(n: int = 6) -> Tensor:
    return torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_nonprivate_full_is_plain_descent_on_all_weights(door: Any) -> None:
    x, steps = images(), 3
    options = NonprivateFullOptions(
        steps=steps, sampling_prob=1.0, average_last=0.0, learning_rate=0.05, optimizer="sgd", multiplicity=2
    )
    method = NonprivateFull(contract.tiny_target(), options, embedding_dim=0)
    theta = method.adapt(door(x), contract.NO_BUDGET, torch.Generator().manual_seed(5)).theta

    unet = copy.deepcopy(contract.tiny_target().unet)
    weights = [weight.requires_grad_("lora_" not in name) for name, weight in unet.named_parameters()]
    weights = [weight for weight in weights if weight.requires_grad]
    first = torch.cat([weight.detach().flatten() for weight in weights])
    optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    noise = NoiseSource.reproducible(0)
    for _ in range(steps):
        noise.uniform(len(x))  # who takes part
        rng = noise.generator()
        optimizer.zero_grad()
        for record in x:
            pair = record.expand(2, *record.shape)
            noisy, t, wanted = corrupt(contract.tiny_target().scheduler, pair, rng, stratified=False)
            ((unet(noisy, t, return_dict=False)[0] - wanted).square().mean() / len(x)).backward()
        optimizer.step()
        decay.step()
    reference = torch.cat([weight.detach().flatten() for weight in weights]) - first
    torch.testing.assert_close(theta, reference, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(theta, 0.9 * reference, rtol=1e-3, atol=1e-6)
    assert float(reference.abs().max()) > 1e-3
