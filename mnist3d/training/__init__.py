"""The loop and the reasons.

The trainer, what it reports, the discriminator, and in `objectives/` the reasons why a volume moves. Printing and
writing are left to callbacks.
"""

from .discriminator import Discriminator, DiscriminatorOptions
from .options import TrainerOptions
from .report import StepReport
from .trainer import Callback, Trainer

__all__ = ["Callback", "Discriminator", "DiscriminatorOptions", "StepReport", "Trainer", "TrainerOptions"]
