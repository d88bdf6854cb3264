"""Compiled: the padded layout of the "slices" renderer and back. Imports numba; import it lazily."""

import math

from ..numba_runtime import compiled


@compiled
def _share(p, q, r, shape):
    """`shear_warp.ball_share` of one voxel."""
    x, y, z = (2.0 * r + 1.0) / shape[2] - 1.0, (2.0 * q + 1.0) / shape[1] - 1.0, (2.0 * p + 1.0) / shape[0] - 1.0
    square = x * x + y * y + z * z
    if square == 0.0:
        return 1.0
    a, b, c = x / shape[2], y / shape[1], z / shape[0]
    radius = math.sqrt(square)
    return min(max(0.5 + (1.0 - radius) * radius / (2.0 * math.sqrt(a * a + b * b + c * c)), 0.0), 1.0)


@compiled
def _bands(p, q, shape):
    """Of one row of voxels: outside [a, d) the share is 0, in [b, c) it is 1; only the rest need be computed."""
    y, z = (2.0 * q + 1.0) / shape[1] - 1.0, (2.0 * p + 1.0) / shape[0] - 1.0
    columns, square = shape[2], y * y + z * z
    half_width = 1.0 / min(shape[0], shape[1], columns)
    outer, inner = (1.0 + half_width) ** 2 - square, max(1.0 - half_width, 0.0) ** 2 - square
    if outer <= 0.0:
        return 0, 0, 0, 0
    reach = 0.5 * columns * math.sqrt(outer)
    middle = 0.5 * (columns - 1)
    a, d = max(math.floor(middle - reach), 0), min(math.ceil(middle + reach) + 1, columns)
    if inner <= 0.0:
        return a, d, d, d
    reach = 0.5 * columns * math.sqrt(inner) - 1.0  # a voxel less, for the rounding
    b, c = max(math.ceil(middle - reach), a), min(math.floor(middle + reach) + 1, d)
    return (a, b, c, d) if b < c else (a, d, d, d)


@compiled
def pack(attenuation, absorbance, cells, runs, begin, end):
    """Fill the rows begin ... end - 1 of all planes, and `runs`: where each row is inside the ball, [first, last)."""
    shape = attenuation.shape
    columns = shape[2]
    # Rows outside, planes inside: for the transposed copy that reads one plane of the volume after the other.
    for q in range(begin, end):
        from_q = min(max(q - 1, 0), shape[1] - 1)
        for p in range(shape[0] + 2):
            from_p = min(max(p - 1, 0), shape[0] - 1)
            one, two = cells[p, q]
            source, other = attenuation[from_p, from_q], absorbance[from_p, from_q]
            first, last = columns + 2, 0
            one[:] = 0.0
            if p == from_p + 1 and q == from_q + 1:
                a, b, c, d = _bands(from_p, from_q, shape)
                for r in range(b, c):
                    one[r + 1] = source[r]
                for r in range(a, b):
                    one[r + 1] = source[r] * _share(from_p, from_q, r, shape)
                for r in range(c, d):
                    one[r + 1] = source[r] * _share(from_p, from_q, r, shape)
                if a < d:
                    first, last = a + 1, d + 1
            for r in range(columns):
                two[r + 1] = other[r]
            two[0] = other[0]
            two[columns + 1 :] = other[columns - 1]
            runs[p * (shape[1] + 2) + q, 0], runs[p * (shape[1] + 2) + q, 1] = first, last


@compiled
def unpack(parts, to_attenuation, to_absorbance, begin, end):
    """The transpose of `pack`: add the threads' gradients, in order, to the rows begin ... end - 1."""
    shape = to_attenuation.shape
    columns = shape[2]
    for q in range(0 if begin == 0 else begin + 1, shape[1] + 2 if end == shape[1] else end + 1):
        to_q = min(max(q - 1, 0), shape[1] - 1)
        for p in range(shape[0] + 2):
            to_p = min(max(p - 1, 0), shape[0] - 1)
            one, two = to_attenuation[to_p, to_q], to_absorbance[to_p, to_q]
            for part in range(len(parts)):
                source, other = parts[part, p, q]
                if p == to_p + 1 and q == to_q + 1:
                    a, b, c, d = _bands(to_p, to_q, shape)
                    for r in range(b, c):
                        one[r] += source[r + 1]
                    for r in range(a, b):
                        one[r] += source[r + 1] * _share(to_p, to_q, r, shape)
                    for r in range(c, d):
                        one[r] += source[r + 1] * _share(to_p, to_q, r, shape)
                for r in range(columns):
                    two[r] += other[r + 1]
                two[0] += other[0]
                for r in range(columns + 1, len(other)):
                    two[columns - 1] += other[r]
