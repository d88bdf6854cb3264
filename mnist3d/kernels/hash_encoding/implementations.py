"""The names of the implementations, and why one of them cannot be had here."""

import importlib
import importlib.util

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "torch", "numba", "tinycudann")


def require_implementation(wanted: str) -> None:
    """Refuse a name that is unknown or that cannot be had on this machine.

    Raises:
        ValueError: with the reason and what to do.
    """
    if wanted not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={wanted!r}: must be one of {', '.join(IMPLEMENTATIONS)}")
    if wanted == "numba" and (missing := numba_missing()):
        raise ValueError(f"implementation=numba: {missing}; pip install numba, or use implementation=auto")
    if wanted == "tinycudann" and (missing := tinycudann_obstacle()):
        raise ValueError(f"implementation=tinycudann: {missing}; see docs/hash_grid.md, or use implementation=auto")


def numba_missing() -> str | None:
    """Why numba cannot be imported, or None."""
    try:
        from .. import numba_runtime  # noqa: F401 - imports numba
    except Exception as error:  # whatever is raised while it is imported: of a NumPy it does not know, a lost library
        return f"numba cannot be imported ({' '.join(str(error).split())})"
    return None


def numba_obstacle(*tensors: Tensor) -> str | None:
    """Which tensor numba cannot take, or None."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"a tensor on {tensor.device}"
        if tensor.dtype != tensors[0].dtype or tensor.dtype not in (torch.float32, torch.float64):
            return f"a tensor of {tensor.dtype}"
    return None


def tinycudann_obstacle() -> str | None:
    """Why tinycudann cannot be used here, or None; imports it only where torch sees a GPU."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU here"
    if importlib.util.find_spec("tinycudann") is None:
        return "tinycudann is not installed"
    try:
        importlib.import_module("tinycudann")
    except Exception as error:  # built for another GPU, or against another torch
        return f"tinycudann cannot be imported ({' '.join(str(error).split())})"
    return None
