"""The highest ceiling: all weights of the model, fine-tuned on the private records without any privacy.

What it gains over `nonprivate_lora` is the price of the LoRA's rank and frozen A. It is the descent of `dp_sgd` without
clipping and noise. Its rows are marked non-private and are never bold. It memorises few records sooner than a LoRA
does, and then need not do better on others.
"""

from dataclasses import dataclass

from dphyper.bench.method import About, Options
from dphyper.methods.nonprivate_lora import NonprivateLoRA, NonprivateOptions
from dphyper.targets.target import Target


@dataclass(frozen=True, kw_only=True)
class NonprivateFullOptions(NonprivateOptions):
    """`NonprivateOptions`, with smaller steps: so many weights soon memorise few records."""

    learning_rate: float = 5e-4


class NonprivateFull(NonprivateLoRA):
    """All weights by Adam on the plain gradients."""

    label = "Non-private, all weights"
    colour = "#882255"
    marker = "p"
    order = 70
    about = About(
        source="Ordinary fine-tuning of all weights.",
        public_data="None beyond the base model.",
        private_release="Nothing: gradients are neither clipped nor noised.",
        passes="q T K gradients.",
    )
    options_type = NonprivateFullOptions
    quick_options = {"steps": 1, "sampling_prob": 0.1, "multiplicity": 1, "learning_rate": 0.01}

    def __init__(self, target: Target, options: Options, *, embedding_dim: int) -> None:
        super().__init__(target.all_weights(), options, embedding_dim=embedding_dim)
