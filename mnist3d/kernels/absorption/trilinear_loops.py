"""The compiled inner loops of the fused trilinear renderer. Imports numba; import it lazily.

One ray at a time, in passes over a buffer of one ray: where the samples are (three short loops the compiler
turns into SIMD), what they read (four 128-bit loads a sample), what that is worth (the compositing
recursion), and in the backward pass back again. Nothing is stored between the passes of different rays,
so the memory does not depend on the number of samples.

Layout: `cells` is the volume padded by one voxel of replicated border and with its two channels
interleaved, (Z + 2, Y + 2, X + 2, 2), flat: a pair of x neighbours is then one load, and no sample can
leave the volume. Indices are uint32: signed ones make numba insert a test for negative indices.
"""

# numba's intrinsics take one argument less, when called, than their definitions.
# pyright: reportCallIssue=false

import math
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..numba_runtime import compiled

TILE = 8  # pixels; a tile's rays share cache lines whichever way the image's rows run through the volume
APART = 4  # samples
BUFFERS = 7  # rows of a ray's workspace: depth, share, x, y, z, opacity, colour


def tiles_per_edge(image_size: int) -> int:
    """Rows of tiles in one image: the unit of work that threads share out."""
    return (image_size + TILE - 1) // TILE


def _cell_rows(context, builder, array_type, array, base, row, plane):
    """Pointers to the four rows (two x neighbours, two channels each) of a cell, and their vector type."""
    data = context.make_array(array_type)(context, builder, array).data
    scalar = context.get_value_type(array_type.dtype)
    vector = ir.VectorType(scalar, 4)
    far = builder.add(base, plane)
    offsets = (base, builder.add(base, row), far, builder.add(far, row))
    wide = (builder.zext(offset, ir.IntType(64)) for offset in offsets)
    return [builder.bitcast(builder.gep(data, [offset]), vector.as_pointer()) for offset in wide], vector


def _splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _lerp(builder, low, high, weight):
    # low + weight * (high - low): exact where low == high, so opacity 1 stays exactly 1.
    flags = ("contract",)
    step = builder.fmul(weight, builder.fsub(high, low, flags=flags), flags=flags)
    return builder.fadd(low, step, flags=flags)


@intrinsic  # numba itself passes the typing context, which pyright misses at the call
@no_type_check  # numba looks at the function itself
def read_cell(typing_context, cells, base, row, plane, fx, fy, fz):
    """Both channels at one point: cells[base] is the first corner, row and plane the strides to the others."""
    signature = types.UniTuple(cells.dtype, 2)(
        cells, types.uint32, types.uint32, types.uint32, cells.dtype, cells.dtype, cells.dtype
    )

    def codegen(context, builder, sig, args):
        array, base, row, plane, fx, fy, fz = args
        pointers, _ = _cell_rows(context, builder, sig.args[0], array, base, row, plane)
        align = context.get_abi_sizeof(fx.type)
        rows = [builder.load(pointer, align=align) for pointer in pointers]
        fy4, fz4 = _splat(builder, fy, 4), _splat(builder, fz, 4)
        mixed = _lerp(builder, _lerp(builder, rows[0], rows[1], fy4), _lerp(builder, rows[2], rows[3], fy4), fz4)
        index = ir.VectorType(ir.IntType(32), 2)
        left = builder.shuffle_vector(mixed, mixed, ir.Constant(index, [0, 1]))
        right = builder.shuffle_vector(mixed, mixed, ir.Constant(index, [2, 3]))
        both = _lerp(builder, left, right, _splat(builder, fx, 2))
        values = [builder.extract_element(both, ir.Constant(ir.IntType(32), lane)) for lane in (0, 1)]
        return cgutils.pack_array(builder, values)

    return signature, codegen


