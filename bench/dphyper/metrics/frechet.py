"""The Fréchet distance between Gaussians fitted to features: FID where the features are Inception's.

Clean-fid's number, with moments in float64. It is biased upwards at small numbers of records; what real records score
at the same number shows by how much.
"""

import contextlib
import io
import math
import warnings
from typing import ClassVar

import numpy as np

from dphyper.metrics.metric import Evidence, Features, Metric, Need, pair_of_features


class Frechet(Metric):
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) between the Gaussians fitted to two sets of features."""

    label = "Fréchet distance"
    labels = {"inception": "FID", "clip": "CLIP-FID", "efficientnet_lite0": "FD (EfficientNet-Lite0)"}
    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    order = 20

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """The distance, at least 0 up to rounding.

        Where clean-fid finds none (the matrix square root of a product of singular covariances can come out complex
        or infinite) the trace of the root is taken from eigenvalues instead, which are real and non-negative by
        construction.

        Raises:
            UserError: The features have different widths, or are fewer than two, or not finite.

        Two pairs of numbers with equal variance, three apart:

        >>> first, second = np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])
        >>> round(Frechet.compute(Evidence(generated_features=first, reference_features=second)), 6)
        9.0
        """
        import cleanfid.fid

        first, second = pair_of_features(given)
        moments = (first.mean(0), _covariance(first), second.mean(0), _covariance(second))
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # SciPy on `disp`, and on the singular products that are handled below
            try:
                distance = float(cleanfid.fid.frechet_distance(*moments))
            except (ValueError, np.linalg.LinAlgError):
                distance = math.nan
        return distance if math.isfinite(distance) else _distance_by_eigenvalues(*moments)


def _distance_by_eigenvalues(
    mean_1: Features, covariance_1: Features, mean_2: Features, covariance_2: Features
) -> float:
    """Fréchet distance of two Gaussians by Tr (Σ₁Σ₂)^½ = Σᵢ λᵢ^½, λ the eigenvalues of Σ₁^½ Σ₂ Σ₁^½.

    That matrix has the eigenvalues of Σ₁Σ₂ and is symmetric and positive semi-definite, singular or not.

    >>> _distance_by_eigenvalues(np.zeros(2), np.diag([1.0, 0.0]), np.ones(2), np.diag([4.0, 0.0]))
    3.0
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ covariance_2 @ root).clip(0)).sum()
    difference = mean_1 - mean_2
    return float(difference @ difference + np.trace(covariance_1) + np.trace(covariance_2) - 2 * trace)


def _covariance(features: Features) -> Features:
    return np.atleast_2d(np.cov(features, rowvar=False))
