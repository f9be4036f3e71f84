"""The contract of a metric: one number about generated records, with its name and its direction.

A metric is one class: what it is called, whether more is better, what it needs to be given, and `Metric.compute`. The
harness gives every registered metric the same evidence, and rows hold ``metrics: {name: value}``. A metric that needs
features alone is also computed on real records against real ones, which is what perfect samples score. Importing a
metric's module loads no torch, so that reports can ask for its name.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dphyper.core.errors import UserError
from dphyper.core.registry import Registry

Features = NDArray[Any]
"""Float array (N, d): one row for each record."""
Need = Literal["records", "features", "private_features", "losses"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What a metric may be given; None where the metric's ``needs`` do not name it.

    Attributes:
        generated: (N, H, W, C) generated records.
        reference: (M, H, W, C) held-out records of the same family.
        generated_features: (N, d) by the protocol's extractor.
        reference_features: (M, d) by the protocol's extractor.
        private_features: (n, d) of the private records, by the protocol's extractor. No noise covers what is computed
            of them: given for tuning tasks, whose records are public, and for methods without privacy, never else.
        reference_losses: (m,) the target's losses of reference records at the adapted parameters, at times and noises
            that are the same for all methods.
    """

    generated: NDArray[Any] | None = None
    reference: NDArray[Any] | None = None
    generated_features: Features | None = None
    reference_features: Features | None = None
    private_features: Features | None = None
    reference_losses: NDArray[np.floating[Any]] | None = None


class Metric(ABC):
    """One number about generated records.

    Class attributes:
        label: Name in print, as it stands inside a sentence.
        labels: Names on some extractors' features, where they differ from ``label``.
        higher_is_better: Direction.
        unbiased: The expected number does not depend on how many records there are, so that a number better than that
            of real records is too good to be true.
        needs: What `compute` reads of the evidence.
        scale: Tables print numbers in units of this; 1 for as they are.
        order: Place among the metrics of a table that shows several, the lowest first; None keeps it out of them.
    """

    label: ClassVar[str]
    labels: ClassVar[dict[str, str]] = {}
    higher_is_better: ClassVar[bool] = False
    unbiased: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]]
    scale: ClassVar[float] = 1.0
    order: ClassVar[int | None] = 100

    @classmethod
    @abstractmethod
    def compute(cls, given: Evidence) -> float:
        """The number; a function of the evidence alone, without randomness."""

    @classmethod
    def label_on(cls, extractor: str) -> str:
        """Name in print of the metric on the features of an extractor.

        Args:
            extractor: As in `Protocol.extractor`.
        """
        return cls.labels.get(extractor, cls.label)


METRICS: Registry[Metric] = Registry("metric", "dphyper.metrics.metric:Metric", "dphyper.metrics")
HEADLINE = "frechet"
"""The metric that verdicts, main tables and figures are about."""


def pair_of_features(given: Evidence) -> tuple[Features, Features]:
    """Generated and reference features as float64.

    Raises:
        UserError: Not (N, d) and (M, d) with N and M at least 2, or not finite.
    """
    first, second = given.generated_features, given.reference_features
    assert first is not None, "a metric that reads features must name them in its needs"
    assert second is not None
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise UserError(
            f"features of shapes {first.shape} and {second.shape}: expected (N, d) and (M, d) with N and M at least 2"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("features with NaN or infinite values: expected finite ones; look at the images they are of")
    return first.astype(np.float64), second.astype(np.float64)
