"""The device code of the fused trilinear renderer in Triton. Imports triton; import it lazily.

One program draws a tile of pixels of one view, one lane a pixel, marching in chunks of CHUNK samples. The
forward pass keeps each pixel's transmittance at the head of every chunk; the backward pass takes the chunks
from the far end, samples each anew into registers and runs the compositing recursion backwards through it,
so it needs S / CHUNK numbers a pixel, and nothing is ever divided by 1 - opacity.

Layout: `cells` is the volume padded by one voxel of replicated border and with its two channels
interleaved, (Z + 2, Y + 2, X + 2, 2): a corner is one load of two values, its eight corners lie at fixed
distances, and no sample can leave the volume. A trailing axis of 2 below is always (opacity, absorbance).
"""

# What Triton compiles looks like Python, but a number is a tl.constexpr there and tl.static_range can be iterated.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

if not hasattr(tl, "tuple"):  # the backward pass holds a chunk in tuples
    raise ImportError(f"triton {triton.__version__} is too old: 3.3 or later, as torch 2.7 brings it")

TILE_WIDTH = 16  # pixels; with 128 lanes (four warps of 32) one lane is one pixel
TILE_HEIGHT = 8
# Samples that the backward pass holds in registers, unrolled. Compiled for sm_90, 4 take 96 registers (254 with the
# gradient to the rotation) and spill none; 8 and 16 take 186 and 255 (and spill), and 16 compile for a minute.
CHUNK = 4

# Triton makes a constant of an argument that is 1, and the arithmetic below wants numbers that have a dtype.
SIZES = ("image_size", "num_samples", "width", "height", "depth")


@triton.jit
def _pixels(image_size, kind: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr):
    """The program's view; each lane's place in the image, whether it is one, its u, v and half its chord."""
    lane = tl.arange(0, TILE_WIDTH * TILE_HEIGHT)
    across = tl.cdiv(image_size, TILE_WIDTH)
    tiles = across * tl.cdiv(image_size, TILE_HEIGHT)
    program = tl.program_id(0)
    view, tile = program // tiles, program % tiles
    x = tile % across * TILE_WIDTH + lane % TILE_WIDTH
    y = tile // across * TILE_HEIGHT + lane // TILE_WIDTH
    # In whole numbers up to the root: 1 - u^2 - v^2 would lose the chords of the pixels at the rim to rounding.
    right, down = 2 * x + 1 - image_size, 2 * y + 1 - image_size
    square = image_size * image_size - right * right - down * down
    here = (x < image_size) & (y < image_size)
    edge = image_size.to(kind)
    half_chord = tl.sqrt(tl.where(here & (square > 0), square, 0).to(kind)) / edge
    return view, y * image_size + x, here, right.to(kind) / edge, down.to(kind) / edge, half_chord


@triton.jit
def _chunks(reach, num_samples, CHUNK: tl.constexpr):
    """The chunks in which any lane of the program has samples: first, and one past the last."""
    middle = 0.5 * num_samples.to(reach.dtype)
    farthest = tl.max(reach, axis=0)
    first = tl.floor(middle - farthest).to(tl.int32)
    last = tl.minimum(tl.ceil(middle + farthest).to(tl.int32), num_samples)
    return tl.maximum(first, 0) // CHUNK, tl.cdiv(last, CHUNK)


@triton.jit
def _step(sample, reach, num_samples):
    """Depth and share of a sample as `ball_quadrature` defines them; `reach` is half the chord in steps."""
    steps = num_samples.to(reach.dtype)
    near = sample - 0.5 * steps
    far = tl.minimum(near + 1.0, reach)
    near = tl.maximum(near, -reach)
    share = tl.maximum(far - near, 0.0)
    return tl.where(share > 0.0, (near + far) / steps, 0.0), share


@triton.jit
def _line(turns, view, axis: tl.constexpr, u, v, extent):
    """Where along an axis of the padded volume a lane's ray is at depth 0, and how far it goes a unit of depth."""
    turn = turns + view * 9 + axis
    scale = 0.5 * extent.to(u.dtype)
    return (u * tl.load(turn) + v * tl.load(turn + 3)) * scale + (scale + 0.5), tl.load(turn + 6) * scale


@triton.jit
def _cell(origin, slope, t, extent):
    """A sample's cell along one axis of the padded volume, and the fraction inside it."""
    # A rotation never leaves the padded volume; a matrix that is none must not leave the memory either. Written
    # as comparisons because these send NaN to the border too.
    place = origin + t * slope
    limit = extent.to(t.dtype) + 0.5
    place = tl.where(place > 0.5, place, 0.5)
    place = tl.where(place < limit, place, limit)
    cell = place.to(tl.int32)
    return cell, place - cell.to(t.dtype)


@triton.jit
def _lerp(low, high, weight):
    # Exact where low == high, so opacity 1 stays exactly 1.
    return low + weight * (high - low)


