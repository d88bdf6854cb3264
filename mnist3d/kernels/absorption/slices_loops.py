"""The compiled inner loops of the "slices" renderer. Imports numba; import it lazily.

The sheared image is made row by row, each row slice by slice. Within a slice the samples of a row lie one
voxel apart, so the four bilinear weights are the same for all of them and every inner loop runs over
adjacent numbers: SIMD without gathers. The backward pass keeps one row's samples, of all slices, and goes
back to front; its memory does not depend on the number of views.

Layout: `cells` is (P + 2, Q + 2, 2, R + 1 + LANES), flat: attenuation inside the ball (padded by zeros) and
absorbance (padded by its border), a row of one and then a row of the other. Slices run along P or along Q,
columns along R; for views along the grid's own columns a transposed copy is made.
"""

# numba's intrinsics take one argument less, when called, than their definitions.
# pyright: reportCallIssue=false

import math
from typing import no_type_check

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from ..numba_runtime import compiled, compiled_inline
from .shear_warp import LANES

LOG2_E = 1.4426950408889634
# 2^r for |r| <= 1/2: the Taylor series, ln(2)^k / k!; the remainder is below float32's rounding.
POWERS = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(7))


@intrinsic  # numba itself passes the typing context, which pyright misses at the call
@no_type_check  # numba looks at the function itself
def _float_of_bits(typing_context, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


def _decay(depth):
    return math.exp(-depth)  # what compiled code calls instead stands below


@overload(_decay, inline="always")
@no_type_check  # as above
def _decay_overload(depth):
    """exp(-depth): in float32 a polynomial that the compiler can turn into SIMD, else the library's."""
    if depth != types.float32:
        return lambda depth: math.exp(-depth)

    def decay(depth):
        low = np.float32(-126.0)  # 2^-126 is the smallest normal number: as good as 0 beside an opacity of 1
        high = np.float32(126.0)
        power = np.float32(-LOG2_E) * depth
        power = power if power > low else low
        power = power if power < high else high
        whole = np.floor(power + np.float32(0.5))
        r = power - whole
        value = np.float32(POWERS[6])
        value = value * r + np.float32(POWERS[5])
        value = value * r + np.float32(POWERS[4])
        value = value * r + np.float32(POWERS[3])
        value = value * r + np.float32(POWERS[2])
        value = value * r + np.float32(POWERS[1])
        value = value * r + np.float32(POWERS[0])
        return value * _float_of_bits(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))  # pyright: ignore[reportCallIssue]

    return decay


# Numba cannot promise the compiler that arrays do not overlap. It tests for that before each loop, and gives
# up SIMD where that takes more than eight tests: hence several short loops with few arrays each.


@compiled_inline
def _read_rest(near, far, w, length, count, rest):
    """rest[x] = 1 - opacity of sample x: what the slice lets through."""
    for x in range(count):
        rest[x] = _decay(length * (w[0] * near[x] + w[1] * near[x + 1] + w[2] * far[x] + w[3] * far[x + 1]))


@compiled_inline
def _read_absorbance(near, far, w, count, passed, absorbed, before):
    """Absorbance of sample x, and the transmittance in front of it."""
    for x in range(count):
        absorbed[x] = w[0] * near[x] + w[1] * near[x + 1] + w[2] * far[x] + w[3] * far[x + 1]
        before[x] = passed[x]


@compiled_inline
def _composite(rest, absorbed, count, passed, light):
    one = rest.dtype.type(1.0)
    for x in range(count):
        light[x] += passed[x] * (one - rest[x]) * (one - absorbed[x])
        passed[x] *= rest[x]


@compiled_inline
def _read_and_composite(rest, near, far, w, count, passed, light):
    """`_read_absorbance` and `_composite` in one, where nothing has to be kept."""
    one = rest.dtype.type(1.0)
    for x in range(count):
        absorbed = w[0] * near[x] + w[1] * near[x + 1] + w[2] * far[x] + w[3] * far[x + 1]
        light[x] += passed[x] * (one - rest[x]) * (one - absorbed)
        passed[x] *= rest[x]


