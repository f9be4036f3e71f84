"""PrivImage: a noisy query finds the public tasks that private records resemble, and warms the LoRA up on these.

Each record votes, by public features of its own, for the public tasks whose centroids are nearest. The noisy votes
choose tasks, whose images warm up the LoRA; DP-SGD spends the rest. Li et al. 2024, arXiv:2311.12850.

Departures: the semantic classes are public tasks, and no classifier is trained. A vote has l2 norm 1, which is the
mechanism's sensitivity, where the paper adds √w. The noise comes from the harness, where published code seeds it just
before it is drawn. Where no task stands out of the noise, the noise chooses, and nothing in the output shows it.

Shapes: b records of a chunk, T public tasks, F features, N images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.methods.fitting import PublicFeatures, vote_for_nearest
from dphyper.methods.warm_start import Query, WarmStart, WarmStartOptions
from dphyper.privacy.mechanisms import NoisyHistogram
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True)
class PrivImageOptions(WarmStartOptions):
    """Hyper-parameters of `PrivImage`.

    Attributes:
        votes: w, nearest tasks that a record votes for, each with 1/√w.
        selected: Number of tasks, those with the most votes, whose images warm the LoRA up; each has the same weight.
        centroid_images: Images of each task over which its centroid is averaged.
    """

    votes: int = 4
    selected: int = 16
    centroid_images: int = 16


class PrivImage(WarmStart):
    """A vote for public tasks, training on their images, then DP-SGD."""

    label = "PrivImage"
    colour = "#332288"
    marker = "v"
    order = 230
    about = About(
        source="PrivImage, Li et al. 2024 (USENIX Security, arXiv:2311.12850).",
        public_data="The images of the public tasks with the most votes warm the LoRA up.",
        private_release="A histogram of votes of norm 1 for public tasks, which takes `query_share` of 1/σ²; then "
        "DP-SGD.",
        passes="1 forward pass, then q T K gradients.",
        departures="Semantic classes are the public tasks; no classifier is trained. Repaired: the noise of the query "
        "is secret, where published code seeds it just before it is drawn.",
    )
    options_type = PrivImageOptions
    quick_options = {"steps": 2, "multiplicity": 1, "fit_steps": 2, "fit_batch_size": 8, "centroid_images": 4}
    _options: PrivImageOptions

    @classmethod
    def unscaled_query(cls, options: PrivImageOptions) -> NoisyHistogram:
        """One histogram with a bin for each public task."""
        return NoisyHistogram()

    def ask(self, private: PrivateData, query: Query, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images of the tasks with the most votes, each task with the same weight."""
        assert isinstance(query, NoisyHistogram)
        public = self.public
        numpy_rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=rng)))
        rows = [np.resize(numpy_rng.permutation(task), self._options.centroid_images) for task in public.tasks]
        features = PublicFeatures(self.target, public.records[torch.from_numpy(np.concatenate(rows))])
        centroids_TF = features.features_NF.unflatten(0, (len(public.tasks), -1)).mean(1)
        votes = min(self._options.votes, len(centroids_TF))
        counts_T = private.release_histogram(
            lambda x, rng: vote_for_nearest(features(x), centroids_TF, votes), query, role="votes for public tasks"
        )
        chosen = counts_T.topk(min(self._options.selected, len(counts_T))).indices.tolist()
        tasks = [torch.from_numpy(public.tasks[task]) for task in chosen]
        weights_N = torch.cat([torch.full((len(task),), 1 / len(task)) for task in tasks])
        return public.records[torch.cat(tasks)], weights_N
