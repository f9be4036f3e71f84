"""The contract of a method: one LightningModule with a public phase and one `adapt`.

A method file defines a subclass and its frozen `Options`; one entry point registers it. The public phase is ordinary
Lightning training on `PublicTasks`; it is run once, cached and shared by all cells, since neither ε nor a private
record can reach it. `adapt` sees private records through `PrivateData` alone and returns θ with its diagnostics. The
harness, not the method, decides what is evaluated and how.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import lightning
import torch
from torch import Tensor

from dphyper.bench.public import PublicRecords, PublicTasks
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError, unknown_name
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import Mechanism
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

Role = Literal["method", "control", "floor", "ceiling"]
Axis = Literal["task", "n", "epsilon", "embedding_dim", "seed"]
Selection = Literal["fixed", "tuned_public", "tuned_private", "non_private", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hyper-parameters of a method; subclasses add theirs. Values come from ``options`` of a cell."""

    @classmethod
    def parse(cls, method: str, given: Mapping[str, Any]) -> "Options":
        """Build the options from plain data.

        Raises:
            UserError: An unknown key (with the nearest known one) or a value of the wrong type.
        """
        known = {field.name: field for field in fields(cls)}
        values = {}
        for key, value in given.items():
            if key not in known:
                raise unknown_name(f"option of method {method}", key, known)
            default = known[key].default
            whole = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
            if not whole and type(value) is not type(default):
                raise UserError(
                    f"options.{method}.{key} = {value!r}: expected {type(default).__name__}, such as {default!r}"
                )
            values[key] = float(value) if whole else value
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """A method's own choice of a smaller adapter than the target has.

    Attributes:
        rank: LoRA rank, at most the target's; 0 for the target's.
        layers: Groups of layers with commas between them; empty for all that the target has.
    """

    rank: int = 0
    layers: str = ""

    def adapter(self, target: Target) -> Target:
        """The target that the method works on.

        Raises:
            UserError: A rank or a layer that the target does not have.
        """
        if self.rank < 0:
            raise UserError(f"options.rank = {self.rank}: expected at least 1, or 0 for the target's")
        layers = [group.strip() for group in self.layers.split(",") if group.strip()]
        return target.restricted(self.rank, layers) if self.rank or layers else target


@dataclass(frozen=True, kw_only=True)
class About:
    """What to know of a method before comparing it; `docs/methods.md` is made of these. Markdown, whole sentences.

    Attributes:
        source: Paper, with venue or arXiv number.
        public_data: What is done with public records beyond the base model, and when.
        private_release: What of the private records is clipped and noised.
        passes: How often each private record is read: forward passes and gradients.
        departures: Where the published method or code is left, and why; empty where nothing is published.
    """

    source: str
    public_data: str
    private_release: str
    passes: str
    departures: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adaptation:
    """What a method makes of private records.

    Attributes:
        theta: (P,) parameters of the target.
        diagnostics: Numbers that tell how it went, each a function of what was released and of nothing else of the
            private records; ``embedding_shift`` is how far the release of an embedding lies from those of the public
            tasks, about 1 for one of them.
    """

    theta: Tensor
    diagnostics: Mapping[str, float] = field(default_factory=dict)


class Method(lightning.LightningModule, ABC):
    """A way to turn private records into parameters.

    Class attributes:
        role: ``method`` (private, compared), ``control``, ``floor`` (uses nothing private) or ``ceiling`` (no
            privacy).
        about: Source, data and cost; each method has its own.
        uses: The axes of the grid that can change the result; cells that differ elsewhere are one cell.
        private: False where the output carries no privacy guarantee whatever the budget.
        selection: How the default hyper-parameters were chosen.
        public_phase: Methods of the same name share one public phase; empty for none.
        phase_version: Raised by the author when the phase changes its meaning: networks that were trained before are
            then not taken for the present ones.
        phase_options: Options that affect the public phase. Changing any other option does not train it again. None
            means all of them do.
        reads_public: Whether `adapt` reads records of public tasks, which the harness then puts into `public`.
        options_type: The class of `options`.
        quick_options: Options with which the contract suite runs the method in a second or two.
        label: Name in print; the registered name if there is none.
        colour: Of its curves, as ``#RRGGBB``; a spare one if there is none. Okabe and Ito's and Tol's are safe for the
            common colour blindnesses.
        marker: Of its curves, as matplotlib's; curves that share a panel should differ in colour and in marker.
        order: Place among the methods of its role in tables and legends, small numbers first.

    Args:
        target: The model whose parameters are wanted.
        options: Hyper-parameters.
        embedding_dim: k, for methods with an embedding.

    Attributes:
        public: Records of public tasks, where `reads_public` asks for them.
        public_dim: The dimension that the public phase is trained for; k, unless one network serves several.
    """

    role: ClassVar[Role]
    about: ClassVar[About]
    uses: ClassVar[frozenset[Axis]]
    private: ClassVar[bool] = True
    selection: ClassVar[Selection] = "fixed"
    public_phase: ClassVar[str] = ""
    phase_version: ClassVar[int] = 1
    phase_options: ClassVar[type[Options] | None] = None
    reads_public: ClassVar[bool] = False
    options_type: ClassVar[type[Options]] = Options
    quick_options: ClassVar[Mapping[str, Any]] = {}
    label: ClassVar[str]
    colour: ClassVar[str]
    marker: ClassVar[str]
    order: ClassVar[int] = 1000

    public: PublicRecords

    def __init__(self, target: Target, options: Options, *, embedding_dim: int) -> None:
        super().__init__()
        self.target = options.adapter(target) if isinstance(options, AdapterOptions) else target
        self.embedding_dim = self.public_dim = embedding_dim
        self._options = options
        for ability in self.asks(options):
            self.target.require(ability)

    @property
    def options(self) -> Options:
        """The hyper-parameters, as given."""
        return self._options

    def public_data(self, collection: Collection) -> PublicTasks:
        """The episodes of the public phase; called only where ``public_phase`` is set.

        Raises:
            UserError: The method names a public phase and does not say which episodes it takes.
        """
        raise UserError(
            f"method class {type(self).__name__} names the public phase '{self.public_phase}' without episodes for it: "
            "write its `public_data`, or leave `public_phase` empty"
        )

    @classmethod
    def asks(cls, options: Any) -> tuple[str, ...]:
        """Methods of `Target` that only some targets have and that `adapt` calls; a target without is refused before.

        Args:
            options: Of this method.
        """
        return ()

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        """Every release that `adapt` asks for under a budget, calibrated; none for a method that reads no record.

        Args:
            budget: What is spent in total.
            options: Of this method.
        """
        return ()

    @abstractmethod
    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Make parameters of the private records.

        Args:
            private: The only way to them. Functions given to it are handed the randomness of private losses, which is
                secret and new in every run.
            budget: What may be spent; every mechanism of ``private`` charges the ledger that holds it.
            rng: Randomness of everything else (initialisation, public batches). The seed fixes it, so that a run which
                goes on after its release meets the same; it is public, and no function of a record may draw from it.
        """