@compiled_inline
def _composite_back(rest, absorbed, before, upstream, step, count, behind, to_attenuation, to_absorbance):
    """Transpose of `_composite`; the gradient to sample x is written at x + 1, between zeros; `absorbed` is used up."""
    one = rest.dtype.type(1.0)
    for x in range(count):
        to_absorbance[x + 1] = -before[x] * (one - rest[x]) * upstream[x]
        absorbed[x] = upstream[x] * (one - absorbed[x])  # from here on: what the sample's light is worth
    for x in range(count):
        gain = absorbed[x] - behind[x]
        to_attenuation[x + 1] = before[x] * gain * rest[x] * step
        behind[x] += (one - rest[x]) * gain
    to_attenuation[0] = to_attenuation[count + 1] = to_absorbance[0] = to_absorbance[count + 1] = one - one


@compiled_inline
def _spread(near, far, w, count, gradient):
    """Transpose of reading one channel: add to its two rows."""
    for x in range(count + 1):
        near[x] += w[0] * gradient[x + 1] + w[1] * gradient[x]
        far[x] += w[2] * gradient[x + 1] + w[3] * gradient[x]


@compiled_inline
def _rows(cells, at, strides, count):
    """The two rows of attenuation and the two of absorbance that `count` samples from index `at` on read."""
    below, other, length = at + strides[1], at + strides[2], count + 1
    under = below + strides[2]
    return (
        cells[at : at + length],
        cells[below : below + length],
        cells[other : other + length],
        cells[under : under + length],
    )


@compiled
def _place_slices(numbers, shape, forward, whole, weights):
    """Where each slice lies against the sheared image: whole voxels (column, row), and the four weights."""
    kind = weights.dtype.type
    for k in range(shape[0]):
        along = (2.0 * (k if forward else shape[0] - 1 - k) + 1.0) / shape[0] - 1.0
        across, down = numbers[4] * along * (shape[2] * 0.5), numbers[5] * along * (shape[1] * 0.5)
        whole[k, 0], whole[k, 1] = math.floor(across), math.floor(down)
        across -= math.floor(across)
        down -= math.floor(down)
        weights[k, 0], weights[k, 1] = kind((1.0 - down) * (1.0 - across)), kind((1.0 - down) * across)
        weights[k, 2], weights[k, 3] = kind(down * (1.0 - across)), kind(down * across)


