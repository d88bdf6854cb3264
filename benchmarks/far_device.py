"""A device that is not there: tensors on it are computed on the CPU, and every operator and every wait is counted.

It stands for a GPU where none is: it refuses what a GPU refuses (tensors of two devices in one operator), and knows at
which operators the host has to wait for a GPU. It is torch's "lazy" device, of which torch has only the name.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

NAME = "lazy"
# On CUDA these read a number before they go on: how large the result is, or whether the input was in order.
WAITING = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}  # the second argument is a list
# What computes nothing, besides views.
NOTHING = {"detach", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "new_empty_strided"}
NOTHING |= {"promote_types", "_reshape_alias", "_unsafe_view", "alias", "_local_scalar_dense", "_linalg_check_errors"}


class FarTensor(Tensor):
    """A tensor on the device that is not there.

    Args:
        numbers: on the CPU.
    """

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "FarTensor":
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=torch.device(NAME),
        )
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:
        return f"FarTensor({self.numbers!r})"

    def tolist(self) -> Any:
        """As of any tensor; torch's own refuses subclasses."""
        return self.to("cpu").tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of `far_device()`")


class FarDevice(TorchDispatchMode):
    """While it is on, `device="lazy"` is a device; see `far_device`."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[tuple[str, str]] = Counter()
        """How often each operator ran on the device, by part and name; views and allocations left out."""
        self.waits: Counter[str] = Counter()
        """At which operators the host waited for the device, and how often."""
        self.copies = 0
        """Tensors copied between host and device."""
        self.part = ""
        self.counting = True
        self.pinned: set[int] = set()

    def clear(self) -> None:
        """Count from 0."""
        self.operators.clear()
        self.waits.clear()
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        far = [each for each in tensors if isinstance(each, FarTensor)]
        asked = kwargs.get("device")
        to_far = bool(far) if asked is None else torch.device(asked).type == NAME
        if to_far and asked is not None:
            kwargs["device"] = torch.device("cpu")
        if name == "is_pinned":
            return False
        self._refuse_mixtures(name, tensors, far)
        self._count(func, name, args, kwargs, far, to_far)
        plain_args, plain_kwargs = tree_map_only(FarTensor, lambda each: each.numbers, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func._schema.is_mutable:
            return _same(args, kwargs, plain_args, plain_kwargs, result)
        return tree_map_only(Tensor, FarTensor, result) if to_far else result

    def _refuse_mixtures(self, name: str, tensors: list[Tensor], far: list[FarTensor]) -> None:
        near = [each for each in tensors if not isinstance(each, FarTensor) and each.ndim]
        if far and near and name not in INDEXING | {"copy_", "_to_copy"}:
            raise RuntimeError(f"{name} of tensors on the CPU {[tuple(each.shape) for each in near]} and on a device")

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, far: list[FarTensor], to_far: bool) -> None:
        if not self.counting or (not far and not to_far):
            return
        indices = [each for each in args[1] if each is not None] if name in INDEXING else []
        masks = any(each.dtype in (torch.bool, torch.uint8) for each in indices)
        crossing = name == "_to_copy" and to_far != bool(far)
        crossing |= name == "copy_" and isinstance(args[0], FarTensor) != isinstance(args[1], FarTensor)
        crossing |= any(not isinstance(each, FarTensor) for each in indices)
        self.copies += crossing
        source = args[1] if name == "copy_" else args[0] if args else None
        free = to_far and id(source) in self.pinned and (kwargs.get("non_blocking") or True in args[2:])
        if name in WAITING or masks or (crossing and not free):
            self.waits[f"{name}{' to the device' if crossing and to_far else ''}"] += 1
        if name not in NOTHING and not (func.is_view or crossing):
            self.operators[self.part, name] += 1


def _same(args: Any, kwargs: Any, plain_args: Any, plain_kwargs: Any, result: Any) -> Any:
    """What an operator that writes into its arguments returned: these arguments, no other tensors."""
    pairs = zip(tree_iter((args, kwargs)), tree_iter((plain_args, plain_kwargs)), strict=True)
    given = {id(plain): own for own, plain in pairs}
    return tree_map_only(Tensor, lambda each: given.get(id(each), each), result)


@contextmanager
def far_device(*pinning: Any) -> Iterator[FarDevice]:
    """The device, as long as the block lasts.

    Args:
        pinning: names of sets of device types to which the code under test sends from pinned memory, such as
            "package.module.PINNED_FOR".
    """
    device = FarDevice()

    def pinned(tensor: Tensor, *_: Any) -> Tensor:
        copy = tensor.clone()
        device.pinned.add(id(copy))
        kept.append(copy)  # or its id might be another tensor's
        return copy

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        made = plain_tensor(*args, **kwargs)
        return made if device is None else made.to(device)

    def new_tensor(own: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor(*args, **{"dtype": own.dtype, "device": own.device, **kwargs})

    kept: list[Tensor] = []
    plain_tensor = torch.tensor  # it makes its result in C++, out of reach of the mode
    patches: list[Any] = [
        mock.patch.object(Tensor, "pin_memory", pinned),
        mock.patch.object(Tensor, "new_tensor", new_tensor),
        mock.patch.object(torch, "tensor", tensor),
    ]
    fused_on = [*_get_fused_kernels_supported_devices(), NAME]
    for module in ("torch.optim.adam", "torch.optim.optimizer"):
        with suppress(AttributeError):  # which of them asks differs between versions
            patch = mock.patch(f"{module}._get_fused_kernels_supported_devices", return_value=fused_on)
            patch.get_original()
            patches.append(patch)
    patches += [mock.patch(name, frozenset({NAME})) for name in pinning]
    for patch in patches:
        patch.start()
    try:
        with device:
            yield device
    finally:
        for patch in patches:
            patch.stop()
