"""Altered copies of public tasks: one alteration a task, and nothing of a tuning or private family in them."""

import dataclasses

import numpy as np
import pytest
import torch

from dphyper.bench.appearance import _border, alter, draw_alterations
from dphyper.bench.public import COPIED, PublicTasks
from dphyper.bench.tasks import Collection, Task
from dphyper.core.errors import UserError
from dphyper.targets.diffusion import to_unit


def images(n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 16, 16, 1), np.uint8)


def collection() -> Collection:
    splits = ["public"] * 4 + ["tuning", "private"]
    tasks = tuple(
        Task(id=str(i), family=str(i), split=split, indices=np.arange(30) + 30 * i)  # type: ignore[arg-type]
        for i, split in enumerate(splits)
    )
    return Collection(name="toy", records=images(180), tasks=tasks)


def test_every_alteration_changes_images_and_keeps_their_shape() -> None:
    for seed in range(40):
        changed = alter(images(), np.random.default_rng(seed))
        assert changed.shape == images().shape
        assert changed.dtype == np.uint8
        assert (changed != images()).mean() > 0.1, seed


def test_all_images_of_a_task_are_altered_alike() -> None:
    """Without added noise, an image's alteration does not depend on its neighbours, but for the background."""
    framed = images()
    framed[:, [0, -1]] = framed[:, :, [0, -1]] = 9
    rngs = [seed for seed in range(40) if "_roughen" not in str(draw_alterations(np.random.default_rng(seed)))]
    assert len(rngs) > 20
    for seed in rngs:
        together = alter(framed, np.random.default_rng(seed))
        alone = [alter(image[None], np.random.default_rng(seed))[0] for image in framed]
        np.testing.assert_array_equal(together, alone)


def test_the_background_is_that_of_the_corners() -> None:
    x = to_unit(np.full((3, 8, 8, 1), 255, np.uint8))
    x[:, :, 2:6, 2:6] = -1
    assert _border(x).tolist() == [1.0]


def test_copies_are_dealt_in_their_share_and_only_in_training() -> None:
    data = PublicTasks(
        collection(), to_unit, seed=0, tasks=8, query=4, steps=100, support=16, validation_steps=2, appearances=5,
        altered=0.5,
    )  # fmt: skip
    plain = len(collection().select("public"))
    assert len(data.rows["public"]) == plain + 5
    assert max(len(rows) for rows in data.rows["public"][plain:]) <= COPIED
    dealt = np.concatenate([episode.task_T.numpy() for episode in data.train_dataloader()])
    assert (dealt >= plain).mean() == pytest.approx(0.5, abs=0.06)
    without = PublicTasks(collection(), to_unit, seed=0, tasks=8, query=4, steps=3, support=16)
    assert len(without.records) == len(data.records) - sum(len(rows) for rows in data.rows["public"][plain:])
    validated = [episode.query_TQ for (loader,) in [data.val_dataloader()] for episode in loader]
    assert max(int(rows.max()) for rows in validated) < len(without.records)


def test_records_that_are_no_images_have_no_appearance() -> None:
    numbers = dataclasses.replace(collection(), records=np.random.default_rng(0).normal(size=(180, 3)))
    with pytest.raises(UserError, match="holds no images"):
        PublicTasks(numbers, torch.from_numpy, seed=0, tasks=1, query=2, steps=1, appearances=1)
