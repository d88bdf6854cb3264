"""The compiled inner loops of the renderer of blocks. Imports numba; import it lazily.

As `absorption/trilinear_loops.py`, ray by ray in passes over a buffer of one ray, with one pass more: samples in
blocks that are not there are left out before anything is read.

Layout: `values` holds 8^3 voxels with their two channels interleaved for each block that is there, flat. `table` says
which of the blocks with a cell that reads a voxel of those a block of the grid is, -1 for none, and `sources` which
blocks of values it and the seven next to it, upwards, are. A cell within a block is read at once, one of several blocks
corner by corner. Nothing is copied.
"""

import math

import numpy as np

from ..absorption.trilinear_loops import APART, BUFFERS, TILE, add_to_cell, read_cell, tiles_per_edge
from ..numba_runtime import compiled

EDGE = 8  # voxels of a block
ROW, PLANE, NUMBERS = np.uint32(2 * EDGE), np.uint32(2 * EDGE**2), np.uint32(2 * EDGE**3)
# Of the 2^3 corners of a cell, where they are copied together.
CORNERS, CORNER_ROW, CORNER_PLANE = 16, np.uint32(4), np.uint32(8)
APART_BIT = np.uint32(2**31)  # set in the place of a cell of several blocks: which block of the table, which cell of it

__all__ = ["draw", "draw_backward", "influence", "tiles_per_edge"]


@compiled
def _place_axis(depth, count, origin, slope, most, cell, fraction):
    """Which cell each sample of a ray lies in along an axis, and where in it; beyond the outermost centres on them."""
    least = depth.dtype.type(1.0)
    for k in range(count):
        place = origin + depth[k] * slope
        place = place if place > least else least
        place = place if place < most else most
        whole = np.int32(place)
        cell[k] = whole - np.int32(1)
        fraction[k] = place - depth.dtype.type(whole)


@compiled
def _axis(u, v, turn, size, axis):
    """Place of the ray's middle along an axis, in voxels from one before the first centre, and its slope."""
    scale = 0.5 * size[axis]
    return (u * turn[0, axis] + v * turn[1, axis]) * scale + (scale + 0.5), turn[2, axis] * scale


@compiled
def _place_ray(u, v, turn, size, table, sources, num_samples, work, cell, base):
    """Fill the workspace with the samples of one ray in blocks that are there, and return how many.

    The samples are those of `ball_quadrature`.
    """
    square = 1.0 - u * u - v * v
    if not square > 0.0:
        return 0
    half_chord = math.sqrt(square)
    first = max(0, math.floor((1.0 - half_chord) * num_samples * 0.5))
    last = min(num_samples, math.ceil((1.0 + half_chord) * num_samples * 0.5))
    count = last - first
    depth, share = work[0], work[1]
    kind = work.dtype.type
    start, step = kind((2.0 * first + 1.0) / num_samples - 1.0), kind(2.0 / num_samples)
    for k in range(count):
        depth[k] = start + kind(k) * step
        share[k] = kind(1.0)
    for k in (0, count - 1):  # only the ends can be clipped
        near = max(2.0 * (first + k) / num_samples - 1.0, -half_chord)
        far = min(2.0 * (first + k + 1) / num_samples - 1.0, half_chord)
        depth[k] = 0.5 * (near + far)
        share[k] = max(far - near, 0.0) * num_samples * 0.5
    for axis in range(3):
        origin, slope = _axis(u, v, turn, size, axis)
        _place_axis(depth, count, kind(origin), kind(slope), kind(size[axis]), cell[axis], work[2 + axis])
    x, y, z = cell[0], cell[1], cell[2]
    kept = 0
    for k in range(count):
        found = table[z[k] >> 3, y[k] >> 3, x[k] >> 3]
        if found >= 0:
            inside = ((z[k] & 7) * EDGE + (y[k] & 7)) * EDGE + (x[k] & 7)
            if (z[k] & 7) == EDGE - 1 or (y[k] & 7) == EDGE - 1 or (x[k] & 7) == EDGE - 1:
                base[kept] = APART_BIT | np.uint32(np.uint32(found) * np.uint32(EDGE**3) + np.uint32(inside))
            elif sources[found, 0] >= 0:
                base[kept] = np.uint32(np.uint32(sources[found, 0]) * NUMBERS + np.uint32(2 * inside))
            else:
                continue
            if kept < k:
                for buffer in range(5):
                    work[buffer, kept] = work[buffer, k]
            kept += 1
    return kept


