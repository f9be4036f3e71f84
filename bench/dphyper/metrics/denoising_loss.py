"""The target's own loss on held-out records, which sampling does not blur."""

from typing import ClassVar

from dphyper.metrics.metric import Evidence, Metric, Need


class DenoisingLoss(Metric):
    """Mean loss of held-out records at the adapted parameters."""

    label = "denoising loss"
    needs: ClassVar[frozenset[Need]] = frozenset({"losses"})
    scale = 1e-4
    order = 10

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """The mean of the losses.

        >>> import numpy as np
        >>> DenoisingLoss.compute(Evidence(reference_losses=np.array([0.25, 0.75])))
        0.5
        """
        assert given.reference_losses is not None
        return float(given.reference_losses.mean())
