"""The contract of a target: the generative model whose parameters a method produces.

A kind of target (``base.kind``) is one file with two classes. A `BaseModel`, which the registry names, is the public
model before adaptation: it is trained on public records, saved and read. Its `BaseModel.target` is the `Target` around
it: losses, gradients, samples and features as functions of the adapter's parameters θ, without a trace of one θ in the
next. Records are NumPy arrays outside and tensors inside; `BaseModel.encode` is the only way from one to the other.
Nothing here knows about privacy.

Shapes: b examples, P parameters of θ, F features of a record.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec, content_hash

_ABILITIES = {"vary": "vary records", "few_step_samples": "draw samples with a gradient"}


class Target(ABC):
    """What a method may ask of the model it produces parameters for.

    The methods that are not abstract are what only some models can do; a model that cannot is refused in one line.

    Attributes:
        num_parameters: P, the length of θ.
        num_features: F, the features of a record.
    """

    num_parameters: int
    num_features: int

    @abstractmethod
    def initial(self) -> Tensor:
        """The (P,) parameters of the public model: what is used when nothing private is known."""

    @abstractmethod
    def encode(self, records: NDArray[Any]) -> Tensor:
        """Records, (b, …) as a collection holds them, as the tensor that all other methods take."""

    @abstractmethod
    def per_example_loss(self, theta: Tensor, x: Tensor, rng: Generator | None, *, stratified: bool = False) -> Tensor:
        """The (b,) losses of ``x`` under one θ of shape (P,), or under one for each example, (b, P).

        ``stratified`` may tie the randomness of the examples together, to make their mean vary less. On private
        records it must be off: there each record's loss may depend on itself and its own randomness alone.
        """

    @abstractmethod
    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: Generator, multiplicity: int) -> Tensor:
        """The (b, P) gradients of the loss, each averaged over ``multiplicity`` draws of its own randomness."""

    @abstractmethod
    def sample(self, theta: Tensor, num: int, rng: Generator) -> NDArray[np.uint8]:
        """``num`` generated records."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """(b, F) features of each record by itself, from its values and the public model; differentiable in ``x``."""

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each matrix in θ, in the order in which they lie there; one column if there are none."""
        return [(self.num_parameters, 1)]

    @property
    def layout(self) -> str:
        """Hash of what the numbers of θ stand for; a θ of another layout is refused, whatever its length."""
        return content_hash(self.layer_shapes)

    @property
    def account(self) -> list[str]:
        """Lines that tell a user what of the model is adapted."""
        return []

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: Generator) -> Tensor:
        """Records like each of ``x``, the less so the greater ``strength`` (0 to 1), under the model at θ."""
        raise self._cannot(_ABILITIES["vary"])

    def few_step_samples(self, theta: Tensor, num: int, steps: int, rng: Generator) -> Tensor:
        """``num`` encoded records that a short deterministic sampler makes of noise, differentiable in θ."""
        raise self._cannot(_ABILITIES["few_step_samples"])

    def restricted(self, rank: int, layers: Sequence[str]) -> "Target":
        """The same model with a smaller adapter around it.

        Args:
            rank: At most so many columns of every matrix in θ; 0 for all.
            layers: Groups of layers; empty for all that the target has.

        Raises:
            UserError: A rank above the target's, or a group that it does not have.
        """
        raise self._cannot("have a smaller adapter")

    def all_weights(self) -> "Target":
        """The same model with θ the difference of all its weights from the public ones."""
        raise self._cannot("be trained in all its weights")

    def bound(self, x: Tensor) -> Tensor:
        """Tensors like encoded records, brought within the values that these have; as they are if there is no bound."""
        return x

    def require(self, ability: str) -> None:
        """Refuse to be asked for what this target does not do.

        Args:
            ability: ``vary`` or ``few_step_samples``.

        Raises:
            UserError: It does not.
        """
        if getattr(type(self), ability) is getattr(Target, ability):
            raise self._cannot(_ABILITIES[ability])

    def _cannot(self, what: str) -> UserError:
        return UserError(f"target {type(self).__name__} cannot {what}: choose a method that does not ask for it")


class BaseModel(nn.Module, ABC):
    """The public model before adaptation.

    Class attributes:
        version: Raised by the author when training or encoding change their meaning: models that were trained before
            are then not taken for the present ones.
        quick_spec: Fields of `BaseSpec` that make the model small enough for the contract suite.
        slow_encoding: Whether encoding a record is work, so that the harness keeps the encodings of public records
            and hands them to `remember`.
    """

    version: ClassVar[int]
    quick_spec: ClassVar[Mapping[str, Any]] = {}
    slow_encoding: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def untrained(cls, spec: BaseSpec, *, image_size: int, channels: int) -> Self:
        """The model that ``spec`` describes, initialised from its seed."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, image_size: int, channels: int) -> Self:
        """Read what `save` wrote, or a model that others trained.

        Raises:
            UserError: The folder cannot be read, or holds a model of another size.
        """

    def condition(self, spec: BaseSpec) -> None:
        """Fix the class or the prompt of every record; called once, after `load`.

        Raises:
            UserError: The model does not know it.
        """

    def remember(self, records: NDArray[Any], x: Tensor) -> None:
        """Take ``x`` for the encodings of these public records from here on."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into an empty folder."""

    @abstractmethod
    def encode(self, records: NDArray[Any]) -> Tensor:
        """Records, (b, …) as a collection holds them, as the tensor that `loss` and the target take."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """Mean training loss of encoded records, a scalar; its randomness is torch's global one."""

    @abstractmethod
    def target(self, spec: BaseSpec) -> Target:
        """The model with the adapter of ``spec`` around it; this one is frozen and lends its weights."""
