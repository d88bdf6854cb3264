"""From the values of a file to attenuation and absorbance: what is refused, left empty and scaled.

Four options, the same in Python and behind `FILE#`. Nothing here knows a format.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError

# Per world unit, of the value at the percentile. Where photons are counted, the relative error of a measured
# attenuation goes as exp(d / 2) / d, d being the object's optical depth, and is least at d = 2. An object is taken to
# be half as thick as the world is wide, 1 world unit; its view is then 1 - exp(-2) = .86 bright.
SCALED_ATTENUATION = 2.0
CHOICES = {"negative": ("refuse", "clip"), "not_finite": ("refuse", "empty")}
NUMBERS = ("threshold", "percentile")


@dataclass(frozen=True)
class ValueOptions:
    """How the values of a file become attenuation. In this order:

        NaN, infinity   refused, or 0
        < 0             refused, or 0; 0 where there is a threshold, as it is below that
        < threshold     0; the rest stays as it is
        percentile      attenuation = 2 per world unit * value / (value at that percentile of the voxels > 0)

    For absorbance only the first two steps count, and a threshold does not spare it the second.

    Args:
        negative: "refuse" or "clip": whether a voxel < 0 is refused or empty, as for noise around 0.
        not_finite: "refuse" or "empty": whether a voxel of NaN or infinity is refused or empty, as outside a mask.
        threshold: >= 0, in the file's own values. A voxel below it is empty: a contour level. None: no threshold.
        percentile: In (0, 100]. The value there becomes an attenuation of 2 per world unit, in any unit of the
            file. None: values are attenuation per unit of the file.

    Raises:
        ValueError: a value that is not allowed.
    """

    negative: str = "refuse"
    not_finite: str = "refuse"
    threshold: float | None = None
    percentile: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: must be {' or '.join(allowed)}")
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
                raise ValueError(f"{name}={value!r}: must be a number")
        if self.threshold is not None and not 0.0 <= self.threshold < math.inf:
            raise ValueError(f"threshold={self.threshold}: must be finite and >= 0, in the values of the file")
        if self.percentile is not None and not 0.0 < self.percentile <= 100.0:
            raise ValueError(f"percentile={self.percentile}: must be > 0 and <= 100")

    def told(self, texts: Mapping[str, str]) -> "ValueOptions":
        """These options, and those that stand as text behind the name of a file.

        Args:
            texts: option -> what was typed; only the names of options.

        Raises:
            ValueError: no number where one is needed, a value that is not allowed, an option that was given already.
        """
        values: dict[str, Any] = {**vars(self)}
        for name, text in texts.items():
            if values[name] != getattr(ValueOptions, name):
                raise ValueError(f"{name}={text}: is given twice, also as {name}={values[name]}; must be given once")
            values[name] = text
            if name in NUMBERS:
                try:
                    values[name] = float(text)
                except ValueError:
                    raise ValueError(f"{name}={text}: must be a number") from None
        return ValueOptions(**values)


VALUE_OPTIONS = (*CHOICES, *NUMBERS)  # their names


def with_option(file: str, option: str, value: str | int) -> str:
    """The name of a file, as it was typed, with one more option after its #."""
    joint = "," if re.search("#[a-z_]+=", file) else "#"
    return f"{file}{joint}{option}={value}"


def make_usable(file: str, values: Float[np.ndarray, "2 Z Y X"], options: ValueOptions) -> float | None:
    """Bring attenuation and absorbance into their ranges, in place; not yet scaled.

    Args:
        file: as it was named, with what stands behind `#`; for the messages.
        values: of the file, in its own unit.
        options: what is done with them.

    Returns:
        What a value of 1 is per world unit where `percentile` says it, else None.

    Raises:
        VolumeFileError: voxels that the options refuse, or none left.
    """
    attenuation, absorbance = values
    for channel, of in ((attenuation, ""), (absorbance, " of its absorbance")):
        _make_finite(file, channel, of, options.not_finite == "empty")
        thresholded = channel is attenuation and options.threshold is not None
        _lift_to_zero(file, channel, of, options.negative == "clip" or thresholded)
    if above := int((absorbance > 1.0).sum()):
        raise VolumeFileError(
            f"{file}: {_count(above, absorbance)} of its absorbance are > 1, up to {absorbance.max():g}; it must be in "
            "[0, 1]: divide it in the tool that made it"
        )
    most = float(attenuation.max())
    if options.threshold is not None:
        if most < options.threshold:
            raise VolumeFileError(
                f"{file}: threshold={options.threshold:g}: every voxel is below it; must be <= {most:g}"
            )
        attenuation[attenuation < options.threshold] = 0.0
    if options.percentile is None:
        return None
    if most == 0.0:
        raise VolumeFileError(
            f"{file}: percentile={options.percentile:g}: no voxel is > 0, so there is none to scale by"
        )
    return SCALED_ATTENUATION / float(np.percentile(attenuation[attenuation > 0.0], options.percentile))


def scale(file: str, values: Float[np.ndarray, "2 Z Y X"], factor: float) -> None:
    """Make the values attenuation per world unit, in place.

    Raises:
        VolumeFileError: one that float32 does not hold.
    """
    most = float(values[0].max())
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        values[0] *= np.float32(factor)
    if not np.isfinite(values[0]).all():
        raise VolumeFileError(
            f"{file}: its largest value, {most:g}, is {most * factor:g} per world unit, more than float32 holds; scale "
            "it by a percentile (percentile=99.9), or in the tool that made it"
        )


def _make_finite(file: str, channel: Float[np.ndarray, "Z Y X"], of: str, allowed: bool) -> None:
    wrong = ~np.isfinite(channel)
    number = int(wrong.sum())
    if number and not allowed:
        nans = int(np.isnan(channel).sum())
        raise VolumeFileError(
            f"{file}: {_count(number, channel)}{of} are not finite ({nans:,} NaN, {number - nans:,} infinite); "
            f"make them empty: {_remedies(file, 'not_finite', 'empty')}"
        )
    channel[wrong] = 0.0


def _lift_to_zero(file: str, channel: Float[np.ndarray, "Z Y X"], of: str, allowed: bool) -> None:
    wrong = channel < 0.0
    number = int(wrong.sum())
    if number and not allowed:
        raise VolumeFileError(
            f"{file}: {_count(number, channel)}{of} are < 0, in [{channel.min():g}, {channel.max():g}]; make them "
            f"empty: {_remedies(file, 'negative', 'clip')}"
        )
    channel[wrong] = 0.0


def _count(number: int, channel: np.ndarray) -> str:
    return f"{number:,} of {channel.size:,} voxels"


def _remedies(file: str, option: str, value: str) -> str:
    """As it is typed, in Python and on the command line."""
    return f'VoxelGrid.load("{file}", {option}="{value}"), or --start_from "{with_option(file, option, value)}"'
