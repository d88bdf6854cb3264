"""The hash encoding and its network on an NVIDIA GPU by tinycudann, fed with our own parameters.

Our parameters in the order and padding of tiny-cuda-nn, its module called with them, and a gradient that half
precision neither loses nor overflows. tinycudann is imported at the first call. Nothing here has been run against the
real tinycudann yet: docs/hash_grid.md says how.
"""

import importlib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from .layout import HashLevels

PADDED_TO = 16  # inputs and outputs of the fully fused network
FUSED_WIDTHS = (16, 32, 64, 128)
# Its encoding alone is transposed by blocks of 8 threads for each number of a point, and a block holds 1,024.
WIDEST_IN_FULL = 128
# The largest upstream gradient is scaled to this: far above half precision's smallest number (6e-8), and with room
# below its largest (65,504) for sums of its products over many points, which tiny-cuda-nn keeps in half precision too.
# With 2^7 two steps of three overflowed and were computed twice; with 2^3 none did, and gradients were as accurate
# (tiny-cuda-nn's arithmetic evaluated on a CPU). Where that room does not do all the same, less is tried.
TARGET, FALL, TRIES = 2.0**3, 2.0**-4, 5


def can_fuse(hidden_dim: int, num_layers: int) -> bool:
    """Whether the fully fused network exists for this shape."""
    return hidden_dim in FUSED_WIDTHS and num_layers >= 2


def pack(weights: Sequence[Float[Tensor, "_ _"]], table: Float[Tensor, "T F"]) -> Float[Tensor, " N"]:
    """All parameters as the flat vector of `NetworkWithInputEncoding`.

    The network's matrices first, row by row (out, in), the first one's columns and the last one's rows padded with
    zeros to a multiple of 16; then the table, level by level, entry by entry.

    Gradients:
        To weights and table; the padding's are dropped.

    Source:
        tiny-cuda-nn, `network_with_input_encoding.h` (set_params), `fully_fused_mlp.cu` (set_params), `grid.h`.
    """
    first, *middle, last = weights
    first = F.pad(first, (0, -first.shape[1] % PADDED_TO))
    last = F.pad(last, (0, 0, 0, -last.shape[0] % PADDED_TO))
    return torch.cat([part.reshape(-1) for part in (first, *middle, last, table)])


def unpack(
    packed: Float[Tensor, " N"], shapes: Sequence[tuple[int, int]], levels: HashLevels
) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, "T F"]]:
    """The inverse of `pack`.

    Args:
        packed: such as the `params` of a trained `NetworkWithInputEncoding`.
        shapes: (out, in) of each matrix, without padding.
        levels: of the table.

    Raises:
        ValueError: the vector has another length than these shapes.
    """
    padded = [list(shape) for shape in shapes]
    padded[0][1] += -padded[0][1] % PADDED_TO
    padded[-1][0] += -padded[-1][0] % PADDED_TO
    lengths = [rows * columns for rows, columns in padded] + [levels.entries * levels.features_per_level]
    if sum(lengths) != packed.numel():
        raise ValueError(f"{packed.numel()} parameters: these shapes have {sum(lengths)}")
    *matrices, table = packed.split(lengths)
    cut = zip(matrices, padded, shapes, strict=True)
    weights = [matrix.reshape(*size)[: shape[0], : shape[1]].clone() for matrix, size, shape in cut]
    return weights, table.reshape(levels.entries, levels.features_per_level).clone()


def encode_and_evaluate(
    points: Float[Tensor, "P 3"],
    table: Float[Tensor, "T F"],
    weights: Sequence[Float[Tensor, "_ _"]],
    levels: HashLevels,
) -> Float[Tensor, "P _"]:
    """The encoding and the network in one fused half-precision call; ReLU between layers, no biases.

    Args:
        points: in [0, 1], on a CUDA device.
        table: float32.
        weights: of a network that `can_fuse`.
        levels: of the encoding.

    Returns:
        float32.

    Gradients:
        To all three, once: the result of backward has no graph. See `scaled_gradient`.
    """
    out, (width, _) = len(weights[-1]), weights[0].shape
    module = _fused(levels, width, len(weights) - 1, out, str(points.device))
    return _Fused.apply(module, points, pack(weights, table))  # type: ignore[return-value]


