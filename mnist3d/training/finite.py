"""Numbers that are not finite in what a trainer holds: NaN never belongs there, infinity only where a run began so."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

MAX_DEPTH = 100  # of values within values that a file holds


def each_value(values: Any, name: str = "", most: int | None = None) -> Iterator[tuple[str, Any]]:
    """All that stands in nested mappings, lists and tuples, by its dotted name: "volume_optimiser.state.0.step".

    Args:
        values: such as the state of a trainer.
        name: of the whole.
        most: how many values there may be, mappings and lists counted too; None: any number, as deep as it goes.

    Raises:
        ValueError: there are more, or without an end.
    """
    waiting, count = [(name, values, 0)], 0
    while waiting:
        count += 1
        name, value, depth = waiting.pop()
        if most is not None and (count > most or depth > MAX_DEPTH):
            raise ValueError(f"holds more than {most:,} values, or more than {MAX_DEPTH} within each other")
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list | tuple):
            inner = list(enumerate(value))
        else:
            yield name, value
            continue
        waiting += [(f"{name}.{key}" if name else f"{key}", each, depth + 1) for key, each in reversed(inner)]


@torch.no_grad()
def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite; one synchronisation with each device, however many tensors.

    Of huge numbers the sum of squares may overflow: then the answer is no, and a look at each number decides.
    """
    places: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for each in map(_real, tensors):
        if each.is_floating_point():
            places.setdefault((each.device, each.dtype), []).append(each)
    sums: dict[torch.device, list[Tensor]] = {}
    for (device, dtype), group in places.items():
        if dtype == torch.float16:  # of which that sum soon is too large
            group = [each.float() for each in group]
        norms = torch._foreach_norm(group, 2)  # pyright: ignore[reportPrivateImportUsage]
        sums.setdefault(device, []).extend(norm.float() for norm in norms)
    return all(math.isfinite(norm) for group in sums.values() for norm in torch.stack(group).tolist())


class Infinities:
    """How many numbers of each tensor were infinite when a run began: empty voxels of a file are -inf for good, as
    attenuation 0 is softplus(-inf). What Adam keeps for them is 0.

    Args:
        state: of `Trainer.state_dict`.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        tensors = [(name, value) for name, value in each_value(state) if isinstance(value, Tensor)]
        seldom = [(name, value) for name, value in tensors if not finite([value])]
        self.at_first = {name: _infinite(value) for name, value in seldom}

    def wrong_with(self, name: str, value: Tensor | float) -> str | None:
        """What is wrong with a tensor or a number: "holds 12 NaN"; None if nothing is."""
        tensor = torch.as_tensor(value)
        if not_numbers := int(tensor.isnan().sum()):
            return f"holds {not_numbers:,} NaN"
        if (more := _infinite(tensor) - self.at_first.get(name, 0)) > 0:
            return f"holds {more:,} Inf"
        return None

    def wrong_in(self, state: dict[str, Any]) -> str | None:
        """The first tensor or number of a state that has no place in a file: "volume.table holds 12 NaN"; or None."""
        values = [(name, value) for name, value in each_value(state) if isinstance(value, Tensor | float)]
        numbers = [value for _, value in values if isinstance(value, float)]
        if finite(value for _, value in values if isinstance(value, Tensor)) and all(map(math.isfinite, numbers)):
            return None
        return next((f"{name} {wrong}" for name, value in values if (wrong := self.wrong_with(name, value))), None)


def _infinite(tensor: Tensor) -> int:
    return int(tensor.isinf().sum())


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
