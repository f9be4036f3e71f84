"""The hypernetwork of the linear setting in two forms: analytic, and learned by the code that serves images.

Both embed each record by itself, clip, release the mean once and decode it. The analytic form uses statistics of the
public tasks; the learned form is trained on the very records that these come from. Privacy noise is seeded, as in
`dphyper.studies.theory.releases`.

Shapes: B data sets, n records of each, d features, k embedding dimension, R draws of the noise, T public tasks of m
records each, Q query rows, S support rows.
"""

import logging
import warnings
from collections.abc import Iterator

import lightning
import torch
from torch import Tensor

from dphyper.bench.public import Episode
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkOptions
from dphyper.privacy.budget import Budget
from dphyper.studies.theory.knowledge import PublicKnowledge
from dphyper.studies.theory.regression import LinearRegression
from dphyper.studies.theory.releases import calibrate_mean, release_means

LEAST_SUPPORT = 16  # records of the smallest support set, as in `dphyper.bench.public`


def adapt_analytic(
    x_Bnd: Tensor, y_Bn: Tensor, public: PublicKnowledge, budget: Budget, *, draws: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """The analytic form: embed y Ûᵀx, clip, release the mean once, decode linearly.

    Two decoders read the same release, so the second is free. ``hypernetwork`` divides by γ; its risk is privacy +
    sampling + subspace error. ``hypernetwork_shrunk`` multiplies by γ/k over γ²/k + τ² + v/n, the gain of the best
    linear decoder for public tasks at that noise level. It goes to 0 as the noise grows.

    Returns:
        (B, R + 1, d) weights, the noiseless one last.
    """
    embedding_Bnk = y_Bn[..., None] * (x_Bnd @ public.basis_dk)
    k = embedding_Bnk.shape[2]
    mechanism = calibrate_mean(budget, public.embedding_clip())
    z_BRk, std_BR, count_BR = release_means(embedding_Bnk, mechanism, budget, draws=draws, rng=rng)
    scale, signal = public.embedding_scale, 1 / k
    noise_BR = std_BR.square() + public.embedding_variance / (k * count_BR)
    gain_BR = scale * signal / (scale**2 * signal + noise_BR)
    return {
        "hypernetwork": z_BRk / scale @ public.basis_dk.T,
        "hypernetwork_shrunk": z_BRk * gain_BR[..., None] @ public.basis_dk.T,
    }


class LinearTasks(lightning.LightningDataModule):
    """Episodes of linear public tasks, with what `Hypernetwork` reads of its data: batches and ``records``.

    As in `dphyper.bench.public`, a task's support holds between 16 and S of its records, log-uniformly, and its
    query set holds none of these. Tasks are never joined: the union of two linear tasks is no linear task. Rotations
    vary them instead: a task whose features are all turned by one rotation is a task again, because features are
    isotropic. They play the part that flips play for images, and reveal no more than the same public records.

    Args:
        records_Tmk1: (T, m, k + 1) records of the public tasks in the coordinates of Û.
        options: Sizes of the episodes and their number.
        seed: Fixes the rotations and the episodes.
        rotations: Turned copies of each task, at least 1.

    Attributes:
        records: (rotations · T · m, k + 1).
    """

    def __init__(self, records_Tmk1: Tensor, options: HypernetworkOptions, seed: int, rotations: int) -> None:
        super().__init__()
        num, self._size, width = records_Tmk1.shape
        self._num_tasks = num * rotations
        self._options, self._rng = options, torch.Generator().manual_seed(seed)
        turned = []
        for _ in range(rotations):
            turn_Tkk = torch.linalg.qr(torch.randn(num, width - 1, width - 1, generator=self._rng)).Q
            turned.append(torch.cat([records_Tmk1[..., :-1] @ turn_Tkk, records_Tmk1[..., -1:]], dim=2))
        self.records = torch.cat(turned).flatten(0, 1)

    def train_dataloader(self) -> Iterator[Episode]:
        """The episodes, one after the other, once."""
        options, rng = self._options, self._rng
        support = min(options.support, self._size - options.query)
        for _ in range(options.train_steps):
            chosen_T1 = torch.randint(self._num_tasks, (options.tasks, 1), generator=rng)
            order_Tm = torch.rand(options.tasks, self._size, generator=rng).argsort(dim=1) + chosen_T1 * self._size
            count_T1 = LEAST_SUPPORT * (support / LEAST_SUPPORT) ** torch.rand(options.tasks, 1, generator=rng)
            used_TS = torch.arange(support) < count_T1
            yield Episode(
                support_TS=order_Tm[:, :support],
                weight_TS=used_TS / used_TS.sum(1, keepdim=True),
                query_TQ=order_Tm[:, -options.query :],
                task_T=chosen_T1[:, 0],
            )


def project(records_Bnd1: Tensor, basis_dk: Tensor) -> Tensor:
    """(B, n, k + 1) records in the coordinates of Û."""
    return torch.cat([records_Bnd1[..., :-1] @ basis_dk, records_Bnd1[..., -1:]], dim=2)


def meta_train(
    records_Tmd1: Tensor, public: PublicKnowledge, options: HypernetworkOptions, seed: int, *, rotations: int = 32
) -> Hypernetwork:
    """Train the hypernetwork that serves images on public linear tasks, its code and training step unchanged.

    Its target is the regression inside Û, as its target for images is the LoRA of a model pre-trained on public
    images. A record's features are y Ûᵀx, and the network emits the k coordinates of w in Û. It must learn the
    embedding, the clipping and a decoder that knows the noise level.

    Args:
        records_Tmd1: (T, m, d + 1) records of the public tasks.
        public: Gives Û.
        options: Of `Hypernetwork`.
        seed: Of the initialisation, the rotations and the training noise.
        rotations: Turned copies of each task. With few of them the decoder learns the T public tasks by heart.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's remarks on loader workers and on the absent logger
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        lightning.seed_everything(seed, verbose=False)
        k = public.basis_dk.shape[1]
        network = Hypernetwork(LinearRegression(k), options, embedding_dim=k)
        trainer = lightning.Trainer(
            max_steps=options.train_steps,
            accelerator="cpu",
            devices=1,
            logger=False,
            gradient_clip_val=1.0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        trainer.fit(network, datamodule=LinearTasks(project(records_Tmd1, public.basis_dk), options, seed, rotations))
    return network.eval()


@torch.no_grad()
def adapt_learned(
    network: Hypernetwork,
    records_Bnd1: Tensor,
    public: PublicKnowledge,
    budget: Budget,
    *,
    draws: int,
    rng: torch.Generator,
) -> Tensor:
    """`Hypernetwork.adapt` for B data sets and several draws of the noise, without its mark of novel records.

    Returns:
        (B, R + 1, d) weights, the noiseless one last.
    """
    batch, n = records_Bnd1.shape[:2]
    rows_Nk1 = project(records_Bnd1, public.basis_dk).flatten(0, 1)
    embedding_Bnk = network.embed(rows_Nk1).unflatten(0, (batch, n))
    (mechanism,) = network.mechanisms(budget, network._options)
    z_BRk, std_BR, count_BR = release_means(embedding_Bnk, mechanism, budget, draws=draws, rng=rng)
    theta_Nk = network.decode(z_BRk.flatten(0, 1), std_BR.flatten(), count_BR.flatten())
    weights_BRd: Tensor = theta_Nk.unflatten(0, (batch, draws + 1)) @ public.basis_dk.T
    return weights_BRd
