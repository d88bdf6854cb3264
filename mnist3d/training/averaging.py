"""The averaged volume, which follows the trained one: an exponential moving average of its weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Average:
    """Moves an averaged module after the one that is trained.

    Args:
        averaged: a copy of the module, in whose precision the mean is kept.
        module: what is followed.

    A weight of -inf (an empty voxel of a volume from elsewhere) stays what it is instead of inf - inf. Whether there
    are any is looked up once, as training makes none: make another `Average` after other weights were loaded.
    """

    def __init__(self, averaged: nn.Module, module: nn.Module) -> None:
        self.averaged, self.module = averaged, module
        self._endless: bool | None = None

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """One step: mean = decay mean + (1 - decay) value; buffers are copied.

        Args:
            decay: [0, 1).
        """
        means: list[Tensor] = list(self.averaged.parameters())
        values = [value.to(mean.dtype) for mean, value in zip(means, self.module.parameters(), strict=True)]
        if self._endless is None:
            self._endless = _any_endless([*means, *values])
        if self._endless:
            for mean, value in zip(means, values, strict=True):
                mean.copy_(torch.where(mean == value, value, mean.lerp(value, 1.0 - decay)))
        elif means:
            torch._foreach_lerp_(means, values, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for mean, value in zip(self.averaged.buffers(), self.module.buffers(), strict=True):
            mean.copy_(value)


def _any_endless(tensors: Sequence[Tensor]) -> bool:
    return any(bool(tensor.isinf().any()) for tensor in tensors)
