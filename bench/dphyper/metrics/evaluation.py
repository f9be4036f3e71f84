"""Judges generated records under one protocol: every registered metric, and what real records score themselves.

Guarantees: every number is a function of its arguments and the seed; the protocol hash changes with everything that
makes two numbers incomparable.
"""

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dphyper.core.errors import UserError
from dphyper.core.specs import Protocol, content_hash
from dphyper.metrics.extractors import Extractor
from dphyper.metrics.metric import METRICS, Evidence, Features


class Evaluator:
    """Judges records under one protocol.

    Args:
        protocol: Extractor and number of images.
        weights: Folder of weight files, as in `Extractor`.
        device: Where the extractor runs.

    Attributes:
        protocol: As given.
        protocol_hash: Hash of the protocol, the resizing, the weight file and clean-fid's version, 16 hex digits;
            numbers with different hashes must not be compared.

    Raises:
        UserError: As for `Extractor`.
    """

    def __init__(self, protocol: Protocol, *, weights: str | Path, device: torch.device) -> None:
        self.protocol = protocol
        self._extractor = Extractor(protocol.extractor, weights=weights, device=device)
        self.protocol_hash = content_hash(
            {
                "protocol": dataclasses.asdict(protocol),
                **self._extractor.identity,
                "clean-fid": importlib.metadata.version("clean-fid"),
            }
        )

    def features(self, images: NDArray[Any]) -> Features:
        """As `Extractor.features`."""
        return self._extractor.features(images)

    def judge(self, given: Evidence) -> dict[str, float]:
        """Every registered metric on the evidence; without private features, those that need none.

        Raises:
            UserError: Features have different widths, or are not finite.
        """
        closed = given.private_features is None
        return {
            name: METRICS[name].compute(given)
            for name in METRICS
            if not (closed and "private_features" in METRICS[name].needs)
        }

    def judge_real(self, reference_features: Features, *, seed: int) -> tuple[dict[str, float], int]:
        """Judge some of the reference by the rest of it, as if a perfect generator had drawn them.

        The drawn side has `Protocol.num_images` images, or half of the reference where that is fewer. Metrics of
        features alone are computed. The Fréchet distance falls with the number of images, so that more samples, or a
        whole reference, score less.

        Args:
            reference_features: (M, d) from `features`, M at least 4.
            seed: Fixes which images are drawn.

        Returns:
            Metric to number, and how many images the drawn side has.

        Raises:
            UserError: There are too few images, or the features are not finite.
        """
        count = len(reference_features)
        drawn = min(self.protocol.num_images, count // 2)
        if drawn < 2:
            raise UserError(f"reference of {count} images: expected at least 4, to judge one half by the other")
        order = np.random.default_rng(seed).permutation(count)
        halves = Evidence(
            generated_features=reference_features[order[:drawn]], reference_features=reference_features[order[drawn:]]
        )
        return {name: METRICS[name].compute(halves) for name in METRICS if METRICS[name].needs == {"features"}}, drawn
