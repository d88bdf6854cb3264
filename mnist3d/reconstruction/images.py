"""From the values of images to line integrals, and the images brought to the size that is reconstructed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from .fourier import PIXELS_AT_ONCE, resized
from .noise import noise_of
from .pixels import RING, disc, radius_of
from .stack_files import Stack

InputKind = Literal["transmission", "absorption", "line_integral"]
INPUT_KINDS: tuple[str, ...] = get_args(InputKind)
DARKEST = 1e-3  # share of the light that passes, at least: its logarithm is an optical depth of 7
BRIGHT = 0.8, 1.25  # of what lies outside the object in a transmission, whose light is 1 there
NOISE_PIXELS = 2**22  # of the images in which the noise is measured, whose transforms take ten times their memory
MOST_SIZE = 64  # pixels, unless more are asked for
MOST = 0.75  # share of the images in which the middle must be the darker, to be believed; by chance it is in half


@dataclass(frozen=True)
class Observed:
    """What a reconstruction is made of.

    Args:
        lines: line integrals of attenuation, dimensionless: (B, N, N).
        kind: what the file's values were taken for.
        said: why, in one line.
        pixel_size: of these images' pixels, after they were brought to their size.
        unit: of the pixel size.
        noise: standard deviation of a pixel's noise, by `noise.noise_of`.
        hints: what looks wrong, and what to do, a line each.
        filled: share of the pixels that hold noise; less than 1 where images were masked.
        noise_known: whether that can be all the noise.
    """

    lines: Float[Tensor, "B N N"]
    kind: str
    said: str
    pixel_size: float
    unit: str
    noise: float
    hints: tuple[str, ...] = ()
    filled: float = 1.0
    noise_known: bool = True

    @property
    def signal_to_noise(self) -> float:
        """Variance of the object in the images, by that of the noise, inside the unit disc; infinite without noise."""
        inside = disc(self.lines.shape[-1])
        total, noise = float(self.lines[:, inside].var()), self.noise**2
        of_noise = noise * min(self.filled / float(inside.float().mean()), 1.0)
        return max(total - of_noise, 0.0) / noise if self.noise > 1e-3 * total**0.5 else float("inf")

    @property
    def white_noise(self) -> float:
        """Standard deviation of the noise that would have the same power in an image that it fills."""
        return self.noise * math.sqrt(self.filled)


def guess_kind(values: Float[np.ndarray, "B N N"]) -> tuple[InputKind | None, str]:
    """What the values are, and how one can tell: a bright border, values in [0, 1], or anything else.

    None where a border is bright, but not near 1: light that nobody divided by that of the empty beam, most likely.
    """
    low, high = float(values.min()), float(values.max())
    radius = radius_of(values.shape[-1]).numpy()
    border, middle = float(np.median(values[:, radius > RING])), float(np.median(values[:, radius < 0.5]))
    seen = f"values from {low:.3g} to {high:.3g}, {border:.3g} at the border"
    if low >= 0.0 and BRIGHT[0] <= border <= BRIGHT[1] and border > middle:
        return "transmission", seen
    if low >= 0.0 and darker_inside(values):
        return None, seen
    if low >= 0.0 and high <= 1.0:
        return "absorption", seen
    return "line_integral", seen


def darker_inside(values: Float[np.ndarray, "B N N"]) -> bool:
    """Whether most images are darker in the middle than at the border."""
    radius = radius_of(values.shape[-1]).numpy()
    inside, border = radius < 0.5, radius > RING
    weights = (inside / inside.sum() - border / border.sum()).astype(values.dtype)
    return float((values.reshape(len(values), -1) @ weights.ravel() < 0.0).mean()) >= MOST


def observe(
    path: Path,
    stack: Stack,
    *,
    kind: InputKind | None = None,
    size: int | None = None,
    pixel_size: float | None = None,
    unit: str | None = None,
    invert: bool = False,
) -> Observed:
    """Line integrals of a stack.

        transmission   -log(value)        value: share of the light that passes, > 0
        absorption     -log(1 - value)    as views of this project with absorbance 0
        line_integral  value, or with `invert` -value

    Args:
        path: for messages.
        stack: as it was read.
        kind: None: guessed by the values.
        size: pixels to bring the images to; None: their own, at most `MOST_SIZE`.
        pixel_size: of the file's pixels; None: what the file says, else 1 pixel.
        unit: of the pixel size.
        invert: whether matter is negative in the line integrals.

    Raises:
        DataError: values that the kind cannot have or that no kind was guessed for, a size beyond the images', or
            `invert` with another kind.
    """
    values = stack.values
    old = values.shape[-1]
    if size is not None and not 8 <= size <= old:
        raise DataError(f"size={size}: must be in [8, {old}], as the images of {path} have {old} pixels")
    edge = min(old, MOST_SIZE) if size is None else size
    if kind is None:
        kind, seen = guess_kind(values)
        if kind is None:
            raise DataError(
                f"input: cannot be guessed of {path}: {seen}, which is brighter than the middle, as in a transmission, "
                "whose border must be near 1; divide the images by the light of the empty beam, or say with --input "
                f"what they are, one of {', '.join(INPUT_KINDS)}"
            )
        said = f"input={kind}, by the {seen}; --input {' or '.join(k for k in INPUT_KINDS if k != kind)} says otherwise"
    else:
        said = f"input={kind}"
    if invert and kind != "line_integral":
        raise DataError(
            f"invert: only with line integrals, and {said}; leave it out, or give --input line_integral if they are"
        )
    _check_possible(path, values, kind)
    lines, dark = torch.empty(len(values), edge, edge), 0
    at_once = max(1, PIXELS_AT_ONCE // old**2)
    for begin in range(0, len(values), at_once):  # in parts: a stack can be as large as the memory allows
        some = _lines(torch.from_numpy(np.ascontiguousarray(values[begin : begin + at_once])), kind, invert)
        dark += int((some >= -math.log(DARKEST)).sum()) if kind != "line_integral" else 0
        lines[begin : begin + at_once] = resized(some, edge, 2)
    if invert:
        said += "; inverted"
    if dark > 0:
        share = dark / values.size
        said += f"; {share:.2%} of the pixels let less than a thousandth pass, and count as a thousandth"
    outside = lines[:, radius_of(edge) > RING]
    some = np.linspace(0, len(values) - 1, min(len(values), max(2, NOISE_PIXELS // old**2))).astype(int)
    noise = noise_of(_lines(torch.from_numpy(np.ascontiguousarray(values[some])), kind, invert))
    deviation = float(outside.std()) if noise.filled == 1.0 else noise.deviation * edge / old
    own = stack.pixel_size if pixel_size is None else pixel_size
    found_unit = unit or (stack.unit if own is not None and pixel_size is None else "angstrom" if own else "pixel")
    hints = _hints(lines.numpy(), kind, math.exp(-float(outside.median())))
    return Observed(
        lines,
        kind,
        said,
        (1.0 if own is None else own) * old / edge,
        found_unit,
        deviation,
        hints,
        noise.filled,
        noise.known,
    )


def _check_possible(path: Path, values: Float[np.ndarray, "B N N"], kind: InputKind) -> None:
    if kind == "line_integral":
        return
    bad = values.min(axis=(1, 2)) < 0.0 if kind == "transmission" else values.max(axis=(1, 2)) > 1.0
    if bad.any():
        wrong, limit = ("< 0", ">= 0") if kind == "transmission" else ("> 1", "<= 1")
        raise DataError(
            f"input={kind}: {int(bad.sum()):,} of {len(values):,} images of {path} hold values {wrong}, which must be "
            f"{limit}; give --input line_integral if they are line integrals"
        )


def _lines(values: Float[Tensor, "B N N"], kind: InputKind, invert: bool) -> Float[Tensor, "B N N"]:
    if kind == "line_integral":
        return -values if invert else values
    passes = values.log() if kind == "transmission" else torch.log1p(-values)  # 1 - 1e-9 is 1 in single precision
    return -passes.clamp_min(math.log(DARKEST))


def _hints(lines: Float[np.ndarray, "B N N"], kind: InputKind, passes: float) -> tuple[str, ...]:
    """What looks wrong; `passes` is the share of the light that passes at the border."""
    if kind != "line_integral" and not BRIGHT[0] <= passes <= BRIGHT[1]:
        return (
            f"input={kind}: at the border, where nothing should be, a share of {passes:.2g} of the light passes and "
            "not 1; divide the light by that of the empty beam",
        )
    if kind == "line_integral" and darker_inside(lines):
        return (
            "most images are darker in the middle than at the border, but matter must be positive in line integrals; "
            "--invert turns the sign (light that passes needs --input transmission, divided by the empty beam)",
        )
    return ()


def moved_back(lines: Float[Tensor, "B N N"], shifts: Float[Tensor, "B 2"]) -> Float[Tensor, "B N N"]:
    """Images moved by minus their shifts, pixels, so that the object lies in the middle; what leaves comes in again."""
    return moved_by(lines, -shifts)


def moved_by(lines: Float[Tensor, "B N N"], shifts: Float[Tensor, "B 2"]) -> Float[Tensor, "B N N"]:
    """Images moved right and down by a number of pixels; cyclic, exact for what is band-limited."""
    size = lines.shape[-1]
    down = torch.fft.fftfreq(size)[:, None] * shifts[:, 1, None, None]
    right = torch.fft.rfftfreq(size) * shifts[:, 0, None, None]
    return torch.fft.irfft2(torch.fft.rfft2(lines) * torch.exp(-2j * torch.pi * (down + right)), s=(size, size))


def likely_shifts(lines: Float[Tensor, "B N N"], noise: float, max_shift: float) -> Float[Tensor, "B 2"]:
    """How far each image's object is off the middle, pixels, right and down, by its centre of mass.

    The mass of an object is the same from everywhere, so the median of all images stands for it, which noise in one
    image does not move. Where noise moves the centre of mass more than the object can lie off, little of what is found
    is believed: of two normal distributions, one of shifts and one of errors, the likeliest shift.

    Args:
        lines: line integrals.
        noise: standard deviation of a pixel.
        max_shift: along each axis, pixels, > 0.
    """
    size = lines.shape[-1]
    axis, within = torch.arange(size) - (size - 1) / 2.0, disc(size)
    inside = lines * within
    mass = inside.sum((1, 2)).median().clamp_min(1e-12)
    found = torch.stack([(inside.sum(1) * axis).sum(1), (inside.sum(2) * axis).sum(1)], dim=-1) / mass
    error = noise**2 * (axis.square() * within).sum() / mass.square()
    return (found / (1.0 + 3.0 * error / max_shift**2)).clamp(-max_shift, max_shift)
