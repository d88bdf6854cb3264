"""What a reconstruction leaves: volumes, poses, curve, report and figures, as the bytes of files."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ExportError
from ..formats.voxel_array import upright
from ..geometry.grids import WORLD_EXTENT
from ..storage.optional import require
from .fsc import HALF, HALF_MAPS
from .pose_search import Poses

SHOWN_DEPTH = 3.0  # optical depth of the thickest ray in `volume.safetensors`, where the images' unit is arbitrary
SEEN = 0.3, 30.0  # optical depths that look like something as they are
PANEL = 3.2  # inches
EXAMPLES = 3  # images that are shown beside their views
DENSEST = 20_000  # points of a map
FINEST_SHARE = 0.01  # of the histogram of unexplained shares, at least


@dataclass(frozen=True)
class Drawn:
    """What the figures show.

    Args:
        volume: attenuation per world unit.
        curve: FSC, of the half-maps or None.
        poses: of all images.
        images: some of them, in the middle: (K, N, N).
        views: of the volume, from where these images were taken.
        pixel_size: in the unit.
        unit: of lengths.
        agreement: of the starts.
    """

    volume: Float[Tensor, "N N N"]
    curve: Float[Tensor, " S"] | None
    poses: Poses
    images: Float[Tensor, "K N N"]
    views: Float[Tensor, "K N N"]
    pixel_size: float
    unit: str
    agreement: list[float]


def map_bytes(volume: Float[Tensor, "N N N"], pixel_size: float, folder: Path, label: str) -> bytes:
    """A volume as .mrc: upright (x right, y away, z up), attenuation per unit of length, of any sign.

    Args:
        volume: attenuation per world unit.
        pixel_size: edge of a voxel in the file's unit of length.
        folder: where a temporary file may lie.
        label: what it is.

    Raises:
        ExportError: mrcfile is not installed.
    """
    mrcfile: Any = require("mrcfile", "volume.mrc")
    path = folder / "map.mrc"
    per_unit = volume.numpy() * np.float32(WORLD_EXTENT / (len(volume) * pixel_size))
    with mrcfile.new(str(path), overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(upright(per_unit), np.float32))
        mrc.voxel_size = pixel_size
        mrc.set_volume()
        mrc.add_label(label)
    content = path.read_bytes()
    path.unlink()
    return content


def shown_factor(volume: Float[Tensor, "N N N"]) -> float:
    """What the attenuation is multiplied by so that views of it are neither black nor white; mostly 1."""
    depth = float(volume.sum(0).max()) * WORLD_EXTENT / len(volume)
    return 1.0 if SEEN[0] <= depth <= SEEN[1] or depth <= 0.0 else SHOWN_DEPTH / depth


def report_text(values: dict[str, Any]) -> str:
    """`report.json`; a number that is none is null."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def figure_bytes(drawn: Drawn) -> bytes | None:
    """The figures as one .png; None where matplotlib is not installed."""
    try:
        require("matplotlib", "figures")
    except ExportError:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((PANEL * 3, PANEL * 3), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(3, 3)
    _slices(axes[0], drawn)
    _curve(axes[1, 0], drawn)
    _directions(axes[1, 1], drawn)
    _residuals(axes[1, 2], drawn)
    _panel(axes[2], drawn)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _slices(axes: Any, drawn: Drawn) -> None:
    array, middle = drawn.volume.numpy(), len(drawn.volume) // 2
    shown = (("front: x, y", array[middle]), ("top: x, z", array[:, middle]), ("side: y, z", array[:, :, middle].T))
    for panel, (title, image) in zip(axes, shown, strict=True):
        panel.imshow(image, cmap="gray", vmin=0.0, vmax=float(array.max()) or 1.0)
        panel.set_title(f"slice, {title}", fontsize=9)
        panel.set_axis_off()


def _curve(panel: Any, drawn: Drawn) -> None:
    panel.set_title("half-maps' FSC", fontsize=9)
    if drawn.curve is None:
        panel.set_axis_off()
        return
    size = len(drawn.volume)
    shells = np.arange(1, len(drawn.curve) + 1)
    panel.plot(shells, drawn.curve.numpy(), color="black", linewidth=1.2)
    for threshold in (HALF, HALF_MAPS):
        panel.axhline(threshold, color="gray", linewidth=0.7, linestyle="--")
    ticks = [shell for shell in (size // 8, size // 4, size // 2) if shell > 0]
    panel.set_xticks(ticks, [f"{size / shell:.3g}\n{size / shell * drawn.pixel_size:.3g}" for shell in ticks])
    panel.set_xlabel(f"voxels, {drawn.unit}", fontsize=7)
    panel.tick_params(labelsize=7)
    panel.set_ylim(-0.1, 1.05)


def _directions(panel: Any, drawn: Drawn) -> None:
    """Where the images were taken from, in a map of equal area (Lambert's cylinder)."""
    forward = drawn.poses.rotations[:DENSEST, 2].numpy()
    longitude, height = np.degrees(np.arctan2(forward[:, 0], forward[:, 2])), -forward[:, 1]
    panel.hist2d(longitude, height, bins=(24, 12), range=((-180, 180), (-1, 1)), cmap="magma")
    panel.set_title("directions: longitude, sine of latitude", fontsize=9)
    panel.tick_params(labelsize=7)


def _residuals(panel: Any, drawn: Drawn) -> None:
    left = drawn.poses.unexplained
    left = left[left.isfinite()].clamp(0.0, 1.5).numpy()
    if len(left):
        # From 0: values that are all nearly the same have no 40 bins between them.
        panel.hist(left, bins=40, range=(0.0, max(float(left.max()), FINEST_SHARE)), color="gray")
    panel.set_title("share left unexplained, images", fontsize=9)
    if drawn.agreement:
        text = "starts agree: " + ", ".join(f"{value:.2f}" for value in drawn.agreement[:8])
        panel.set_xlabel(text, fontsize=7)
    panel.tick_params(labelsize=7)


def _panel(axes: Any, drawn: Drawn) -> None:
    strips = (("images", drawn.images), ("views", drawn.views), ("residuals", drawn.images - drawn.views))
    most = float(drawn.images.abs().max()) or 1.0
    for panel, (title, images) in zip(axes, strips, strict=True):
        limits = (-most / 2, most / 2) if title == "residuals" else (0.0, most)
        panel.imshow(torch.cat([*images], dim=-1).numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()