@compiled_inline
def _find_run(i, k, forward, shape, strides, margins, whole, runs):
    """The samples of row i in slice k that can be inside the ball: (index into cells, first column, count)."""
    row = i - margins[0] + whole[k, 1] + 1  # in the padded volume
    if row < 0 or row > shape[1]:
        return 0, 0, 0
    at = ((k if forward else shape[0] - 1 - k) + 1) * strides[0] + row * strides[1]
    pair = 2 * strides[2]  # a row of attenuation and a row of absorbance
    upper, lower = runs[at // pair], runs[(at + strides[1]) // pair]
    first, last = min(upper[0], lower[0]) - 1, max(upper[1], lower[1])
    column = first - 1 + margins[1] - whole[k, 0]
    if column < 0:  # only for matrices that are no rotations
        first, column = first - column, 0
    count = (last - first + LANES - 1) // LANES * LANES  # what is added reads the zeros outside the ball
    return at + first, column, min(count, shape[2] + 2 * margins[1] + LANES - 1 - column)


@compiled_inline
def _march_row(cells, length, places, strides, weights, samples, keep, passed, light):
    """Composite one row of the sheared image, front to back; `keep` its samples for the way back."""
    kind = cells.dtype.type
    one, length = kind(1.0), kind(length)
    passed[:] = one
    light[:] = kind(0.0)
    for k in range(len(places)):
        at, column, count = places[k]
        if count <= 0:
            continue
        slot = k if keep else 0
        near, far, near_b, far_b = _rows(cells, at, strides, count)
        rest, absorbed, before = samples[slot, 0], samples[slot, 1], samples[slot, 2]
        p, image = passed[column : column + count], light[column : column + count]
        w = (weights[k, 0], weights[k, 1], weights[k, 2], weights[k, 3])
        _read_rest(near, far, w, length, count, rest)
        if keep:
            _read_absorbance(near_b, far_b, w, count, p, absorbed, before)
            _composite(rest, absorbed, count, p, image)
        else:
            _read_and_composite(rest, near_b, far_b, w, count, p, image)


@compiled_inline
def _march_row_back(
    cells, to_cells, numbers, shape, forward, places, strides, weights, samples, upstream, work, to_numbers
):
    """Transpose of `_march_row`, back to front, without a division: right at opacity exactly 1 too."""
    kind = cells.dtype.type
    step = kind(numbers[6] * 2.0 / shape[0])
    behind, to_attenuation, to_absorbance = work[0], work[1], work[2]
    behind[:] = kind(0.0)
    for k in range(len(places) - 1, -1, -1):
        at, column, count = places[k]
        if count <= 0:
            continue
        end = column + count
        _composite_back(
            samples[k, 0], samples[k, 1], samples[k, 2], upstream[column:end], step, count,
            behind[column:end], to_attenuation, to_absorbance,
        )  # fmt: skip
        if to_cells.size:
            near, far, near_b, far_b = _rows(to_cells, at, strides, count)
            w = (weights[k, 0], weights[k, 1], weights[k, 2], weights[k, 3])
            _spread(near, far, w, count, to_attenuation)
            _spread(near_b, far_b, w, count, to_absorbance)
        if to_numbers.size:
            w = weights[k]
            along = (2.0 * (k if forward else shape[0] - 1 - k) + 1.0) / shape[0] - 1.0
            for channel in range(2):
                gradient = to_absorbance if channel else to_attenuation
                start = at + channel * strides[2]
                upper = cells[start : start + count + 1]
                lower = cells[start + strides[1] : start + strides[1] + count + 1]
                across, down, value = 0.0, 0.0, 0.0
                for x in range(count):
                    a, b_, c, d = upper[x], upper[x + 1], lower[x], lower[x + 1]
                    across += gradient[x + 1] * ((w[0] + w[1]) * (b_ - a) + (w[2] + w[3]) * (d - c))
                    down += gradient[x + 1] * ((w[0] + w[2]) * (c - a) + (w[1] + w[3]) * (d - b_))
                    value += gradient[x + 1] * (w[0] * a + w[1] * b_ + w[2] * c + w[3] * d)
                to_numbers[4] += across * along * shape[2] * 0.5
                to_numbers[5] += down * along * shape[1] * 0.5
                if channel == 0:
                    to_numbers[6] += value / numbers[6]


@compiled_inline
def _pixel(numbers, shape, margins, y, x, pixels):
    """Where image pixel (y, x) reads the sheared image: u, v, column, row; a row of -1 for nowhere."""
    u, v = (2.0 * x + 1.0) / pixels - 1.0, (2.0 * y + 1.0) / pixels - 1.0
    column = (numbers[0] * u + numbers[1] * v + 1.0) * (shape[2] * 0.5) - 0.5 + margins[1]
    row = (numbers[2] * u + numbers[3] * v + 1.0) * (shape[1] * 0.5) - 0.5 + margins[0]
    rows, columns = shape[1] + 2 * margins[0], shape[2] + 2 * margins[1]
    if u * u + v * v < 1.0 and 0.0 <= row < rows - 1 and 0.0 <= column < columns - 1:
        return u, v, column, row
    return u, v, -1.0, -1.0


@compiled
def draw_view(cells, runs, shape, strides, margins, numbers, forward, image):
    """One image: march the sheared image's rows, then warp it."""
    rows, columns, pixels = shape[1] + 2 * margins[0], shape[2] + 2 * margins[1] + LANES - 1, len(image)
    whole, weights = np.empty((shape[0], 2), np.int64), np.empty((shape[0], 4), cells.dtype)
    places, samples = np.empty((shape[0], 3), np.int64), np.empty((1, 3, columns), cells.dtype)
    passed, sheared = np.empty(columns, cells.dtype), np.empty((rows, columns), cells.dtype)
    _place_slices(numbers, shape, forward, whole, weights)
    for i in range(rows):
        for k in range(shape[0]):
            places[k] = _find_run(i, k, forward, shape, strides, margins, whole, runs)
        _march_row(cells, numbers[6] * 2.0 / shape[0], places, strides, weights, samples, False, passed, sheared[i])
    for y in range(pixels):
        for x in range(pixels):
            _, _, column, row = _pixel(numbers, shape, margins, y, x, pixels)
            image[y, x] = 0.0
            if row >= 0.0:
                i, j = int(row), int(column)
                down, right = row - i, column - j
                upper = sheared[i, j] * (1.0 - right) + sheared[i, j + 1] * right
                lower = sheared[i + 1, j] * (1.0 - right) + sheared[i + 1, j + 1] * right
                image[y, x] = upper * (1.0 - down) + lower * down


@compiled
def draw_view_backward(cells, runs, shape, strides, margins, numbers, forward, upstream, to_cells, to_numbers):
    """Transpose of `draw_view`: add to `to_cells` and `to_numbers`, each left out where it has no elements."""
    rows, columns, pixels = shape[1] + 2 * margins[0], shape[2] + 2 * margins[1] + LANES - 1, len(upstream)
    whole, weights = np.empty((shape[0], 2), np.int64), np.empty((shape[0], 4), cells.dtype)
    places, samples = np.empty((shape[0], 3), np.int64), np.empty((shape[0], 3, columns), cells.dtype)
    work, passed = np.empty((3, columns + 2), cells.dtype), np.empty(columns, cells.dtype)
    sheared, to_sheared = np.empty((rows, columns), cells.dtype), np.zeros((rows, columns), cells.dtype)
    for y in range(pixels):
        for x in range(pixels):
            _, _, column, row = _pixel(numbers, shape, margins, y, x, pixels)
            if row >= 0.0:
                i, j = int(row), int(column)
                down, right, g = row - i, column - j, upstream[y, x]
                to_sheared[i, j] += g * (1.0 - down) * (1.0 - right)
                to_sheared[i, j + 1] += g * (1.0 - down) * right
                to_sheared[i + 1, j] += g * down * (1.0 - right)
                to_sheared[i + 1, j + 1] += g * down * right
    _place_slices(numbers, shape, forward, whole, weights)
    length = numbers[6] * 2.0 / shape[0]
    for i in range(rows):
        for k in range(shape[0]):
            places[k] = _find_run(i, k, forward, shape, strides, margins, whole, runs)
        _march_row(cells, length, places, strides, weights, samples, True, passed, sheared[i])
        _march_row_back(
            cells, to_cells, numbers, shape, forward, places, strides, weights, samples, to_sheared[i], work, to_numbers
        )
    if to_numbers.size == 0:
        return
    for y in range(pixels):
        for x in range(pixels):
            u, v, column, row = _pixel(numbers, shape, margins, y, x, pixels)
            if row >= 0.0:
                i, j = int(row), int(column)
                down, right, g = row - i, column - j, upstream[y, x]
                a, b, c, d = sheared[i, j], sheared[i, j + 1], sheared[i + 1, j], sheared[i + 1, j + 1]
                across = g * ((b - a) * (1.0 - down) + (d - c) * down) * shape[2] * 0.5
                below = g * ((c - a) * (1.0 - right) + (d - b) * right) * shape[1] * 0.5
                to_numbers[0] += across * u
                to_numbers[1] += across * v
                to_numbers[2] += below * u
                to_numbers[3] += below * v