@compiled
def _corner(sources, place, corner):
    """Where in the values the first channel of a corner of a cell of several blocks lies, -1 for nowhere."""
    inside = np.int64(place & np.uint32(EDGE**3 - 1))
    z, y, x = (inside >> 6) + (corner >> 2), (inside >> 3 & 7) + (corner >> 1 & 1), (inside & 7) + (corner & 1)
    block = np.int64((place & ~APART_BIT) >> np.uint32(9))
    source = np.int64(sources[block, (z >> 3) * 4 + (y >> 3) * 2 + (x >> 3)])
    return source if source < 0 else (((source * EDGE + (z & 7)) * EDGE + (y & 7)) * EDGE + (x & 7)) * 2


@compiled
def _gather(values, sources, empty, place, corners):
    """Copy the corners of a cell of several blocks together, 0 and `empty` for those of no block."""
    for corner in range(8):
        at = _corner(sources, place, corner)
        corners[2 * corner] = values[at] if at >= 0 else 0
        corners[2 * corner + 1] = values[at + 1] if at >= 0 else empty


@compiled
def _read_ray(values, sources, empty, count, work, base, corners):
    """Opacity and colour (1 - absorbance) at each sample."""
    share, fx, fy, fz, opacity, colour = work[1], work[2], work[3], work[4], work[5], work[6]
    one = work.dtype.type(1.0)
    for k in range(count):
        if base[k] < APART_BIT:
            first, second = read_cell(values, base[k], ROW, PLANE, fx[k], fy[k], fz[k])  # pyright: ignore[reportCallIssue]
        else:
            _gather(values, sources, empty, base[k], corners)
            first, second = read_cell(corners, np.uint32(0), CORNER_ROW, CORNER_PLANE, fx[k], fy[k], fz[k])  # pyright: ignore[reportCallIssue]
        opacity[k] = first * share[k]
        colour[k] = one - second


