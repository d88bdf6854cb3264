"""What a volume's weights begin with."""

import torch
from torch import Tensor


def scaled_normal(spread: float, *shape: int) -> Tensor:
    """`spread * torch.randn(shape)` on the default device, to the bit.

    On the meta device, where `load_volume` asks for shapes only, nothing is drawn: there a draw would import
    `torch._dynamo`, which costs every small export a second.
    """
    weights = torch.empty(shape)
    return weights if weights.is_meta else spread * weights.normal_()


def uniform(bound: float, *shape: int) -> Tensor:
    """Numbers from [-bound, bound) on the default device; on the meta device none, as above."""
    weights = torch.empty(shape)
    return weights if weights.is_meta else weights.uniform_(-bound, bound)