def encode_in_full_precision(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "T F"], levels: HashLevels
) -> Float[Tensor, "P LF"]:
    """tinycudann's encoding alone, in float32; the network is then PyTorch's.

    Gradients:
        To points and table, once.
    """
    return _Fused.apply(_encoding(levels, str(points.device)), points, table.reshape(-1))  # type: ignore[return-value]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: Any, points: Tensor, params: Tensor) -> Tensor:  # type: ignore[override]
        ctx.inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip((points, params), ctx.needs_input_grad[1:], strict=True)
        ]
        with torch.enable_grad():
            ctx.output = functional_call(module, {"params": ctx.inputs[1]}, (ctx.inputs[0],))
        return ctx.output.detach().float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        wanted = [tensor for tensor in ctx.inputs if tensor.requires_grad]
        found = iter(scaled_gradient(ctx.output, wanted, upstream))
        return None, *(next(found) if tensor.requires_grad else None for tensor in ctx.inputs)


def scaled_gradient(output: Tensor, inputs: Sequence[Tensor], upstream: Float[Tensor, "P out"]) -> list[Tensor]:
    """torch.autograd.grad with an upstream gradient that is scaled to fit the output's precision.

    autograd casts the upstream gradient to the output's dtype before any loss scale of tinycudann's is applied, so that
    gradients below 6e-8 would be lost. Here they are multiplied first, in float32, by a power of two that makes the
    largest about 8, and the results divided by it. Where a sum overflows all the same, a sixteenth of that is tried,
    up to four times.

    Args:
        output: of any precision, with its graph.
        inputs: float32, which the gradients go to.
        upstream: float32.
    """
    if output.dtype != torch.float16:
        return list(torch.autograd.grad(output, inputs, upstream.to(output.dtype).contiguous()))
    largest = float(upstream.abs().max())
    if largest == 0.0 or not math.isfinite(largest):
        return [torch.full_like(tensor, largest) if largest else torch.zeros_like(tensor) for tensor in inputs]
    scale = 2.0 ** math.floor(math.log2(TARGET / largest))
    gradients: list[Tensor] = []
    for _ in range(TRIES):
        # tinycudann reads memory and knows no strides
        scaled = (upstream * scale).to(output.dtype).contiguous()
        gradients = list(torch.autograd.grad(output, inputs, scaled, retain_graph=True))
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            break
        scale *= FALL
    return [gradient / scale for gradient in gradients]


@lru_cache(maxsize=8)
def _fused(levels: HashLevels, width: int, hidden_layers: int, out: int, device: str) -> Any:
    network = {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": width,
        "n_hidden_layers": hidden_layers,
    }
    with _on(device):
        module = importlib.import_module("tinycudann").NetworkWithInputEncoding(3, out, _config(levels), network)
    return _emptied(module)


@lru_cache(maxsize=8)
def _encoding(levels: HashLevels, device: str) -> Any:
    with _on(device):
        module = importlib.import_module("tinycudann").Encoding(3, _config(levels), dtype=torch.float32)
    return _emptied(module)


def _on(device: str) -> Any:
    """tinycudann builds on the current GPU; the tests' stand-in for it computes on the CPU."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def _emptied(module: Any) -> Any:
    """Without tinycudann's own parameters and loss scale; ours are handed in at every call."""
    module.params = torch.nn.Parameter(module.params.detach()[:0].clone(), requires_grad=False)
    module.loss_scale = 1.0
    return module


def _config(levels: HashLevels) -> dict[str, Any]:
    return {
        "otype": "HashGrid",
        "n_levels": levels.num_levels,
        "n_features_per_level": levels.features_per_level,
        "log2_hashmap_size": levels.log2_hashmap_size,
        "base_resolution": levels.base_resolution,
        "per_level_scale": levels.growth,
        "interpolation": "Linear",
    }
