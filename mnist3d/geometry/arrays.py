"""Numbers as a user has them, tensors, NumPy arrays or lists, as tensors; and the precision they are computed in."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

ArrayOrList = ArrayLike | Sequence[Any] | float
"""NumPy's own word leaves out tuples and plain numbers where types are checked at run time."""


def as_tensor(name: str, numbers: Tensor | ArrayOrList, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor as it is; a copy of anything else, whatever its strides and byte order.

    Args:
        name: of the argument, for the message.
        numbers: float32 and float64 arrays keep their precision.
        dtype: of all else, such as a list; default torch's default.

    Raises:
        ValueError: no real numbers, lists of unequal length, or a list of tensors that NumPy cannot read.
    """
    if isinstance(numbers, Tensor):
        if numbers.is_complex():
            raise ValueError(f"{name} must be an array of numbers; this is {numbers.dtype}")
        return numbers
    try:
        array = np.asarray(numbers)
    except (RuntimeError, TypeError):  # they need a gradient, or lie on a GPU
        raise ValueError(f"{name} must be an array of numbers; make tensors in a list one by torch.stack") from None
    except ValueError:
        raise ValueError(f"{name} must be an array of numbers; these lists are of unequal length") from None
    if array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(numbers, np.ndarray) else type(numbers).__name__
        raise ValueError(f"{name} must be an array of numbers; this is {kind}")
    kept = isinstance(numbers, np.ndarray) and array.dtype.itemsize in (4, 8) and array.dtype.kind == "f"
    copied = np.array(array, dtype=array.dtype.newbyteorder("=") if kept else np.float64)
    tensor = torch.from_numpy(copied)
    return tensor if kept else tensor.to(dtype or torch.get_default_dtype())


def computed(tensor: Tensor) -> Tensor:
    """The tensor in the precision that is computed in: its own, but float32 for 16 bits, which only store."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A block that takes no part in `torch.autocast`: of the 8 bits of bfloat16 no place on a ray can be told.

    Args:
        like: of the device that computes.
    """
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()
