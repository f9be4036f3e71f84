"""From a cell to a row: public work once, private work through one door, evaluation the same for every method.

Everything that touches only public data (base model, public phases, features of references) is computed once,
stored under a hash of all that it depends on, and shared by cells and worker processes; ε and private records
enter no such hash. The parameters of a cell are written together with its ledger before anything is evaluated,
so a run that was killed during evaluation goes on from the same release instead of drawing it again. A failed
cell becomes a row with its error, and what it had released stays charged; only a user's mistake in the spec stops a
sweep.
"""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from dphyper.bench import pretraining
from dphyper.bench.catalog import DATASETS, METHODS, canonical
from dphyper.bench.method import Method
from dphyper.bench.public import PublicRecords, PublicTasks
from dphyper.bench.searches import RecordedSearch, selection_of
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.bench.tasks import Collection, Draw
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.files import whole_file, write_json
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol, content_hash
from dphyper.metrics.evaluation import Evaluator
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.statement import privacy_statement
from dphyper.targets import unet as target
from dphyper.targets.diffusion import to_unit
from dphyper.targets.lora import LoRADiffusion


class Runner:
    """Runs cells into a store.

    Args:
        store: Where rows go.
        performance: Device, threads, cache.
        tracking: The sink for progress.
        sweep: Name written into the rows.
        searches: Recorded searches that options other than the defaults may come from.
    """

    def __init__(
        self,
        store: Store,
        performance: Performance,
        tracking: Tracking,
        sweep: str,
        searches: Sequence[RecordedSearch] = (),
    ) -> None:
        self.store, self.performance, self.tracking, self.sweep = store, performance, tracking, sweep
        self.searches = searches
        self.cache = Path(performance.cache)
        chosen = performance.device
        if chosen == "auto":
            chosen = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(chosen)
        if performance.threads:
            torch.set_num_threads(performance.threads)
        self.evaluator = functools.cache(self._evaluator)
        self.collection = functools.cache(self._collection)
        self._base = functools.cache(self._load_base)
        self._public = functools.cache(lambda data: PublicRecords.of(self.collection(data), self.device))

    def _evaluator(self, protocol: Protocol) -> Evaluator:
        return Evaluator(protocol, weights=self.performance.weights, device=self.device)

    def _collection(self, spec: DataSpec) -> Collection:
        collection: Collection = DATASETS[spec.scheme].load(spec)
        return collection

    def check(self, cells: Iterable[Cell]) -> None:
        """Find the user's mistakes before anything is computed.

        Raises:
            UserError: Unknown task, n too large for it, a missing weight file, a base model that does not fit, an
                embedding dimension above the number of features, a store with rows of another protocol.
        """
        cells = list(cells)
        self.check_data(cells)
        protocols = {self.evaluator(cell.protocol).protocol_hash for cell in cells}
        for cell in _distinct_public_work(cells):
            self.untrained_method(cell, *self._shape_of_base(cell))
        stored = {json.loads(p.read_text())["protocol"] for p in self.store.root.glob("cells/*/row.json")}
        if len(protocols | stored) > 1:
            raise UserError(
                f"store '{self.store.root}' would mix evaluation protocols {', '.join(sorted(protocols | stored))}: "
                "rows of different protocols cannot be compared, name another store"
            )

    def check_data(self, cells: Iterable[Cell]) -> None:
        """Find mistakes about tasks, and print what each collection has left out; nothing is written to the store.

        Raises:
            UserError: A task that is unknown or public, n too large for it, or data that cannot be read.
        """
        cells = list(cells)
        for data in dict.fromkeys(cell.data for cell in cells):
            for line in self.collection(data).passed_over:
                print(f"data: {line}", flush=True)
        for cell in cells:
            self.collection(cell.data).draw(cell.task, cell.n, cell.seed)

    def prepare(self, cells: Iterable[Cell]) -> None:
        """Train every base model and public phase that the cells need and the cache lacks."""
        for cell in _distinct_public_work(cells):
            self.method(cell)

    def _base_key(self, cell: Cell) -> str:
        spec = cell.base
        if spec.pretrained:
            files = sorted(Path(spec.pretrained).rglob("*"))
            return content_hash([(str(f.name), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()])
        training = dataclasses.replace(spec, rank=1, convolutions=False, sampling_steps=1)
        parts = (target.new_unet, target.new_scheduler, target.corrupt, pretraining)
        sources = [inspect.getsource(part) for part in parts]
        return content_hash([self.collection(cell.data).public_fingerprint, dataclasses.asdict(training), sources])

    def _shape_of_base(self, cell: Cell) -> tuple[UNet2DModel, DDPMScheduler]:
        shape = {"image_size": cell.data.image_size, "channels": cell.data.channels}
        if cell.base.pretrained:
            return pretraining.load_base(cell.base.pretrained, **shape)
        return pretraining.untrained(cell.base, **shape)

    def _load_base(self, data: DataSpec, spec: BaseSpec) -> Path:
        """Folder of the trained base model, which is trained first where it is missing."""
        cell = Cell(data=data, base=spec)
        if spec.pretrained:
            return Path(spec.pretrained)
        folder = self.cache / "base" / self._base_key(cell)
        with _only_one(folder):
            if not (folder / "done.json").exists():
                unet, scheduler = self._shape_of_base(cell)
                module = pretraining.Pretraining(unet, scheduler, spec.learning_rate)
                episodes = PublicTasks(
                    self.collection(data), seed=spec.seed, tasks=spec.batch_size, query=1, steps=spec.train_steps
                )
                seconds = self._fit(module, episodes, spec.train_steps, spec.seed, "base model")
                unet.save_pretrained(folder / "unet")
                scheduler.save_pretrained(folder / "scheduler")
                write_json(folder / "done.json", {"seconds": seconds})
        return folder

    def untrained_method(self, cell: Cell, unet: UNet2DModel, scheduler: DDPMScheduler) -> Method:
        """The method of a cell around a base model, before its public phase."""
        kind: type[Method] = METHODS[cell.method]
        model = LoRADiffusion(
            unet.to(self.device),
            scheduler,
            rank=cell.base.rank,
            sampling_steps=cell.base.sampling_steps,
            seed=cell.base.seed,
            convolutions=cell.base.convolutions,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.base.seed)
            method = kind(model, kind.options_type.parse(cell.method, cell.options), embedding_dim=cell.embedding_dim)
        return method.to(self.device)

    def method(self, cell: Cell) -> tuple[Method, float]:
        """The method with its public phase done, and the seconds that phase took when it was trained."""
        folder = self._base(cell.data, cell.base)
        shape = {"image_size": cell.data.image_size, "channels": cell.data.channels}
        method = self.untrained_method(cell, *pretraining.load_base(folder, **shape))
        collection = self.collection(cell.data)
        if method.reads_public:
            method.public = self._public(cell.data)
        if not method.public_phase:
            return method.eval(), 0.0
        read = dataclasses.fields(method.phase_options) if method.phase_options else None
        key = content_hash(
            [
                method.public_phase,
                self._base_key(cell),
                cell.base.rank,
                cell.base.convolutions,
                cell.base.seed,
                collection.public_fingerprint,
                method.public_dim,
                cell.options if read is None else {field.name: cell.options[field.name] for field in read},
                [inspect.getsource(module) for module in (target, sys.modules[type(method).__module__])],
            ]
        )
        trained = self.cache / "public" / key
        with _only_one(trained):
            if not (trained / "done.json").exists():
                episodes = method.public_data(collection)
                name = f"{method.public_phase} k={method.public_dim}"
                seconds = self._fit(method, episodes, episodes.steps, cell.base.seed, name)
                trained.mkdir(parents=True, exist_ok=True)
                weights = {name: value.contiguous() for name, value in method.state_dict().items()}
                with whole_file(trained / "weights.safetensors") as temporary:
                    save_file(weights, temporary)
                write_json(trained / "done.json", {"seconds": seconds})
        method.load_state_dict(load_file(trained / "weights.safetensors", device=str(self.device)))
        return method.eval(), float(json.loads((trained / "done.json").read_text())["seconds"])

    def _fit(self, module: lightning.LightningModule, episodes: PublicTasks, steps: int, seed: int, name: str) -> float:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        # Advice on loaders and loops that were chosen on purpose; errors are exceptions and still come through.
        warnings.filterwarnings("ignore", module="lightning")
        lightning.seed_everything(seed, verbose=False)
        print(f"training {name}: {steps} steps", flush=True)
        begin = time.perf_counter()
        with self.tracking.phase(name) as logger:
            trainer = lightning.Trainer(
                max_steps=steps,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=1,
                logger=logger,
                gradient_clip_val=1.0,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=sys.stderr.isatty(),
                num_sanity_val_steps=0,
                val_check_interval=min(200, steps),
                check_val_every_n_epoch=None,
                limit_val_batches=1.0 if episodes.validation_steps else 0,
                default_root_dir=self.cache,
            )
            trainer.fit(module, datamodule=episodes)
        module.to(self.device)
        return time.perf_counter() - begin

    def run(self, cell: Cell) -> Row:
        """Run one cell (in its canonical form) and store its row.

        Raises:
            UserError: The spec is wrong; nothing is stored.
        """
        cell = canonical(cell)
        folder = self.store.directory(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        row: Row = self._facts(cell)
        try:
            row.update(self._measure(cell, folder, row["selection"]))  # type: ignore[typeddict-item]
        except UserError:
            raise
        except Exception as error:  # a failed cell is a result; the sweep goes on
            logging.getLogger(__name__).exception("cell %s failed", cell.id)
            first, *_ = str(error).splitlines() or [""]
            row["status"], row["error"] = "failed", f"{type(error).__name__}: {first}".removesuffix(": ")
        self.store.write(cell, row)
        self.tracking.cell(cell, row, self.store)
        return row

    def _facts(self, cell: Cell) -> Row:
        """What is known of a cell before it runs."""
        collection = self.collection(cell.data)
        kind: type[Method] = METHODS[cell.method]
        task = collection.task(cell.task)
        selection, search = selection_of(kind, cell.method, cell.options, self.searches, split=task.split)
        return Row(
            schema=SCHEMA,
            cell=cell.id,
            status="done",
            error="",
            sweep=self.sweep,
            collection=collection.name,
            task=task.id,
            family=task.family,
            split=task.split,
            development=task.development,
            distance=task.distance,
            n=cell.n,
            method=cell.method,
            role=kind.role,
            epsilon=cell.epsilon,
            delta=cell.delta,
            relation=cell.relation,
            embedding_dim=cell.embedding_dim,
            seed=cell.seed,
            noise_draw=cell.noise_draw,
            private=kind.private and not cell.reproducible_noise,
            selection=selection,
            search=search,
            harness=importlib.metadata.version("dphyper"),
            protocol=self.evaluator(cell.protocol).protocol_hash,
            extractor=cell.protocol.extractor,
        )

    def _measure(self, cell: Cell, folder: Path, selection: str) -> dict[str, Any]:
        """Adapt, sample, judge."""
        collection = self.collection(cell.data)
        draw = collection.draw(cell.task, cell.n, cell.seed)
        method, seconds_public = self.method(cell)
        begin = time.perf_counter()
        theta, ledger = self._adapt(cell, method, draw, folder)
        seconds_adapt = time.perf_counter() - begin

        begin = time.perf_counter()
        images = method.target.sample(theta, cell.protocol.num_images, _generator(cell.seed, "sampling"))
        with whole_file(folder / "samples.npz") as temporary:
            np.savez_compressed(temporary, images=images)
        save_grid(images, folder / "samples.png")
        tuning = collection.task(cell.task).split == "tuning"
        shown = tuning or cell.data.show_reference or collection.show_reference
        if shown:
            save_grid(draw.reference, folder / "reference.png")
        evaluator = self.evaluator(cell.protocol)
        reference = self._features(cell, draw.reference)
        scores = evaluator.scores(evaluator.features(images), reference)
        public = f"the public {'' if tuning else 'and tuning '}tasks of {collection.name}"
        floor = evaluator.floor(reference, seed=cell.seed)
        loss = self._denoising_loss(method, theta, draw.reference, cell.seed)
        shift = self._public_shift(cell, reference)
        seconds_evaluate = time.perf_counter() - begin
        return {
            "private": method.private and not cell.reproducible_noise and ledger.private,
            "epsilon_spent": ledger.spent(),
            "fid": scores.fid,
            "kid": scores.kid,
            "fid_floor": floor.fid,
            "kid_floor": floor.kid,
            "floor_images": floor.floor_images,
            "num_images": len(images),
            "num_reference": len(reference),
            "denoising_loss": loss,
            "public_shift": shift,
            **({} if method.embedding_shift is None else {"embedding_shift": method.embedding_shift}),
            "seconds_public": seconds_public,
            # How long trials took tells which were drawn, and of a former version told how many.
            **({} if ledger.has_selection else {"seconds_adapt": seconds_adapt, "seconds_evaluate": seconds_evaluate}),
            "parameters": method.target.num_parameters,
            "base_hash": self._base_key(cell),
            "provenance": collection.provenance(cell.task, self.store.key()),
            **_provenance(),
            "statement": privacy_statement(
                cell, ledger, selection=selection, public_data=public, reference_shown=shown
            ),
        }

    def _adapt(self, cell: Cell, method: Method, draw: Draw, folder: Path) -> tuple[Tensor, Ledger]:
        """Parameters and ledger of a cell, from an earlier run of it where that got so far."""
        budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
        kept, path = folder / "theta.safetensors", folder / "ledger.json"
        ledger = Ledger.open(path, budget)
        if kept.exists():
            return load_file(kept, device=str(self.device))["theta"], ledger
        # A row says that an earlier attempt failed, and that is known; without one the process died unseen.
        if not (folder / "row.json").exists():
            interrupted = ledger.to_json()
            if ledger.forget_unseen():
                write_json(folder / "ledger.interrupted.json", interrupted)
        records = to_unit(np.asarray(draw.records, np.uint8)).to(self.device)
        try:
            private = PrivateData(records, n=cell.n, ledger=ledger, noise=_noise(cell, method))
            theta = method.adapt(private, budget, _generator(cell.seed, "adaptation"))
            undeclared = ledger.differences(method.mechanisms(budget, method.options))
            if undeclared:
                raise PrivacyError(f"method '{cell.method}': {'; '.join(undeclared)}")
        except Exception:
            ledger.close_attempt()
            raise
        if not ledger.charges:
            write_json(path, ledger.to_json())
        with whole_file(kept) as temporary:
            save_file({"theta": theta.contiguous()}, temporary)
        return theta, ledger

    def _features(self, cell: Cell, images: NDArray[Any]) -> NDArray[np.float32]:
        """Features of real images, from the cache where they are there."""
        evaluator = self.evaluator(cell.protocol)
        path = self.cache / "features" / f"{content_hash([evaluator.protocol_hash, images.tobytes().hex()])}.npy"
        with _only_one(path):
            if not path.exists():
                with whole_file(path) as temporary:
                    np.save(temporary, evaluator.features(np.asarray(images, np.uint8)))
        return np.asarray(np.load(path), np.float32)

    def _public_shift(self, cell: Cell, reference: NDArray[np.float32]) -> float:
        """Fréchet distance from public images to the reference, on the evaluation's features."""
        collection = self.collection(cell.data)
        rows = np.unique(np.concatenate([task.indices for task in collection.select("public")]))
        some = np.random.default_rng(0).permutation(rows)[: max(cell.protocol.num_images, 2)]
        public = self._features(cell, collection.records[some])
        return self.evaluator(cell.protocol).scores(public, reference).fid

    def _denoising_loss(self, method: Method, theta: Tensor, reference: NDArray[Any], seed: int) -> float:
        x = to_unit(np.asarray(reference[:512], np.uint8)).to(self.device)
        with torch.no_grad():
            return float(method.target.per_example_loss(theta, x, _generator(seed, "loss"), stratified=True).mean())


def _distinct_public_work(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each method and public configuration among the cells."""
    return list(
        {
            content_hash([c.data.__dict__, c.base.__dict__, c.method, c.options, c.embedding_dim]): c for c in cells
        }.values()
    )


def _noise(cell: Cell, method: Method) -> NoiseSource:
    """The source of a cell's privacy noise and of what private losses draw; a ceiling's is the seed's."""
    if cell.reproducible_noise or not method.private:
        return NoiseSource.reproducible(cell.seed + 1_000_000 * cell.noise_draw)
    return NoiseSource.os()


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of one seed; never the source of privacy noise."""
    return torch.Generator().manual_seed(int(content_hash([seed, purpose])[:15], 16))


def _only_one(path: Path) -> FileLock:
    """A lock under which one process computes ``path`` while the others wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def save_grid(images: NDArray[Any], path: Path, columns: int = 10, rows: int = 5) -> None:
    """Write the first images as one PNG, side by side."""
    shown = np.asarray(images[: columns * rows], np.uint8)
    _, height, width, channels = shown.shape
    grid = np.zeros((rows * height, columns * width, channels), np.uint8)
    for index, image in enumerate(shown):
        top, left = index // columns * height, index % columns * width
        grid[top : top + height, left : left + width] = image
    with whole_file(path) as temporary:
        Image.fromarray(grid.squeeze()).save(temporary)


@functools.cache
def _provenance() -> dict[str, str]:
    """Commit, versions and machine."""
    packages = ["dphyper", "torch", "diffusers", "peft", "opacus", "dp-accounting", "clean-fid", "scipy", "numpy"]
    versions = {name: importlib.metadata.version(name) for name in packages}
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "commit": git.stdout.strip(),
        "versions": json.dumps(versions, sort_keys=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
