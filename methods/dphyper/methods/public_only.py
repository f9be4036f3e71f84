"""The floor: the public base model, which uses nothing private.

It is the same at every ε. A method that does not beat it has learned nothing from the private records.
"""

import torch

from dphyper.bench.method import About, Adaptation, Method
from dphyper.privacy.budget import Budget
from dphyper.privacy.private_data import PrivateData


class PublicOnly(Method):
    """θ of the base model; spends no budget."""

    label = "Public only"
    colour = "#6E6E6E"
    marker = "P"
    order = 50
    role = "floor"
    about = About(
        source="The public base model.",
        public_data="None.",
        private_release="Nothing.",
        passes="None.",
    )
    uses = frozenset({"task", "seed", "n"})  # n moves the reference, not the model

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Return the base model's parameters."""
        return Adaptation(theta=self.target.initial())
