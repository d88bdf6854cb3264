"""Volumes and their views in Fourier space: a view's transform is a slice of the volume's.

Views here are line integrals of attenuation, dimensionless. The origin is the middle of the world, which lies half a
pixel beside a pixel's centre where their number is even. Frequencies are whole cycles over the world's width
("shells"); N / 2 is Nyquist's. Source of it all: Bracewell, "Strip integration in radio astronomy" (1956).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor

PADDING = 2  # the transform is sampled this many times finer, so that linear interpolation is enough (RELION's too)
IMAGES_AT_ONCE = 100  # bounds the memory; larger parts leave the cache and take three times as long
PIXELS_AT_ONCE = 2**20  # of images that are brought to another size, whose transforms take ten times their memory
BALL_EDGE, BALL_WIDTH = 0.95, 0.02  # the rim of the ball, world units: soft, so that it makes no ripples
WIENER_FLOOR = 1e-3  # share of a shell's mean weight that is added to it


def half_disc(shell: int | float, *, with_middle: bool = False) -> Int[Tensor, "F 2"]:
    """The frequencies (x, y) of a real image up to a shell, one of each pair f and -f.

    Args:
        shell: cycles over the world's width, >= 1.
        with_middle: whether (0, 0), the sum of the image, is among them.
    """
    most = math.floor(shell + 0.5)
    y, x = torch.meshgrid(torch.arange(-most, most + 1), torch.arange(most + 1), indexing="ij")
    inside = (x.square() + y.square()).double().sqrt() < shell + 0.5
    kept = inside & ((x > 0) | (y > 0) | ((x == 0) & (y == 0) & with_middle))
    return torch.stack([x[kept], y[kept]], dim=-1)


def coefficients(
    images: Float[Tensor, "B N N"], frequencies: Int[Tensor, "F 2"], padding: int = 1
) -> Float[Tensor, "B F 2"]:
    """Real and imaginary part of images' transforms at some frequencies.

    Args:
        images: square, filling [-1, 1]^2.
        frequencies: (x, y), x >= 0, cycles over `padding` widths of the world.
        padding: how many times finer than the images' own the transform is sampled.
    """
    size = images.shape[-1] * padding
    x, y = frequencies.unbind(-1)
    found = torch.fft.rfft2(images, s=(size, size))[:, y % size, x]
    middle = (images.shape[-1] - 1) / 2.0
    return torch.view_as_real(found * _phase((x + y) * (middle / size)))


def moved(
    found: Float[Tensor, "B F 2"], frequencies: Int[Tensor, "F 2"], shifts: Float[Tensor, "B 2"], size: int
) -> Float[Tensor, "B F 2"]:
    """The transforms of images that are moved by (x, y) pixels.

    Args:
        found: of images of `size` pixels.
        frequencies: cycles over the width of `size` pixels.
        shifts: pixels, right and down.
        size: pixels.
    """
    turns = shifts @ frequencies.T.to(shifts) / size
    return torch.view_as_real(torch.view_as_complex(found.contiguous()) * _phase(-turns))


def _phase(turns: Float[Tensor, "..."]) -> Complex[Tensor, "..."]:
    angle = 2.0 * math.pi * turns
    return torch.complex(angle.cos(), angle.sin())


def volume_transform(volume: Float[Tensor, "N N N"]) -> Float[Tensor, "2 M M M"]:
    """The transform that `slices` cuts views out of; zero frequency at index M / 2 = N.

    Args:
        volume: attenuation per world unit, any sign.
    """
    size = len(volume)
    fine = PADDING * size
    spectrum = torch.fft.fftn(volume / _falloff(size), s=(fine,) * 3) * (2.0 / size)
    spectrum = torch.fft.fftshift(spectrum) * _centring(size, 1.0)
    return torch.stack([spectrum.real, spectrum.imag])


def slices(
    transform: Float[Tensor, "2 M M M"], rotations: Float[Tensor, "B 3 3"], frequencies: Int[Tensor, "F 2"]
) -> Float[Tensor, "B F 2"]:
    """The coefficients of views.

    Args:
        transform: of `volume_transform`.
        rotations: x_camera = R x_world.
        frequencies: of the views, cycles over the world's width.

    Gradients:
        To the transform and to the rotations.
    """
    places = _places(rotations, frequencies.to(rotations) * PADDING, transform.shape[-1])
    found = F.grid_sample(transform[None], places[None, :, :, None], align_corners=True)
    return found[0, :, :, :, 0].permute(1, 2, 0)


def _places(rotations: Float[Tensor, "B 3 3"], frequencies: Float[Tensor, "F 2"], fine: int) -> Float[Tensor, "B F 3"]:
    """Where the world frequencies R^T (fx, fy, 0) lie, as `grid_sample` counts: -1 is the first sample, 1 the last."""
    return (frequencies @ rotations[:, :2] + fine // 2) * (2.0 / (fine - 1)) - 1.0


def empty_sums(size: int) -> Float[Tensor, "3 M M M"]:
    """No slices yet."""
    return torch.zeros(3, *(PADDING * size,) * 3)


def insert(
    images: Float[Tensor, "B N N"], rotations: Float[Tensor, "B 3 3"], shifts: Float[Tensor, "B 2"] | None = None
) -> Float[Tensor, "3 M M M"]:
    """The slices of images put where they belong: sums of real part, imaginary part and weights.

    Args:
        images: line integrals.
        rotations: x_camera = R x_world of each.
        shifts: how many pixels (x, y) each was moved, which is undone; None: none.
    """
    size = images.shape[-1]
    fine = PADDING * size
    frequencies = half_disc(size - 1.5, with_middle=True)
    # Slices lie the denser the nearer to the origin, as 1 / |f|; without this a sample would stand for one further in.
    evenly = frequencies.float().norm(dim=-1, keepdim=True).clamp_min(0.5)
    sums = empty_sums(size).requires_grad_()
    total = torch.zeros_like(sums)
    for part in torch.arange(len(images)).split(IMAGES_AT_ONCE):
        found = coefficients(images[part], frequencies, PADDING)
        if shifts is not None:
            found = moved(found, frequencies, -shifts[part], fine)
        values = (torch.cat([found, torch.ones_like(found[..., :1])], dim=-1) * evenly).permute(2, 0, 1)
        places = _places(rotations[part], frequencies.to(rotations), fine)
        # The adjoint of linear interpolation spreads a value over its eight neighbours.
        with torch.enable_grad():
            read = F.grid_sample(sums[None], places[None, :, :, None], align_corners=True)
        (spread,) = torch.autograd.grad(read, sums, values[None, ..., None])
        total += spread
    return total.detach()


def solve(sums: Float[Tensor, "3 M M M"], floor: float = WIENER_FLOOR) -> Float[Tensor, "N N N"]:
    """The volume whose slices were inserted, of any sign, empty outside the ball.

    Args:
        sums: of `insert`.
        floor: share of a shell's mean weight that is added to each weight, so that gaps stay empty.
    """
    fine = sums.shape[-1]
    size = fine // PADDING
    spectrum = torch.complex(sums[0], sums[1])
    spectrum, weights = spectrum + _opposite(spectrum).conj(), sums[2] + _opposite(sums[2])
    radius = _radius(fine)
    shell = radius.round().long().clamp_max(size)
    in_shell = torch.zeros(size + 1).index_add(0, shell.flatten(), torch.ones(shell.numel()))
    mean = torch.zeros(size + 1).index_add(0, shell.flatten(), weights.flatten()) / in_shell
    spectrum = spectrum / (weights + floor * mean[shell] + 1e-6 * mean.max() + 1e-30)
    spectrum = torch.where(radius <= size - 1, spectrum, torch.zeros_like(spectrum)) * _centring(size, -1.0)
    found = torch.fft.ifftn(torch.fft.ifftshift(spectrum)).real[:size, :size, :size]
    return found / _falloff(size) * (size / 2.0) * soft_ball(size)


def _opposite(grid: Tensor) -> Tensor:
    """f -> -f, where index 0 is its own opposite."""
    return torch.roll(torch.flip(grid, (0, 1, 2)), (1, 1, 1), (0, 1, 2))


def _radius(fine: int) -> Float[Tensor, "M M M"]:
    axis = torch.arange(fine) - fine // 2.0
    return (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()


def _centring(size: int, sign: float) -> Complex[Tensor, "M M M"]:
    """Moves the origin from the first voxel to the middle of the volume, or back."""
    fine = PADDING * size
    phase = _phase(sign * (torch.arange(fine) - fine // 2) * ((size - 1) / 2.0 / fine))
    return phase[:, None, None] * phase[:, None] * phase


def _falloff(size: int) -> Float[Tensor, "N N N"]:
    """What linear interpolation in Fourier space multiplies a volume by: sinc^2 along each axis."""
    axis = torch.sinc((torch.arange(size) - (size - 1) / 2.0) / (PADDING * size)).square()
    return axis[:, None, None] * axis[:, None] * axis


def soft_ball(size: int) -> Float[Tensor, "N N N"]:
    """1 inside the unit ball, 0 outside, with a soft rim."""
    axis = (2.0 * torch.arange(size) + 1.0) / size - 1.0
    radius = (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()
    return torch.sigmoid((BALL_EDGE - radius) / BALL_WIDTH)


def shells_of(size: int) -> Float[Tensor, "N N N"]:
    """The shell of each coefficient of `torch.fft.fftn`."""
    axis = torch.fft.fftfreq(size) * size
    return (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()


def filtered(volume: Float[Tensor, "N N N"], gains: Float[Tensor, " S"]) -> Float[Tensor, "N N N"]:
    """The volume with each shell multiplied; beyond the last it is empty.

    Args:
        volume: any.
        gains: of shell 0, 1, 2 and so on.
    """
    shell = shells_of(len(volume)).round().long()
    gain = torch.cat([gains, gains.new_zeros(1)])[shell.clamp_max(len(gains))]
    return torch.fft.ifftn(torch.fft.fftn(volume) * gain).real


def low_pass(volume: Float[Tensor, "N N N"], shell: int | float) -> Float[Tensor, "N N N"]:
    """The volume without what is finer than a shell; the edge is a fourth of a shell wide."""
    gain = torch.sigmoid((shell + 0.5 - shells_of(len(volume))) / 0.25)
    return torch.fft.ifftn(torch.fft.fftn(volume) * gain).real


def resized(values: Float[Tensor, "..."], size: int, dims: int) -> Float[Tensor, "..."]:
    """Images (dims 2) or volumes (dims 3) of another number of pixels, by leaving out or adding high frequencies.

    Values stay what they are: line integrals, or attenuation per world unit.

    Args:
        values: (..., N, N) or (..., N, N, N).
        size: pixels along each edge.
        dims: how many of the last axes are meant.
    """
    old = values.shape[-1]
    if old == size:
        return values
    if values.dim() == dims:
        return _resized(values, size, dims)
    at_once = max(1, PIXELS_AT_ONCE // old**dims)
    parts = values.flatten(0, -dims - 1).split(at_once)
    return torch.cat([_resized(part, size, dims) for part in parts]).reshape(*values.shape[:-dims], *(size,) * dims)


def _resized(values: Float[Tensor, "..."], size: int, dims: int) -> Float[Tensor, "..."]:
    old, axes = values.shape[-1], tuple(range(-dims, 0))
    spectrum = torch.fft.fftshift(torch.fft.fftn(values, dim=axes), dim=axes)
    reach = (min(old, size) - 1) // 2
    index = torch.arange(-reach, reach + 1)
    made = spectrum.new_zeros(*values.shape[:-dims], *(size,) * dims)
    for axis in axes:
        spectrum = spectrum.index_select(axis, index + old // 2)
        phase = _phase(index * (0.5 / size - 0.5 / old))  # the first pixel's centre lies elsewhere
        spectrum = spectrum * phase.reshape([-1] + [1] * (-axis - 1))
    place = slice(size // 2 - reach, size // 2 + reach + 1)
    made[(..., *(place,) * dims)] = spectrum
    return torch.fft.ifftn(torch.fft.ifftshift(made, dim=axes), dim=axes).real * (size / old) ** dims
