"""Compositing in plain PyTorch: the definition that every faster version is compared with."""

import torch
from jaxtyping import Float
from torch import Tensor


def composite_reference(
    opacity: Float[Tensor, "*rays S"], absorbance: Float[Tensor, "*rays S"]
) -> Float[Tensor, "*rays"]:
    """See `composite`."""
    passed = torch.cumprod(1.0 - opacity, dim=-1)
    transmittance = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)
    return (transmittance * opacity * (1.0 - absorbance)).sum(dim=-1)