@intrinsic  # numba itself passes the typing context, which pyright misses at the call
@no_type_check  # numba looks at the function itself
def add_to_cell(typing_context, cells, base, row, plane, fx, fy, fz, first, second):
    """The transpose of `read_cell`: spread (first, second) over the eight corners."""
    signature = types.void(
        cells, types.uint32, types.uint32, types.uint32,
        cells.dtype, cells.dtype, cells.dtype, cells.dtype, cells.dtype,
    )  # fmt: skip

    def codegen(context, builder, sig, args):
        array, base, row, plane, fx, fy, fz, first, second = args
        pointers, vector = _cell_rows(context, builder, sig.args[0], array, base, row, plane)
        align = context.get_abi_sizeof(fx.type)
        one = ir.Constant(fx.type, 1.0)
        near = builder.fsub(one, fx)
        corner = ir.Constant(vector, ir.Undefined)
        products = ((near, first), (near, second), (fx, first), (fx, second))
        for lane, (weight, value) in enumerate(products):
            product = builder.fmul(weight, value)
            corner = builder.insert_element(corner, product, ir.Constant(ir.IntType(32), lane))
        fy4, fz4 = _splat(builder, fy, 4), _splat(builder, fz, 4)
        back = builder.fmul(corner, fz4)
        front = builder.fsub(corner, back)
        front_low, back_low = builder.fmul(front, fy4), builder.fmul(back, fy4)
        parts = (builder.fsub(front, front_low), front_low, builder.fsub(back, back_low), back_low)
        for pointer, part in zip(pointers, parts, strict=True):
            total = builder.fadd(builder.load(pointer, align=align), part)
            builder.store(total, pointer, align=align)
        return context.get_dummy_value()

    return signature, codegen


@compiled
def _place_axis(depth, count, origin, slope, limit, stride, first, base, fraction):
    """Add one axis' part of the cell index, and find the fraction inside the cell, for each sample of a ray."""
    low = depth.dtype.type(0.5)
    for k in range(count):
        place = origin + depth[k] * slope
        # A rotation never leaves the padded volume; a matrix that is none must not leave the memory either.
        place = place if place > low else low
        place = place if place < limit else limit
        cell = np.int32(place)
        fraction[k] = place - depth.dtype.type(cell)
        base[k] = (np.uint32(0) if first else base[k]) + np.uint32(cell) * stride


@compiled
def _place_ray(u, v, turn, size, num_samples, work, base):
    """Fill the workspace with the samples of one ray, as `ball_quadrature` defines them; return how many."""
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
    stride = np.uint32(2)
    for axis in range(3):
        scale = 0.5 * size[axis]
        origin = kind((u * turn[0, axis] + v * turn[1, axis]) * scale + (scale + 0.5))
        limit = kind(size[axis] + 0.5)
        slope = kind(turn[2, axis] * scale)
        _place_axis(depth, count, origin, slope, limit, stride, axis == 0, base, work[2 + axis])
        stride *= np.uint32(size[axis] + 2)
    return count


@compiled
def _read_ray(cells, row, plane, count, work, base):
    """Opacity and colour (1 - absorbance) at each sample."""
    share, fx, fy, fz, opacity, colour = work[1], work[2], work[3], work[4], work[5], work[6]
    one = work.dtype.type(1.0)
    for k in range(count):
        first, second = read_cell(cells, base[k], row, plane, fx[k], fy[k], fz[k])  # pyright: ignore[reportCallIssue]
        opacity[k] = first * share[k]
        colour[k] = one - second


@compiled
def draw(cells, size, turns, num_samples, image, first, stride):
    """Forward: fill `image` for the tile rows first, first + stride, ..., counted through all views."""
    pixels = image.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS, num_samples), cells.dtype)
    base = np.empty(num_samples, np.uint32)
    row = np.uint32(2 * (size[0] + 2))
    plane = np.uint32(row * np.uint32(size[1] + 2))
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
                    count = _place_ray(u, v, turn, size, num_samples, work, base)
                    _read_ray(cells, row, plane, count, work, base)
                    passed, light = one, one - one
                    for k in range(count):
                        light += passed * opacity[k] * colour[k]
                        passed *= one - opacity[k]
                    image[view, y, x] = light


