"""The compiled inner loops of the renderer of blocks. Imports numba; import it lazily.

As `absorption/trilinear_loops.py`, ray by ray in passes over a buffer of one ray, with one pass more: samples in
blocks that are not there are left out before anything is read.

Layout: `cells` holds a block of 9^3 voxels with its two channels interleaved for each block of 8^3 cells, flat: the
ninth are those of the next blocks, so that no cell reads from two. `table` says which of them a block of the grid is,
-1 for none.
"""

import math

import numpy as np

from ..absorption.trilinear_loops import APART, BUFFERS, TILE, add_to_cell, read_cell, tiles_per_edge
from ..numba_runtime import compiled

EDGE = 8  # voxels of a block
CELLS = EDGE + 1
ROW, PLANE, NUMBERS = np.uint32(2 * CELLS), np.uint32(2 * CELLS**2), np.uint32(2 * CELLS**3)

__all__ = ["CELLS", "draw", "draw_backward", "influence", "pack", "tiles_per_edge", "unpack"]


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
def _place_ray(u, v, turn, size, table, num_samples, work, cell, base):
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
            inside = ((z[k] & 7) * CELLS + (y[k] & 7)) * CELLS + (x[k] & 7)
            base[kept] = np.uint32(np.uint32(found) * NUMBERS + np.uint32(2 * inside))
            if kept < k:
                for buffer in range(5):
                    work[buffer, kept] = work[buffer, k]
            kept += 1
    return kept


@compiled
def _read_ray(cells, count, work, base):
    """Opacity and colour (1 - absorbance) at each sample."""
    share, fx, fy, fz, opacity, colour = work[1], work[2], work[3], work[4], work[5], work[6]
    one = work.dtype.type(1.0)
    for k in range(count):
        first, second = read_cell(cells, base[k], ROW, PLANE, fx[k], fy[k], fz[k])  # pyright: ignore[reportCallIssue]
        opacity[k] = first * share[k]
        colour[k] = one - second


@compiled
def draw(cells, table, size, turns, num_samples, image, first, stride):
    """Forward: fill `image` for the tile rows first, first + stride, ..., counted through all views."""
    pixels = image.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS, num_samples), cells.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    opacity, colour = work[5], work[6]
    one = cells.dtype.type(1.0)
    for tile_row in range(first, len(turns) * tiles, stride):
        view, top = tile_row // tiles, tile_row % tiles * TILE
        turn = turns[view]
        for left in range(0, pixels, TILE):
            for y in range(top, min(top + TILE, pixels)):
                v = (2.0 * y + 1.0) / pixels - 1.0
                for x in range(left, min(left + TILE, pixels)):
                    u = (2.0 * x + 1.0) / pixels - 1.0
                    count = _place_ray(u, v, turn, size, table, num_samples, work, cell, base)
                    _read_ray(cells, count, work, base)
                    passed, light = one, one - one
                    for k in range(count):
                        light += passed * opacity[k] * colour[k]
                        passed *= one - opacity[k]
                    image[view, y, x] = light


@compiled
def draw_backward(cells, table, size, turns, num_samples, upstream, to_cells, to_turns, first, stride):
    """Transpose of `draw`: add to `to_cells` and to `to_turns`, each skipped where it has no elements.

    The recursion is that of `trilinear_loops.draw_backward`.
    """
    pixels = upstream.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS + 1, num_samples), cells.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    share, opacity, colour, transmittance = work[1], work[5], work[6], work[7]
    one = cells.dtype.type(1.0)
    for tile_row in range(first, len(turns) * tiles, stride):
        view, top = tile_row // tiles, tile_row % tiles * TILE
        turn = turns[view]
        for left in range(0, pixels, TILE):
            for y in range(top, min(top + TILE, pixels)):
                v = (2.0 * y + 1.0) / pixels - 1.0
                for x in range(left, min(left + TILE, pixels)):
                    u = (2.0 * x + 1.0) / pixels - 1.0
                    count = _place_ray(u, v, turn, size, table, num_samples, work, cell, base)
                    _read_ray(cells, count, work, base)
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
                    if to_cells.size:
                        _spread_ray(to_cells, count, work, base)
                    if to_turns.size:
                        _turn_ray(cells, size, turn, count, work, base, u, v, to_turns[view])


