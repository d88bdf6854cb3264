"""The multi-resolution hash encoding: points of the unit cube -> features, in one operation.

A pure function of (points, table), with one contract for all implementations, and the choice among them.
`tiny_cuda_nn.py` beside it fuses the encoding with the network, and is asked for by name.
"""

import importlib.util
import logging

import torch
from jaxtyping import Float
from torch import Tensor

from .layout import HashLevels
from .reference import hash_encode_reference

IMPLEMENTATIONS = ("auto", "torch", "numba", "tinycudann")

_log = logging.getLogger(__name__)
_said: set[str] = set()


def hash_encode(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "T F"], levels: HashLevels, impl: str = "torch"
) -> Float[Tensor, "P LF"]:
    """Features of points of [0, 1]^3: of each level the trilinear mixture of eight table entries, side by side.

        encoded[:, l F : (l + 1) F] = sum over 8 corners c of weight_c(fraction) * table[offset_l + index_l(c)]

    with cells, fractions and indices as in `HashLevels`.

    Args:
        points: in [0, 1]; outside, the features are those of the nearest point inside; NaN counts as 0.
        table: `levels.entries` rows of F features, the levels one after the other.
        levels: resolutions and table sizes.
        impl: "torch" (any device and float dtype) or "numba" (CPU, float32 and float64,
            torch.get_num_threads() threads).

    Raises:
        ValueError: unknown `impl`, shapes that do not fit, or tensors that the chosen `impl` cannot take.
        ImportError: impl="numba" where that cannot be imported.

    Gradients:
        To points and table. Only impl="torch" can be differentiated twice.

    Source:
        Mueller et al. (2022), section 3, with tiny-cuda-nn's details: see `HashLevels`.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points have shape {tuple(points.shape)}: it must be (P, 3)")
    if table.shape != (levels.entries, levels.features_per_level):
        raise ValueError(
            f"table has shape {tuple(table.shape)}: these levels need {(levels.entries, levels.features_per_level)}"
        )
    # Tables hold what cells inside the unit cube read: an index from outside would lie in somebody else's memory.
    points = points.nan_to_num(0.0).clamp(0.0, 1.0)
    if impl == "torch":
        return hash_encode_reference(points, table, levels)
    if impl != "numba":
        raise ValueError(f"impl={impl!r}: must be one of torch, numba")
    if obstacle := numba_obstacle(points, table):
        raise ValueError(f"impl='numba' cannot take {obstacle}: tensors must be float32 or float64, on the CPU")
    from .encode_numba import hash_encode_numba

    return hash_encode_numba(points, table, levels)


def choose_implementation(wanted: str, table: Tensor) -> str:
    """torch, numba or tinycudann, for a table on its device; says once what "auto" took and why.

    Raises:
        ValueError: what is wanted by name cannot be had; the message says why and what to do.
    """
    if wanted == "auto":
        chosen, reason = "torch", ""
        if table.device.type == "cuda":
            # tinycudann computes in half and single precision; a table of another would silently lose its own
            missing = None if table.dtype == torch.float32 else f"the table is {table.dtype}"
            missing = missing or tinycudann_obstacle()
            chosen, reason = ("torch", f": {missing}") if missing else ("tinycudann", " on the GPU")
        elif table.device.type == "cpu":
            missing = numba_missing() or numba_obstacle(table)
            chosen, reason = ("torch", f": {missing}") if missing else ("numba", " on the CPU")
        if table.device.type != "meta":
            _say_once(f"HashGrid: implementation=auto takes {chosen}{reason}")
        return chosen
    require_implementation(wanted)
    if wanted == "numba" and (obstacle := numba_obstacle(table)):
        raise ValueError(f"implementation=numba cannot take {obstacle}: use implementation=auto, or device=cpu")
    if wanted == "tinycudann" and table.device.type != "cuda":
        raise ValueError(f"implementation=tinycudann needs a CUDA GPU, not {table.device}: use implementation=auto")
    return wanted


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
    except ImportError as error:  # also what numba raises for a NumPy it does not know
        return f"numba cannot be imported ({error})"
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
    except (ImportError, OSError, RuntimeError) as error:  # OSError: built for another GPU, or against another torch
        return f"tinycudann cannot be imported ({' '.join(str(error).split())})"
    return None


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _log.info(message)


__all__ = [
    "IMPLEMENTATIONS",
    "HashLevels",
    "choose_implementation",
    "hash_encode",
    "require_implementation",
    "tinycudann_obstacle",
]
