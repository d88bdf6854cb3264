"""The multi-resolution hash encoding: points of the unit cube -> features, in one operation.

A pure function of (points, table), with one contract for all implementations.
"""

from jaxtyping import Float
from torch import Tensor

from .implementations import numba_obstacle
from .layout import HashLevels
from .reference import hash_encode_reference


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
