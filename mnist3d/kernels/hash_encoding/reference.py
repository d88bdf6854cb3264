"""The hash encoding in plain PyTorch: the definition that every faster version is compared with."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .layout import HashLevels

PRIMES = (1, 2654435761, 805459861)  # tiny-cuda-nn, grid.h, "coherent prime hash"


def hash_encode_reference(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "T F"], levels: HashLevels
) -> Float[Tensor, "P LF"]:
    """See `hash_encode`."""
    encoded = []
    for level, scale in enumerate(levels.scales):
        position = points * scale + 0.5
        cell = position.detach().floor()
        fraction = position - cell
        # (P, axis, low and high)
        x, y, z = torch.stack([1.0 - fraction, fraction], dim=-1).unbind(dim=1)
        i, j, k = torch.stack([cell, cell + 1.0], dim=-1).long().unbind(dim=1)
        entry = corner_entries(i[:, None, None, :], j[:, None, :, None], k[:, :, None, None], levels, level)
        weight = x[:, None, None, :] * y[:, None, :, None] * z[:, :, None, None]
        # not table[entry]: its gradient is summed by several threads in any order, and reruns would differ
        values = F.embedding(entry.flatten(1), table)
        encoded.append((weight.flatten(1)[:, None, :] @ values)[:, 0])
    return torch.cat(encoded, dim=-1)


def corner_entries(
    i: Int[Tensor, "..."], j: Int[Tensor, "..."], k: Int[Tensor, "..."], levels: HashLevels, level: int
) -> Int[Tensor, "..."]:
    """Rows of the table that the corners (x i, y j, z k) of one level read."""
    size, resolution = levels.sizes[level], levels.resolutions[level]
    if levels.hashed[level]:
        # The low bits of a product and of an xor depend on low bits alone, so 64 bits and 32 give the same.
        index = (i * PRIMES[0]) ^ (j * PRIMES[1]) ^ (k * PRIMES[2])
    else:
        index = i + resolution * (j + resolution * k)
    return index % size + levels.offsets[level]
