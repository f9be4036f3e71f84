"""The hypernetwork falls back to its prior where it must, and its training logs what it is measured against."""

import copy
import math
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from dphyper.audits import contract
from dphyper.bench.catalog import DATASETS, METHODS
from dphyper.core.specs import DataSpec
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, lightning.Trainer]:
    """A hypernetwork after four steps on the 8×8 digits, and its trainer."""
    torch.manual_seed(0)
    collection = DATASETS["digits8"].load(DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)))
    options = {"train_steps": 4, "tasks": 2, "support": 16, "query": 2, "width": 8, "nested": "2, 4"}
    kind = METHODS["hypernetwork"]
    made = kind(contract.tiny_target(), kind.options_type.parse("hypernetwork", options), embedding_dim=4)
    trainer = lightning.Trainer(
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=CSVLogger(tmp_path_factory.mktemp("logs")),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(made, datamodule=made.public_data(collection))
    return made, trainer


def test_hypernetwork_at_infinite_noise_is_the_prior() -> None:
    made: Any = contract.tiny_method("hypernetwork")
    far = torch.tensor([[5.0, -3.0, 2.0, 1.0]])
    infinite, n = torch.tensor([math.inf]), torch.tensor([24.0])
    prior = made.decode(torch.zeros_like(far), infinite, n)
    torch.testing.assert_close(made.decode(far, infinite, n), prior)
    assert not torch.allclose(made.decode(far, torch.tensor([0.1]), n), prior)


def test_meta_training_logs_its_progress_against_prior_and_optimum(trained: tuple[Any, lightning.Trainer]) -> None:
    logged = trained[1].logged_metrics
    names = ("base", "optimum", "clean", "noise_0.03", "noise_0.1", "prior")
    losses = {name: float(logged[f"hypernetwork/tuning_{name}"]) for name in names}
    assert losses["optimum"] < 0.99 * losses["base"]  # four steps from zero teach the network next to nothing
    assert all(losses[name] == pytest.approx(losses["base"], rel=0.05) for name in names if name != "optimum")


def test_what_public_images_never_vary_in_moves_no_embedding(trained: tuple[Any, lightning.Trainer]) -> None:
    made, trainer = trained
    encoder = copy.deepcopy(made.encoder).requires_grad_(False)
    public: Tensor = trainer.datamodule.records  # type: ignore[attr-defined]
    (empty,) = (public.flatten(1).std(0) == 0).nonzero(as_tuple=True)
    features = contract.tiny_target().features(public[:50])
    greyer = features.index_add(1, empty, torch.full((50, len(empty)), 0.05))

    def moved() -> float:
        return float((encoder(greyer) - encoder(features)).norm(dim=1).mean())

    size = float(encoder(features).norm(dim=1).mean())
    assert 0 < moved() < size / 2
    encoder.std_F[empty] = 1e-3
    assert moved() > 2 * size


@pytest.mark.parametrize("k", [2, 4, 3])
def test_one_network_serves_the_listed_dimensions(k: int) -> None:
    kind = METHODS["hypernetwork"]
    made = kind(contract.tiny_target(), kind.options_type.parse("hypernetwork", {"nested": "4, 2"}), embedding_dim=k)
    assert made.public_dim == (3 if k == 3 else 4)  # the key of the public phase: 3 is not listed and has its own
    embedded = made.embed(100 * contract.tiny_records(5))
    assert embedded.shape == (5, k)
    assert float(embedded.norm(dim=1).max()) <= 1 + 1e-6
    if k == 2:
        wide = kind(
            contract.tiny_target(), kind.options_type.parse("hypernetwork", {"nested": "4, 2"}), embedding_dim=4
        )
        wide.load_state_dict(made.state_dict())
        first = wide.encoder(contract.tiny_target().features(contract.tiny_records(5)))[:, :2]
        torch.testing.assert_close(
            made.embed(contract.tiny_records(5)), first / first.norm(dim=1, keepdim=True).clamp(min=1)
        )
        assert not torch.allclose(
            made.embed(100 * contract.tiny_records(5)), wide.embed(100 * contract.tiny_records(5))[:, :2]
        )


@pytest.mark.parametrize(("novel", "known"), [(0, True), (6, True), (14, False), (20, False)])
def test_where_most_records_are_novel_the_output_is_the_prior(novel: int, known: bool) -> None:
    made: Any = contract.tiny_method("hypernetwork").requires_grad_(False)
    records = 0.2 * contract.tiny_records(20)
    made.novelty.unit.copy_(made.encoder.standardise(made.target.features(records)).norm(dim=1).max())
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
    network: Any = contract.tiny_method("hypernetwork")
    shape, zero, n = network.shrinkage["4"].mean_K.shape, torch.zeros(1), torch.full((1,), 100.0)
    far = torch.full(shape, 1e3)[None]
    prior = network.decode(far, torch.full((1,), math.inf), n)
    assert torch.equal(network.decode(far, zero, n), prior)
    assert not torch.equal(network.decode(network.shrinkage["4"].mean_K[None], zero, n), prior)