@triton.jit
def _corner(cells, base, inside):
    """Both channels at one corner of each lane's cell: (lanes, 2)."""
    channel = tl.arange(0, 2)
    return tl.load(cells + base[:, None] * 2 + channel[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _add_to_corner(to_cells, base, inside, value):
    channel = tl.arange(0, 2)
    where = to_cells + base[:, None] * 2 + channel[None, :]
    tl.atomic_add(where, value, mask=inside[:, None], sem="relaxed")


@triton.jit
def _locate(t, x_line, x_slope, y_line, y_slope, z_line, z_slope, width, height, depth):
    """Index of the first corner of each lane's cell, and the three fractions inside it."""
    x, fx = _cell(x_line, x_slope, t, width)
    y, fy = _cell(y_line, y_slope, t, height)
    z, fz = _cell(z_line, z_slope, t, depth)
    return (z * (height + 2) + y) * (width + 2) + x, fx, fy, fz


@triton.jit
def _sample(cells, base, row, plane, fx, fy, fz, inside):
    """Opacity of a whole step and absorbance at each lane's point."""
    fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
    top = _lerp(_corner(cells, base, inside), _corner(cells, base + 1, inside), fx)
    low = _lerp(_corner(cells, base + row, inside), _corner(cells, base + row + 1, inside), fx)
    near = _lerp(top, low, fy)
    base += plane
    top = _lerp(_corner(cells, base, inside), _corner(cells, base + 1, inside), fx)
    low = _lerp(_corner(cells, base + row, inside), _corner(cells, base + row + 1, inside), fx)
    return tl.split(_lerp(near, _lerp(top, low, fy), fz))


@triton.jit
def _spread(to_cells, base, row, plane, fx, fy, fz, inside, gradient):
    """The transpose of `_sample`: (lanes, 2) shared out among the eight corners."""
    fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
    far = gradient * fz
    near = gradient - far
    for corner in tl.static_range(4):
        part = near
        if corner >= 2:
            part = far
        part_low = part * fy
        if corner % 2 == 0:
            part_low = part - part_low
        at = base + (corner // 2) * plane + (corner % 2) * row
        right = part_low * fx
        _add_to_corner(to_cells, at, inside, part_low - right)
        _add_to_corner(to_cells, at + 1, inside, right)


@triton.jit
def _slopes(cells, base, row, plane, fx, fy, fz, inside, gradient):
    """Derivative of gradient * sample by the place along x, y and z, in voxels."""
    fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
    left = _corner(cells, base, inside)
    top_x = _corner(cells, base + 1, inside) - left
    top = left + fx * top_x
    left = _corner(cells, base + row, inside)
    low_x = _corner(cells, base + row + 1, inside) - left
    low = left + fx * low_x
    near_x, near_y, near = _lerp(top_x, low_x, fy), low - top, _lerp(top, low, fy)
    base += plane
    left = _corner(cells, base, inside)
    top_x = _corner(cells, base + 1, inside) - left
    top = left + fx * top_x
    left = _corner(cells, base + row, inside)
    low_x = _corner(cells, base + row + 1, inside) - left
    low = left + fx * low_x
    far_x, far_y, far = _lerp(top_x, low_x, fy), low - top, _lerp(top, low, fy)
    along_x = tl.sum(gradient * _lerp(near_x, far_x, fz), axis=1)
    along_y = tl.sum(gradient * _lerp(near_y, far_y, fz), axis=1)
    return along_x, along_y, tl.sum(gradient * (far - near), axis=1)


@triton.jit(do_not_specialize=SIZES)
def draw(
    cells, turns, image, kept, image_size, num_samples, width, height, depth,
    KEEP: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Forward: fill `image` (B, H, W) and, with KEEP, `kept` (B, chunks, H, W)."""
    kind: tl.constexpr = cells.dtype.element_ty
    view, pixel, here, u, v, half_chord = _pixels(image_size, kind, TILE_WIDTH, TILE_HEIGHT)
    x_line, x_slope = _line(turns, view, 0, u, v, width)
    y_line, y_slope = _line(turns, view, 1, u, v, height)
    z_line, z_slope = _line(turns, view, 2, u, v, depth)
    row, plane = width + 2, (width + 2) * (height + 2)
    pixels = (image_size * image_size).to(tl.int64)
    first_kept = view * tl.cdiv(num_samples, CHUNK)
    reach = half_chord * (0.5 * num_samples.to(kind))
    first, end = _chunks(reach, num_samples, CHUNK)
    passed = tl.full(u.shape, 1.0, kind)
    light = tl.zeros(u.shape, kind)
    for chunk in range(first, end):
        if KEEP:
            tl.store(kept + (first_kept + chunk) * pixels + pixel, passed, mask=here)
        for k in tl.static_range(CHUNK):
            t, share = _step(chunk * CHUNK + k, reach, num_samples)
            inside = share > 0.0
            base, fx, fy, fz = _locate(
                t, x_line, x_slope, y_line, y_slope, z_line, z_slope, width, height, depth
            )  # fmt: skip
            opacity, absorbance = _sample(cells, base, row, plane, fx, fy, fz, inside)
            opacity *= share
            light += passed * opacity * (1.0 - absorbance)
            passed *= 1.0 - opacity
    tl.store(image + view * pixels + pixel, light, mask=here)


@triton.jit(do_not_specialize=SIZES)
def draw_backward(
    cells, turns, kept, upstream, to_cells, to_turns, image_size, num_samples, width, height, depth,
    TO_CELLS: tl.constexpr, TO_TURNS: tl.constexpr,
    TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Transpose of `draw`: add to `to_cells`, and fill one row of `to_turns` (programs, 9), each only if wanted.

    Back to front, with b the light from behind sample k weighted by the upstream gradient g:
        d_opacity_k = T_k (g colour_k - b),  d_absorbance_k = -T_k opacity_k g,  b += opacity_k (g colour_k - b)
    """
    kind: tl.constexpr = cells.dtype.element_ty
    view, pixel, here, u, v, half_chord = _pixels(image_size, kind, TILE_WIDTH, TILE_HEIGHT)
    x_line, x_slope = _line(turns, view, 0, u, v, width)
    y_line, y_slope = _line(turns, view, 1, u, v, height)
    z_line, z_slope = _line(turns, view, 2, u, v, depth)
    row, plane = width + 2, (width + 2) * (height + 2)
    pixels = (image_size * image_size).to(tl.int64)
    first_kept = view * tl.cdiv(num_samples, CHUNK)
    reach = half_chord * (0.5 * num_samples.to(kind))
    first, end = _chunks(reach, num_samples, CHUNK)
    g = tl.load(upstream + view * pixels + pixel, mask=here, other=0.0)
    behind = tl.zeros(u.shape, kind)
    at_x, at_y, at_z = tl.zeros(u.shape, kind), tl.zeros(u.shape, kind), tl.zeros(u.shape, kind)
    along_x, along_y, along_z = tl.zeros(u.shape, kind), tl.zeros(u.shape, kind), tl.zeros(u.shape, kind)
    for back in range(end - first):
        chunk = end - 1 - back
        passed = tl.load(kept + (first_kept + chunk) * pixels + pixel, mask=here, other=0.0)
        transmittances, opacities, colours = (), (), ()
        for k in tl.static_range(CHUNK):
            t, share = _step(chunk * CHUNK + k, reach, num_samples)
            inside = share > 0.0
            base, fx, fy, fz = _locate(
                t, x_line, x_slope, y_line, y_slope, z_line, z_slope, width, height, depth
            )  # fmt: skip
            opacity, absorbance = _sample(cells, base, row, plane, fx, fy, fz, inside)
            opacity *= share
            # Triton's compiler knows no starred tuples.
            transmittances = transmittances + (passed,)  # noqa: RUF005
            opacities = opacities + (opacity,)  # noqa: RUF005
            colours = colours + (1.0 - absorbance,)  # noqa: RUF005
            passed *= 1.0 - opacity
        for k in tl.static_range(CHUNK):
            t, share = _step(chunk * CHUNK + (CHUNK - 1 - k), reach, num_samples)
            inside = share > 0.0
            base, fx, fy, fz = _locate(
                t, x_line, x_slope, y_line, y_slope, z_line, z_slope, width, height, depth
            )  # fmt: skip
            weight, opacity, colour = transmittances[CHUNK - 1 - k], opacities[CHUNK - 1 - k], colours[CHUNK - 1 - k]
            gain = g * colour - behind
            behind += opacity * gain
            gradient = tl.join(weight * gain * share, -weight * opacity * g)
            if TO_CELLS:
                _spread(to_cells, base, row, plane, fx, fy, fz, inside, gradient)
            if TO_TURNS:
                dx, dy, dz = _slopes(cells, base, row, plane, fx, fy, fz, inside, gradient)
                at_x, at_y, at_z = at_x + dx, at_y + dy, at_z + dz
                along_x, along_y, along_z = along_x + t * dx, along_y + t * dy, along_z + t * dz
    if TO_TURNS:
        # Where a sample is, is linear in the matrix: u times its first row, v times its second, t times its third.
        target = to_turns + tl.program_id(0) * 9
        sx, sy, sz = 0.5 * width.to(kind), 0.5 * height.to(kind), 0.5 * depth.to(kind)
        tl.store(target + 0, tl.sum(u * at_x, axis=0) * sx)
        tl.store(target + 1, tl.sum(u * at_y, axis=0) * sy)
        tl.store(target + 2, tl.sum(u * at_z, axis=0) * sz)
        tl.store(target + 3, tl.sum(v * at_x, axis=0) * sx)
        tl.store(target + 4, tl.sum(v * at_y, axis=0) * sy)
        tl.store(target + 5, tl.sum(v * at_z, axis=0) * sz)
        tl.store(target + 6, tl.sum(along_x, axis=0) * sx)
        tl.store(target + 7, tl.sum(along_y, axis=0) * sy)
        tl.store(target + 8, tl.sum(along_z, axis=0) * sz)
