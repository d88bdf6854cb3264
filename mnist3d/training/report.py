"""What one step of training did, in numbers: for progress, files and the watchdog. The verdict is `diagnosis`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass
class StepReport:
    """What a step did.

    Args:
        step: steps done, this one included.
        progress: share of the run that is done, [0, 1].
        metrics: figures by name: "mean_brightness" of the views, and what each objective reports.
    """

    step: int
    progress: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A figure, or None where this run does not report it."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@torch.no_grad()
def as_numbers(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with numbers and lists of them in place of tensors; all tensors of a device are read at once.

    Args:
        figures: by name; tensors of one real number or of one row of them. Whole ones are exact up to 2^53.

    Raises:
        ValueError: a tensor of another shape or of complex numbers, or a list of tensors.
    """
    rows: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in figures.items():
        if isinstance(value, Tensor):
            if value.ndim > 1 or value.is_complex():
                kind = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
                raise ValueError(f"metric {name} is a tensor of {kind}: it must be one real number or a row of them")
            rows.setdefault(value.device, {})[name] = value
        elif isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            raise ValueError(f"metric {name} is a list of tensors: it must be one tensor; torch.stack makes it one")
    found = {name: numbers for row in rows.values() for name, numbers in _read(row).items()}
    return {name: found.get(name, value) for name, value in figures.items()}


def _read(row: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors of one device, in one transfer."""
    # Whole numbers are exact in double precision up to 2^53, and floating-point ones in that of the finest of them.
    parts = [value if value.is_floating_point() else value.to(_finest(value.device)) for value in row.values()]
    numbers, read, begin = torch.cat([part.reshape(-1) for part in parts]).tolist(), {}, 0
    for name, value in row.items():
        own = numbers[begin : begin + value.numel()]
        begin += value.numel()
        kind = float if value.is_floating_point() else bool if value.dtype == torch.bool else int
        own = [kind(number) for number in own]
        read[name] = own if value.ndim else own[0]
    return read


def _finest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


@torch.no_grad()
def variety(images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """One minus the mean correlation between two of the images.

        1 - mean over pairs a != b of <z_a, z_b>,   z = (image - its mean) / |image - its mean|

    0 when all show the same, whatever their brightness and contrast; about 1 when they have nothing in common.

    Args:
        images: two or more; an image without contrast has nothing in common with any.
    """
    flat = images.flatten(1)
    unit = F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
    count, total, every = len(unit), unit.sum(dim=0), unit.flatten()
    return 1.0 - (torch.dot(total, total) - torch.dot(every, every)) / (count * (count - 1))
