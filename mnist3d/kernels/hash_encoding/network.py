"""The small network behind the encoding: matrices without biases, ReLU between them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2048  # points whose layers fit a CPU core's own cache


def network(encoded: Float[Tensor, "P in"], weights: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "P _"]:
    """weights[-1] relu(... relu(weights[0] encoded)), on any device, in any float dtype.

    Gradients:
        To encoded and weights, any number of times.
    """
    for weight in weights[:-1]:
        encoded = F.relu(F.linear(encoded, weight))
    return F.linear(encoded, weights[-1])


def network_in_chunks(encoded: Float[Tensor, "P in"], weights: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "P _"]:
    """The same for a CPU: some thousand points at a time go through all layers, once more in backward.

    Layers of many thousand points would be written to and read from memory, which costs more than computing them.

    Gradients:
        To encoded and weights, once: the result of backward has no graph.
    """
    return _InChunks.apply(encoded, *weights)  # type: ignore[return-value]


class _InChunks(torch.autograd.Function):
    # Under autocast the results would be of 16 bits and would not fit the places that are written to.
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, encoded: Tensor, *weights: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(encoded, *weights)
        out = encoded.new_empty(len(encoded), len(weights[-1]))
        for part, place in zip(encoded.split(CHUNK), out.split(CHUNK), strict=True):
            torch.mm(_layers(part, weights)[-1], weights[-1].mT, out=place)
        return out

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        encoded, *weights = ctx.saved_tensors
        to_weights = [torch.zeros_like(weight) for weight in weights]
        to_encoded = torch.empty_like(encoded)
        parts = (encoded.split(CHUNK), upstream.split(CHUNK), to_encoded.split(CHUNK))
        for part, gradient, place in zip(*parts, strict=True):
            layers = _layers(part, weights)
            for level in range(len(weights) - 1, -1, -1):
                to_weights[level].addmm_(gradient.mT, layers[level])
                if level:
                    # relu's own derivative: a mask and a product take ten times as long
                    gradient = torch.ops.aten.threshold_backward(gradient @ weights[level], layers[level], 0)
            torch.mm(gradient, weights[0], out=place)
        return to_encoded, *to_weights


def _layers(encoded: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """What each matrix is applied to."""
    layers = [encoded]
    for weight in weights[:-1]:
        layers.append((layers[-1] @ weight.mT).relu_())
    return layers
