"""Lightning training that goes on where it was killed, to the same end.

A checkpoint is written now and then: weights, optimiser, the number of the step and the states of the random
generators. A run that is started again from it ends with the same weights, bit for bit on one machine, as one that was
never interrupted. It trains on public data only, so that nothing in a checkpoint is private.
"""

import logging
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch

from dphyper.bench.public import PublicTasks
from dphyper.bench.tracking import Tracking
from dphyper.core.files import whole_file
from dphyper.core.finite import require_finite_weights

# Steps between two validations, and between two checkpoints. These lie midway: a run that goes on would not validate
# again at the step of its checkpoint, and what validation draws would be missing.
INTERVAL = 200
_CHECKPOINT = "last.ckpt"


def train(
    module: lightning.LightningModule,
    episodes: PublicTasks,
    *,
    steps: int,
    seed: int,
    name: str,
    device: torch.device,
    tracking: Tracking,
    unfinished: Path,
    extensible: bool = False,
) -> float:
    """Train a module in place.

    Args:
        module: Base model or method.
        episodes: Its data.
        steps: Optimiser steps.
        seed: Fixes everything random.
        name: For people.
        device: Where it is trained.
        tracking: The sink for progress.
        unfinished: Folder of checkpoints, which a later call goes on from.
        extensible: Leave a checkpoint of the end too, from which a call with more steps goes on.

    Returns:
        Seconds of training, those of interrupted calls included.

    Raises:
        FloatingPointError: A weight is not finite at the end.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Advice on loaders and loops that were chosen on purpose; errors are exceptions and still come through.
    warnings.filterwarnings("ignore", module="lightning")
    lightning.seed_everything(seed, verbose=False)
    progress = _Progress(episodes, unfinished / _CHECKPOINT, at_end=extensible)
    last = _readable(unfinished / _CHECKPOINT)
    print(f"training {name}: {steps} steps" + ", going on from a checkpoint" * bool(last), flush=True)
    with tracking.phase(name) as logger:
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            logger=logger,
            gradient_clip_val=1.0,
            callbacks=[progress],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            num_sanity_val_steps=0,
            val_check_interval=min(INTERVAL, steps),
            check_val_every_n_epoch=None,
            limit_val_batches=1.0 if episodes.validation_steps else 0,
            default_root_dir=unfinished,
        )
        trainer.fit(module, datamodule=episodes, ckpt_path=last)
    module.to(device)
    require_finite_weights(f"training of {name}", module)
    return progress.seconds


def steps_done(unfinished: Path) -> int:
    """Steps that the checkpoint in a folder has behind it; 0 if there is none that can be read."""
    checkpoint = _readable(unfinished / _CHECKPOINT)
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]) if checkpoint else 0


def copy_checkpoint(source: Path, target: Path) -> None:
    """Put the checkpoint of one folder into another, whole or not at all."""
    with whole_file(target / _CHECKPOINT) as temporary:
        shutil.copyfile(source / _CHECKPOINT, temporary)


class _Progress(lightning.Callback):
    """Writes checkpoints, and keeps in them what Lightning does not: random states, the place in the data, the time."""

    def __init__(self, episodes: PublicTasks, path: Path, *, at_end: bool) -> None:
        self._episodes, self._path, self._at_end = episodes, path, at_end
        self._states: dict[str, Any] = {}
        self._before, self._begin, self._step = 0.0, 0.0, 0

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begin

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._states:
            torch.set_rng_state(self._states["cpu"])
            # A checkpoint of another kind of machine goes on here too, though not to the same bits.
            if len(self._states["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self._states["cuda"])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *unused: object
    ) -> None:
        self._step = trainer.global_step
        due = self._step % INTERVAL == INTERVAL // 2 if self._step < trainer.max_steps else self._at_end
        if due:
            trainer.save_checkpoint(self._path)

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda, "seconds": self.seconds, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._states, self._before = state_dict, state_dict["seconds"]
        self._episodes.begin_at = state_dict["step"]


def _readable(checkpoint: Path) -> Path | None:
    """The checkpoint, if there is one that can be read."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes pickle raise
        print(f"checkpoint {checkpoint} cannot be read ({type(error).__name__}): training begins anew", flush=True)
        return None
    return checkpoint