@compiled
def _spread_ray(to_cells, count, work, base):
    fx, fy, fz, to_first, to_second = work[2], work[3], work[4], work[5], work[6]
    for start in range(min(APART, count)):  # apart, as in `trilinear_loops`
        for k in range(start, count, APART):
            add_to_cell(to_cells, base[k], ROW, PLANE, fx[k], fy[k], fz[k], to_first[k], to_second[k])  # pyright: ignore[reportCallIssue]


@compiled
def _turn_ray(cells, size, turn, count, work, base, u, v, to_turn):
    """The gradient to the 3 x 3 matrix: where a sample is, is linear in it, and beyond the outermost centres nothing
    changes along that axis."""
    depth, to_first, to_second = work[0], work[5], work[6]
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
            slope = one - one
            for corner in range(8):
                index = base[k]
                weight = one
                for other, stride in enumerate((np.uint32(2), ROW, PLANE)):
                    bit = corner >> other & 1
                    fraction = work[2 + other, k]
                    if bit:
                        index += stride
                    if other == axis:
                        weight *= one if bit else -one
                    else:
                        weight *= fraction if bit else one - fraction
                slope += weight * (to_first[k] * cells[index] + to_second[k] * cells[index + np.uint32(1)])
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
    half, nothing = kind(0.5), kind(0.0)
    for k in range(count):
        block = 0
        for axis in range(2, -1, -1):
            origin, slope = _axis(u, v, turn, size, axis)
            place = kind(origin) + depth[k] * kind(slope) - half
            voxel = min(np.int64(max(place, nothing)), np.int64(size[axis]) - 1)
            block = block * slots.shape[2 - axis] + (voxel >> 3)
        owner[k] = slots.flat[block]


@compiled
def influence(cells, table, slots, size, turns, num_samples, pixels, squares):
    """Add to each block's number, pixel by pixel, the square of what the pixel would change by without the block."""
    work = np.empty((BUFFERS, num_samples), cells.dtype)
    cell, base = np.empty((3, num_samples), np.int32), np.empty(num_samples, np.uint32)
    owner, passed = np.empty(num_samples, np.int32), np.empty(num_samples)
    opacity, colour = work[5], work[6]
    for turn in turns:
        for y in range(pixels):
            v = (2.0 * y + 1.0) / pixels - 1.0
            for x in range(pixels):
                u = (2.0 * x + 1.0) / pixels - 1.0
                count = _place_ray(u, v, turn, size, table, num_samples, work, cell, base)
                _read_ray(cells, count, work, base)
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


@compiled
def pack(first, second, sources, empty, cells, begin, end):
    """Fill the blocks of cells begin ... end - 1 from the eight blocks that each reads, 0 and `empty` for -1."""
    for block in range(begin, end):
        for corner in range(8):
            source = sources[block, corner]
            z0, y0, x0 = EDGE * (corner >> 2), EDGE * (corner >> 1 & 1), EDGE * (corner & 1)
            for z in range(1 if z0 else EDGE):
                for y in range(1 if y0 else EDGE):
                    target = cells[block, z0 + z, y0 + y]
                    if source >= 0:
                        one, two = first[source, z, y], second[source, z, y]
                        for x in range(1 if x0 else EDGE):
                            target[x0 + x, 0] = one[x]
                            target[x0 + x, 1] = two[x]
                    else:
                        for x in range(1 if x0 else EDGE):
                            target[x0 + x, 0] = 0
                            target[x0 + x, 1] = empty


@compiled
def unpack(parts, targets, first, second, begin, end):
    """The transpose of `pack` for the blocks begin ... end - 1 of the gradients, which add the threads' parts."""
    for block in range(begin, end):
        for corner in range(8):
            target = targets[block, corner]
            if target < 0:  # outside the grid
                continue
            z0, y0, x0 = EDGE * (corner >> 2), EDGE * (corner >> 1 & 1), EDGE * (corner & 1)
            for z in range(1 if z0 else EDGE):
                for y in range(1 if y0 else EDGE):
                    one, two = first[block, z, y], second[block, z, y]
                    for part in range(len(parts)):
                        source = parts[part, target, z0 + z, y0 + y]
                        for x in range(1 if x0 else EDGE):
                            one[x] += source[x0 + x, 0]
                            two[x] += source[x0 + x, 1]
