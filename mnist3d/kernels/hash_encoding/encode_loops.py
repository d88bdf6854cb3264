"""The compiled inner loops of the hash encoding. Imports numba; import it lazily.

One level at a time over blocks of points: first where each point's cell begins and where the point lies in it (loops
without branches, which the compiler turns into SIMD), then the eight corners. A block's places stay in the first
cache, and one level's table in the second.

Indices are uint32 and wrap as tiny-cuda-nn's do. A hashed table has a power of two entries, so the remainder is a
mask. A dense index exceeds its table by less than the table's size (layout.py), so one subtraction is the remainder.
"""

from typing import Any

import numpy as np

from ..numba_runtime import compiled, compiled_inline

BLOCK = 248  # points; a power of two would put a block's rows into the same lines of the cache


@compiled
def place(points, begin, end, scale, cell, fraction):
    """The cell of points[begin:end] in one level, and the place within it."""
    half = scale.dtype.type(0.5)
    for axis in range(3):
        for k in range(end - begin):
            position = points[begin + k, axis] * scale[0] + half
            low = np.int32(position)  # positions are positive, so this is the floor
            cell[axis, k] = np.uint32(low)
            fraction[axis, k] = position - fraction.dtype.type(low)


@compiled
def corner_rows(cell, count, resolution, size, hashed, rows):
    """rows[c, k]: the table entry of corner c (bit 0: x, 1: y, 2: z) of point k; the first of the level is 0."""
    one = np.uint32(1)
    if hashed:
        mask = np.uint32(size - one)
        for k in range(count):
            x0, x1 = cell[0, k], cell[0, k] + one
            y0 = cell[1, k] * np.uint32(2654435761)
            y1 = y0 + np.uint32(2654435761)
            z0 = cell[2, k] * np.uint32(805459861)
            z1 = z0 + np.uint32(805459861)
            a, b, c, d = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
            rows[0, k], rows[1, k] = (x0 ^ a) & mask, (x1 ^ a) & mask
            rows[2, k], rows[3, k] = (x0 ^ b) & mask, (x1 ^ b) & mask
            rows[4, k], rows[5, k] = (x0 ^ c) & mask, (x1 ^ c) & mask
            rows[6, k], rows[7, k] = (x0 ^ d) & mask, (x1 ^ d) & mask
    else:
        plane = np.uint32(resolution * resolution)
        for corner in range(8):
            step = np.uint32(corner & 1) + np.uint32(corner >> 1 & 1) * resolution + np.uint32(corner >> 2) * plane
            for k in range(count):
                row = cell[0, k] + cell[1, k] * resolution + cell[2, k] * plane + step
                rows[corner, k] = row - size if row >= size else row


@compiled_inline
def _workspace(points):
    return np.empty((3, BLOCK), np.uint32), np.empty((3, BLOCK), points.dtype), np.empty((8, BLOCK), np.uint32)


@compiled_inline
def _weights(fraction, k):
    one = fraction.dtype.type(1.0)
    x, y, z = fraction[0, k], fraction[1, k], fraction[2, k]
    u, v, w = one - x, one - y, one - z
    a, b, c, d = v * w, y * w, v * z, y * z
    return u * a, x * a, u * b, x * b, u * c, x * c, u * d, x * d


def loops_for(features: int) -> tuple[Any, Any, Any]:
    """The loops over one level for a fixed number of features, which the compiler unrolls.

    Returns:
        read(points, table, scale, resolution, hashed, out), fill; add(points, to_table, ..., upstream), add to a zeroed
        table; slope(points, table, ..., upstream, to_points), add. `table` is one level's, `out` and `upstream`
        are one level's columns, `scale` is an array of one number, which keeps its dtype.
    """

    @compiled
    def read(points, table, scale, resolution, hashed, out):
        cell, fraction, rows = _workspace(points)
        for begin in range(0, len(points), BLOCK):
            count = min(BLOCK, len(points) - begin)
            place(points, begin, begin + count, scale, cell, fraction)
            corner_rows(cell, count, resolution, np.uint32(len(table)), hashed, rows)
            for k in range(count):
                a, b, c, d, e, f, g, h = _weights(fraction, k)
                for i in range(features):
                    out[begin + k, i] = (
                        a * table[rows[0, k], i] + b * table[rows[1, k], i]
                        + c * table[rows[2, k], i] + d * table[rows[3, k], i]
                        + e * table[rows[4, k], i] + f * table[rows[5, k], i]
                        + g * table[rows[6, k], i] + h * table[rows[7, k], i]
                    )  # fmt: skip

    @compiled
    def add(points, to_table, scale, resolution, hashed, upstream):
        cell, fraction, rows = _workspace(points)
        for begin in range(0, len(points), BLOCK):
            count = min(BLOCK, len(points) - begin)
            place(points, begin, begin + count, scale, cell, fraction)
            corner_rows(cell, count, resolution, np.uint32(len(to_table)), hashed, rows)
            for k in range(count):
                a, b, c, d, e, f, g, h = _weights(fraction, k)
                for i in range(features):
                    value = upstream[begin + k, i]
                    to_table[rows[0, k], i] += a * value
                    to_table[rows[1, k], i] += b * value
                    to_table[rows[2, k], i] += c * value
                    to_table[rows[3, k], i] += d * value
                    to_table[rows[4, k], i] += e * value
                    to_table[rows[5, k], i] += f * value
                    to_table[rows[6, k], i] += g * value
                    to_table[rows[7, k], i] += h * value

    @compiled
    def slope(points, table, scale, resolution, hashed, upstream, to_points):
        one = scale.dtype.type(1.0)
        cell, fraction, rows = _workspace(points)
        for begin in range(0, len(points), BLOCK):
            count = min(BLOCK, len(points) - begin)
            place(points, begin, begin + count, scale, cell, fraction)
            corner_rows(cell, count, resolution, np.uint32(len(table)), hashed, rows)
            for k in range(count):
                x, y, z = fraction[0, k], fraction[1, k], fraction[2, k]
                u, v, w = one - x, one - y, one - z
                p, q, r = one - one, one - one, one - one
                for i in range(features):
                    a, b = table[rows[0, k], i], table[rows[1, k], i]
                    c, d = table[rows[2, k], i], table[rows[3, k], i]
                    e, f = table[rows[4, k], i], table[rows[5, k], i]
                    g, h = table[rows[6, k], i], table[rows[7, k], i]
                    value = upstream[begin + k, i] * scale[0]
                    p += value * (w * (v * (b - a) + y * (d - c)) + z * (v * (f - e) + y * (h - g)))
                    q += value * (w * (u * (c - a) + x * (d - b)) + z * (u * (g - e) + x * (h - f)))
                    r += value * (v * (u * (e - a) + x * (f - b)) + y * (u * (g - c) + x * (h - d)))
                to_points[begin + k, 0] += p
                to_points[begin + k, 1] += q
                to_points[begin + k, 2] += r

    return read, add, slope