@compiled
def draw_backward(cells, size, turns, num_samples, upstream, to_cells, to_turns, first, stride):
    """Transpose of `draw`: add to `to_cells` and to `to_turns`, each skipped where it has no elements.

    Back to front, with b the light from behind sample k weighted by the upstream gradient g:
        d_opacity_k = T_k (g colour_k - b),  d_colour_k = T_k opacity_k g,  b += opacity_k (g colour_k - b)
    which divides by nothing, so it is right at opacity exactly 1 too.
    """
    pixels = upstream.shape[1]
    tiles = (pixels + TILE - 1) // TILE
    work = np.empty((BUFFERS + 1, num_samples), cells.dtype)
    base = np.empty(num_samples, np.uint32)
    row = np.uint32(2 * (size[0] + 2))
    plane = np.uint32(row * np.uint32(size[1] + 2))
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
                    count = _place_ray(u, v, turn, size, num_samples, work, base)
                    _read_ray(cells, row, plane, count, work, base)
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
                        _spread_ray(to_cells, row, plane, count, work, base)
                    if to_turns.size:
                        _turn_ray(cells, size, row, plane, count, work, base, u, v, to_turns[view])


@compiled
def _spread_ray(to_cells, row, plane, count, work, base):
    fx, fy, fz, to_first, to_second = work[2], work[3], work[4], work[5], work[6]
    # Neighbouring samples overlap by part of a row, and a load that straddles a store still under way waits
    # for it to reach the cache. Taking every fourth sample keeps them apart.
    for start in range(min(APART, count)):
        for k in range(start, count, APART):
            add_to_cell(to_cells, base[k], row, plane, fx[k], fy[k], fz[k], to_first[k], to_second[k])  # pyright: ignore[reportCallIssue]


@compiled
def _turn_ray(cells, size, row, plane, count, work, base, u, v, to_turn):
    """The gradient to the 3 x 3 matrix: where a sample is, is linear in it."""
    depth, to_first, to_second = work[0], work[5], work[6]
    one = work.dtype.type(1.0)
    for axis in range(3):
        at = 0.0
        along = 0.0
        for k in range(count):
            slope = one - one
            for corner in range(8):
                index = base[k]
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
                slope += weight * (to_first[k] * cells[index] + to_second[k] * cells[index + np.uint32(1)])
            at += slope
            along += slope * depth[k]
        scale = 0.5 * size[axis]
        to_turn[0, axis] += u * at * scale
        to_turn[1, axis] += v * at * scale
        to_turn[2, axis] += along * scale


@compiled
def pack(first, second, cells, begin, end):
    """Fill the planes begin ... end - 1 of the padded, interleaved volume."""
    depth, height, width = first.shape
    for z in range(begin, end):
        from_z = min(max(z - 1, 0), depth - 1)
        for y in range(height + 2):
            from_y = min(max(y - 1, 0), height - 1)
            target, one, two = cells[z, y], first[from_z, from_y], second[from_z, from_y]
            for x in range(width):
                target[x + 1, 0] = one[x]
                target[x + 1, 1] = two[x]
            target[0, 0], target[0, 1] = one[0], two[0]
            target[width + 1, 0], target[width + 1, 1] = one[width - 1], two[width - 1]


@compiled
def unpack(parts, first, second, begin, end):
    """The transpose of `pack` for the planes begin ... end - 1 of the gradients, summing the threads' parts."""
    depth, height, width = first.shape
    first[begin:end] = 0
    second[begin:end] = 0
    for z in range(0 if begin == 0 else begin + 1, depth + 2 if end == depth else end + 1):
        to_z = min(max(z - 1, 0), depth - 1)
        for y in range(height + 2):
            to_y = min(max(y - 1, 0), height - 1)
            one, two = first[to_z, to_y], second[to_z, to_y]
            for part in range(len(parts)):
                source = parts[part, z, y]
                for x in range(width):
                    one[x] += source[x + 1, 0]
                    two[x] += source[x + 1, 1]
                one[0] += source[0, 0]
                two[0] += source[0, 1]
                one[width - 1] += source[width + 1, 0]
                two[width - 1] += source[width + 1, 1]