@compiled
def draw(values, table, sources, empty, size, turns, num_samples, image, first, stride):
    """Forward: fill `image` for the tile rows first, first + stride, ..., counted through all views."""
    pixels = image.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS, num_samples), values.dtype)
    corners = np.empty(CORNERS, values.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    opacity, colour = work[5], work[6]
    one = values.dtype.type(1.0)
    for tile_row in range(first, len(turns) * tiles, stride):
        view, top = tile_row // tiles, tile_row % tiles * TILE
        turn = turns[view]
        for left in range(0, pixels, TILE):
            for y in range(top, min(top + TILE, pixels)):
                v = (2.0 * y + 1.0) / pixels - 1.0
                for x in range(left, min(left + TILE, pixels)):
                    u = (2.0 * x + 1.0) / pixels - 1.0
                    count = _place_ray(u, v, turn, size, table, sources, num_samples, work, cell, base)
                    _read_ray(values, sources, empty, count, work, base, corners)
                    passed, light = one, one - one
                    for k in range(count):
                        light += passed * opacity[k] * colour[k]
                        passed *= one - opacity[k]
                    image[view, y, x] = light


@compiled
def draw_backward(
    values, table, sources, empty, size, turns, num_samples, upstream, to_values, to_turns, first, stride
):
    """Transpose of `draw`: add to `to_values` and to `to_turns`, each skipped where it has no elements.

    The recursion is that of `trilinear_loops.draw_backward`.
    """
    pixels = upstream.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS + 1, num_samples), values.dtype)
    corners = np.empty(CORNERS, values.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    share, opacity, colour, transmittance = work[1], work[5], work[6], work[7]
    one = values.dtype.type(1.0)
    for tile_row in range(first, len(turns) * tiles, stride):
        view, top = tile_row // tiles, tile_row % tiles * TILE
        turn = turns[view]
        for left in range(0, pixels, TILE):
            for y in range(top, min(top + TILE, pixels)):
                v = (2.0 * y + 1.0) / pixels - 1.0
                for x in range(left, min(left + TILE, pixels)):
                    u = (2.0 * x + 1.0) / pixels - 1.0
                    count = _place_ray(u, v, turn, size, table, sources, num_samples, work, cell, base)
                    _read_ray(values, sources, empty, count, work, base, corners)
                    passed = one
                    for k in range(count):
                        transmittance[k] = passed
                        passed *= one - opacity[k]
                    g = upstream[view, y, x]
                    behind = one - one
                    for k in range(count - 1, -1, -1):
                        weighted = transmittance[k]
                        gain = g * colour[k] - behind
                        colour[k] = -weighted * opacity[k] * g
                        behind += opacity[k] * gain
                        opacity[k] = weighted * gain * share[k]
                    if to_values.size:
                        _spread_ray(to_values, sources, count, work, base, corners)
                    if to_turns.size:
                        _turn_ray(values, sources, empty, size, turn, count, work, base, corners, u, v, to_turns[view])


@compiled
def _spread_ray(to_values, sources, count, work, base, corners):
    fx, fy, fz, to_first, to_second = work[2], work[3], work[4], work[5], work[6]
    for start in range(min(APART, count)):  # apart, as in `trilinear_loops`
        for k in range(start, count, APART):
            if base[k] < APART_BIT:
                add_to_cell(to_values, base[k], ROW, PLANE, fx[k], fy[k], fz[k], to_first[k], to_second[k])  # pyright: ignore[reportCallIssue]
                continue
            corners[:] = 0
            add_to_cell(  # pyright: ignore[reportCallIssue]
                corners, np.uint32(0), CORNER_ROW, CORNER_PLANE, fx[k], fy[k], fz[k], to_first[k], to_second[k]
            )
            for corner in range(8):
                at = _corner(sources, base[k], corner)
                if at >= 0:
                    to_values[at] += corners[2 * corner]
                    to_values[at + 1] += corners[2 * corner + 1]


@compiled
def _slope(cells, first, row, plane, axis, k, work):
    """What a sample's gradient is worth along an axis, out of the corners of its cell."""
    one = work.dtype.type(1.0)
    slope = one - one
    for corner in range(8):
        index = first
        weight = one
        for other, stride in enumerate((np.uint32(2), row, plane)):
            bit = corner >> other & 1
            fraction = work[2 + other, k]
            if bit:
                index += stride
            if other == axis:
                weight *= one if bit else -one
            else:
                weight *= fraction if bit else one - fraction
        slope += weight * (work[5, k] * cells[index] + work[6, k] * cells[index + np.uint32(1)])
    return slope


@compiled
def _turn_ray(values, sources, empty, size, turn, count, work, base, corners, u, v, to_turn):
    """The gradient to the 3 x 3 matrix: where a sample is, is linear in it, and beyond the outermost centres nothing
    changes along that axis."""
    depth = work[0]
    kind = work.dtype.type
    one = kind(1.0)
    for axis in range(3):
        at = 0.0
        along = 0.0
        origin, grade = _axis(u, v, turn, size, axis)
        for k in range(count):
            place = kind(origin) + depth[k] * kind(grade)
            if not (one <= place < kind(size[axis])):
                continue
            if base[k] < APART_BIT:
                slope = _slope(values, base[k], ROW, PLANE, axis, k, work)
            else:
                _gather(values, sources, empty, base[k], corners)
                slope = _slope(corners, np.uint32(0), CORNER_ROW, CORNER_PLANE, axis, k, work)
            at += slope
            along += slope * depth[k]
        scale = 0.5 * size[axis]
        to_turn[0, axis] += u * at * scale
        to_turn[1, axis] += v * at * scale
        to_turn[2, axis] += along * scale


@compiled
def _owners(u, v, turn, size, slots, count, depth, owner):
    """Which block each sample belongs to: that of the nearest voxel, -1 for one that is not there."""
    kind = depth.dtype.type
    half, least = kind(0.5), kind(0.0)
    for k in range(count):
        block = 0
        for axis in range(2, -1, -1):
            origin, slope = _axis(u, v, turn, size, axis)
            most = kind(size[axis] - 1)
            place = kind(origin) + depth[k] * kind(slope) - half
            place = place if place > least else least  # NaN too
            place = place if place < most else most
            block = block * slots.shape[2 - axis] + (np.int64(place) >> 3)
        owner[k] = slots.flat[block]


@compiled
def influence(values, table, sources, empty, slots, size, turns, num_samples, pixels, squares):
    """Add to each block's number, pixel by pixel, the square of what the pixel would change by without the block."""
    work = np.empty((BUFFERS, num_samples), values.dtype)
    corners = np.empty(CORNERS, values.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    owner, passed = np.empty(num_samples, np.int32), np.empty(num_samples)
    opacity, colour = work[5], work[6]
    for turn in turns:
        for y in range(pixels):
            v = (2.0 * y + 1.0) / pixels - 1.0
            for x in range(pixels):
                u = (2.0 * x + 1.0) / pixels - 1.0
                count = _place_ray(u, v, turn, size, table, sources, num_samples, work, cell, base)
                _read_ray(values, sources, empty, count, work, base, corners)
                _owners(u, v, turn, size, slots, count, work[0], owner)
                through = 1.0
                for k in range(count):
                    passed[k] = through
                    through *= 1.0 - opacity[k]
                light, k = 0.0, count - 1
                while k >= 0:
                    block, behind = owner[k], light
                    while k >= 0 and owner[k] == block:
                        light += opacity[k] * (colour[k] - light)
                        k -= 1
                    if block >= 0:
                        squares[block] += (passed[k + 1] * (light - behind)) ** 2
