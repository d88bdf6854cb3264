"""The loop and the reasons.

What it is: the trainer, what it reports, the discriminator, and in `objectives/` the reasons why a volume moves.
What it is not: it prints nothing, writes nothing and knows no run directory; callbacks do.
"""

from .discriminator import Discriminator, DiscriminatorOptions
from .options import TrainerOptions
from .report import StepReport
from .trainer import Callback, Trainer

__all__ = ["Callback", "Discriminator", "DiscriminatorOptions", "StepReport", "Trainer", "TrainerOptions"]
