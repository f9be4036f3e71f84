"""The unbiased kernel distance between features: KID where the features are Inception's."""

from typing import ClassVar

from dphyper.metrics.metric import Evidence, Features, Metric, Need, pair_of_features

_ROWS = 1000  # rows of the kernel matrix held at once: 160 MB against 20,000 images


class Kernel(Metric):
    """Squared maximum mean discrepancy of the kernel (x·y / d + 1)³ (KID, Bińkowski et al. 2018, arXiv:1801.01401)."""

    label = "kernel distance"
    labels = {"inception": "KID"}
    unbiased = True
    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    order = None  # a table of several metrics has the Fréchet distance of the same features

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """The U-statistic over all pairs: what clean-fid's average over random subsets estimates, without its scatter.

        It scatters around 0, below it too, when the distributions are equal.

        Raises:
            UserError: The features have different widths, or are fewer than two, or not finite.

        Kernel 1 within each pair (one feature is 0) and 1 or 8 across, on average (1 + 1 + 1 + 8) / 4:

        >>> import numpy as np
        >>> pair = np.array([[0.0], [1.0]])
        >>> Kernel.compute(Evidence(generated_features=pair, reference_features=pair))
        -3.5
        """
        first, second = pair_of_features(given)
        n, m = len(first), len(second)
        within_first = (_kernel_sum(first, first) - _kernel_diagonal(first)) / (n * (n - 1))
        within_second = (_kernel_sum(second, second) - _kernel_diagonal(second)) / (m * (m - 1))
        return within_first + within_second - 2 * _kernel_sum(first, second) / (n * m)


def _kernel_sum(first: Features, second: Features) -> float:
    """Sum of the kernel over all pairs, a block of rows at a time."""
    blocks = (first[i : i + _ROWS] for i in range(0, len(first), _ROWS))
    return float(sum(((block @ second.T / first.shape[1] + 1) ** 3).sum() for block in blocks))


def _kernel_diagonal(features: Features) -> float:
    """Sum of the kernel of each row with itself."""
    return float((((features**2).mean(1) + 1) ** 3).sum())
