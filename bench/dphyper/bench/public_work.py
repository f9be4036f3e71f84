"""Everything that touches only public data, computed once and shared by cells and processes.

Base models, public phases and features of real images lie in a cache under a hash of what they were made from: data,
spec, options, and version numbers that the author of a model, a phase or the dealer of episodes raises when its meaning
changes. ε and private records enter no key of a trained thing. A comment changes no key. A change of meaning without a
new version would go unnoticed here; tests hold golden numbers against it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from dphyper.bench.cache import Cache
from dphyper.bench.catalog import DATASETS, METHODS
from dphyper.bench.method import Method
from dphyper.bench.pretraining import PRETRAINING_VERSION, Pretraining
from dphyper.bench.public import DEALER_VERSION, PublicRecords, PublicTasks
from dphyper.bench.tasks import Collection
from dphyper.bench.tracking import Tracking
from dphyper.bench.training import copy_checkpoint, steps_done, train
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.finite import require_finite_weights
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, content_hash
from dphyper.metrics.evaluation import Evaluator
from dphyper.metrics.metric import Features
from dphyper.targets.pretrained import model_folder
from dphyper.targets.registry import TARGETS
from dphyper.targets.target import BaseModel, Target

# Fields of `BaseSpec` that say how the public model is adapted and sampled, and not how it is trained; and its steps,
# since a longer training begins as a shorter one.
_OTHERWISE = ("rank", "layers", "sampling_steps", "guidance_scale", "train_steps", "finetune_steps")
# Of a model that others trained and that is trained on: the rest says what it would be if it were trained here.
_FINETUNING = ("kind", "batch_size", "learning_rate", "flips", "class_label", "prompt", "seed")
_OF_SAMPLING = ("sampling_steps", "guidance_scale")
SECONDS = "seconds.json"
# Base models that come with the package, each in a folder of the name of its key.
SHIPPED = Path(__file__).with_name("shipped")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicPart:
    """A piece of public work that cells share.

    Attributes:
        key: Cells that share it have it in common.
        name: For people.
        make: Makes it where it is missing; seconds that it took when it was made.
    """

    key: str
    name: str
    make: Callable[[], float]


class PublicWork:
    """What cells share.

    Args:
        performance: Device and cache.
        tracking: The sink for progress of training.

    Attributes:
        device: Where models live.
        collection: `DataSpec` to its collection, which is loaded once.
        base_folder: `DataSpec` and `BaseSpec` to the folder of the public model, which is trained where it is missing.
    """

    def __init__(self, performance: Performance, tracking: Tracking) -> None:
        chosen = performance.device
        if chosen == "auto":
            chosen = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = _device(chosen)
        self._tracking, self._cache = tracking, Cache(performance.cache)
        self.collection: Callable[[DataSpec], Collection] = functools.cache(
            lambda spec: DATASETS[spec.scheme].load(spec)
        )
        self.base_folder = functools.cache(self._base_folder)
        self._records: dict[tuple[DataSpec, BaseSpec], PublicRecords] = {}

    def base_key(self, data: DataSpec, spec: BaseSpec) -> str:
        """Hash of all that decides about the public model."""
        if spec.pretrained and not spec.finetune_steps:
            return _pretrained_key(spec)
        return content_hash([self._training_key(data, spec), _steps(spec)])

    def _training_key(self, data: DataSpec, spec: BaseSpec) -> str:
        """Hash of all that decides about the public model but the number of steps."""
        training: Any = {name: value for name, value in spec.to_dict().items() if name not in _OTHERWISE}
        if spec.pretrained:
            training = [{name: getattr(spec, name) for name in _FINETUNING}, _pretrained_key(spec)]
        versions = [TARGETS[spec.kind].version, PRETRAINING_VERSION, DEALER_VERSION]
        return content_hash([training, versions, self.collection(data).public_fingerprint])

    def untrained_base(self, cell: Cell) -> BaseModel:
        """The public model of a cell before it is trained; one that others trained is read.

        Raises:
            UserError: It does not fit the data.
        """
        if cell.base.pretrained:
            return _loaded(cell, model_folder(cell.base.pretrained))
        kind = TARGETS[cell.base.kind]
        base = kind.untrained(cell.base, image_size=cell.data.image_size, channels=cell.data.channels)
        base.condition(cell.base)
        return base

    def untrained_method(self, cell: Cell, base: BaseModel) -> Method:
        """The method of a cell around a base model, before its public phase.

        Raises:
            UserError: Unknown options, or options that do not fit the model.
        """
        kind = METHODS[cell.method]
        target = base.to(self.device).target(cell.base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.base.seed)
            method = kind(target, kind.options_type.parse(cell.method, cell.options), embedding_dim=cell.embedding_dim)
        return method.to(self.device)

    def target(self, cell: Cell) -> Target:
        """The trained public model of a cell with the adapter around it."""
        return self._base(cell).to(self.device).target(cell.base)

    def _base(self, cell: Cell) -> BaseModel:
        base = _loaded(cell, self.base_folder(cell.data, cell.base))
        require_finite_weights("base model", base)
        self._hand_encodings(cell, base)
        return base

    def _hand_encodings(self, cell: Cell, base: BaseModel) -> None:
        """Give a model that encodes slowly the encodings of public and tuning records, which are made once.

        Private records have none: their encodings are never kept.
        """
        if not base.slow_encoding:
            return
        collection = self.collection(cell.data)
        shown = [task.indices for task in collection.tasks if task.split != "private"]
        records = collection.records[np.unique(np.concatenate(shown))]

        def make(result: Path, unfinished: Path) -> None:
            save_file({"x": base.to(self.device).encode(records).cpu()}, result / "x.safetensors")

        key = content_hash([_pretrained_key(cell.base), collection.public_fingerprint])
        base.remember(records, load_file(self._cache.entry("encodings", key, make) / "x.safetensors")["x"])

    def method(self, cell: Cell) -> tuple[Method, float]:
        """The method with its public phase done, and the seconds that phase took when it was trained."""
        method = self.untrained_method(cell, self._base(cell))
        if method.reads_public:
            if (cell.data, cell.base) not in self._records:
                records = PublicRecords.of(self.collection(cell.data), method.target.encode)
                self._records[cell.data, cell.base] = records
            method.public = self._records[cell.data, cell.base]
        if not method.public_phase:
            return method.eval(), 0.0

        def make(result: Path, unfinished: Path) -> None:
            episodes = method.public_data(self.collection(cell.data))
            name = f"{method.public_phase} k={method.public_dim}"
            seconds = self._train(method, episodes, episodes.steps, cell.base.seed, name, unfinished)
            weights = {name: value.contiguous() for name, value in method.state_dict().items()}
            save_file(weights, result / "weights.safetensors")
            write_json(result / SECONDS, {"seconds": seconds})

        trained = self._cache.entry("public", self._phase_key(cell, method), make)
        method.load_state_dict(load_file(trained / "weights.safetensors", device=str(self.device)))
        return method.eval(), float(json.loads((trained / SECONDS).read_text())["seconds"])

    def parts(self, cell: Cell) -> list[PublicPart]:
        """What a cell needs, in the order in which it is made."""
        found = []
        if not cell.base.pretrained or cell.base.finetune_steps:
            key = f"base {self.base_key(cell.data, cell.base)}"
            found.append(PublicPart(key=key, name="base model", make=lambda: self._base_seconds(cell)))
        method = self.untrained_method(cell, self.untrained_base(cell))
        if method.public_phase:
            key = f"public {self._phase_key(cell, method)}"
            name = f"{method.public_phase} k={method.public_dim}"
            found.append(PublicPart(key=key, name=name, make=lambda: self.method(cell)[1]))
        return found

    def _base_seconds(self, cell: Cell) -> float:
        return float(json.loads((self.base_folder(cell.data, cell.base) / SECONDS).read_text())["seconds"])

    def features(self, evaluator: Evaluator, images: NDArray[Any]) -> Features:
        """Features of real images."""
        content = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        key = content_hash([evaluator.protocol_hash, list(images.shape), content])

        def make(result: Path, unfinished: Path) -> None:
            np.save(result / "features.npy", evaluator.features(images))

        found: Features = np.load(self._cache.entry("features", key, make) / "features.npy")
        return found

    def _base_folder(self, data: DataSpec, spec: BaseSpec) -> Path:
        if spec.pretrained and not spec.finetune_steps:
            return model_folder(spec.pretrained)
        key = self.base_key(data, spec)
        if (shipped := SHIPPED / key).is_dir():
            return shipped

        def make(result: Path, unfinished: Path) -> None:
            base, steps = self.untrained_base(cell := Cell(data=data, base=spec)), _steps(spec)
            self._hand_encodings(cell, base)
            episodes = PublicTasks(
                self.collection(data),
                base.encode,
                seed=spec.seed,
                tasks=spec.batch_size,
                query=1,
                steps=steps,
            )
            module = Pretraining(base, spec.learning_rate, flips=spec.flips)
            longest = self._cache.shared("base", self._training_key(data, spec))
            if steps_done(unfinished) < steps_done(longest) <= steps:
                copy_checkpoint(longest, unfinished)
            seconds = self._train(module, episodes, steps, spec.seed, "base model", unfinished, extensible=True)
            if steps_done(longest) < steps:
                copy_checkpoint(unfinished, longest)
            average = module.average.module
            assert isinstance(average, BaseModel)
            average.save(result)
            write_json(result / SECONDS, {"seconds": seconds})

        return self._cache.entry("base", key, make)

    def _phase_key(self, cell: Cell, method: Method) -> str:
        read = dataclasses.fields(method.phase_options) if method.phase_options else None
        return content_hash(
            [
                method.public_phase,
                method.phase_version,
                DEALER_VERSION,
                self.base_key(cell.data, cell.base),
                {name: value for name, value in cell.base.to_dict().items() if name not in _OF_SAMPLING},
                self.collection(cell.data).public_fingerprint,
                method.public_dim,
                cell.options if read is None else {field.name: cell.options[field.name] for field in read},
            ]
        )

    def _train(
        self,
        module: Any,
        episodes: PublicTasks,
        steps: int,
        seed: int,
        name: str,
        unfinished: Path,
        *,
        extensible: bool = False,
    ) -> float:
        return train(
            module,
            episodes,
            steps=steps,
            seed=seed,
            name=name,
            device=self.device,
            tracking=self._tracking,
            unfinished=unfinished,
            extensible=extensible,
        )


def _loaded(cell: Cell, folder: Path) -> BaseModel:
    """The public model of a cell as a folder holds it, with its class or prompt fixed."""
    base = TARGETS[cell.base.kind].load(folder, image_size=cell.data.image_size, channels=cell.data.channels)
    base.condition(cell.base)
    return base


def _steps(spec: BaseSpec) -> int:
    """Steps of training of the public model here."""
    return spec.finetune_steps if spec.pretrained else spec.train_steps


def _pretrained_key(spec: BaseSpec) -> str:
    """Hash of a model that others trained."""
    return content_hash([spec.kind, TARGETS[spec.kind].version, _content(model_folder(spec.pretrained))])


def _device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UserError: This torch knows no such device, or this machine has none.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"performance.device = '{name}': expected auto, cpu or cuda ({reason})") from error


def distinct_public_work(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each method and public configuration among the cells."""
    return list({cell.public_configuration: cell for cell in cells}.values())


@functools.cache
def _content(folder: Path) -> list[tuple[str, str]]:
    """Names and hashes of the files of a model that others trained."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found.append((str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()))
    return found
