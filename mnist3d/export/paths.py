"""Closed ways around a sculpture: the frame after the last would be the first.

A name or a file of keyframes -> rotations. Distributions of random views are in `geometry.rotations`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ExportError
from ..geometry.rotations import PoseOptions, euler_matrix, sample_rotations, turntable
from ..storage.plain_yaml import read_yaml_file

TILT = 0.7  # radians to each side
EIGHT = (0.9, 0.45)  # radians of azimuth and elevation
WALK_VIEWS = 8  # views that a seed walk passes
KEYS = ("azimuth", "elevation", "roll")


def _turntable(count: int, elevation: float, seed: int, poses: PoseOptions | None) -> Tensor:
    return turntable(count, elevation)


def _tilt(count: int, elevation: float, seed: int, poses: PoseOptions | None) -> Tensor:
    phase = _phase(count)
    angles = torch.stack([elevation + TILT * phase.sin(), torch.zeros(count), torch.zeros(count)], dim=-1)
    return euler_matrix(angles)


def _figure_eight(count: int, elevation: float, seed: int, poses: PoseOptions | None) -> Tensor:
    phase = _phase(count)
    across, up = EIGHT
    return euler_matrix(
        torch.stack([elevation + up * (2.0 * phase).sin(), across * phase.sin(), torch.zeros(count)], dim=-1)
    )


def _seed_walk(count: int, elevation: float, seed: int, poses: PoseOptions | None) -> Tensor:
    views = sample_rotations(WALK_VIEWS, torch.Generator().manual_seed(seed), poses)
    keyframes = torch.stack([_angles(view) for view in views])
    keyframes[:, 0] += elevation
    return euler_matrix(_closed_curve(keyframes, count))


CAMERA_PATHS: dict[str, tuple[str, Callable[[int, float, int, PoseOptions | None], Tensor]]] = {
    "turntable": ("one turn around the vertical axis", _turntable),
    "tilt": ("up and down", _tilt),
    "seed_walk": ("through random views of the training's pose distribution, chosen by --seed", _seed_walk),
    "figure_eight": ("the shape of an 8 around the front", _figure_eight),
}


def camera_path(
    path: str, count: int, *, elevation: float = 0.0, seed: int = 0, poses: PoseOptions | None = None
) -> Float[Tensor, "B 3 3"]:
    """Rotations along a closed path, evenly spaced in time; the one after the last would be the first.

    Args:
        path: a name of `CAMERA_PATHS`, or a YAML file: a list of two or more keyframes, each with any of azimuth,
            elevation and roll in degrees. Between them the shorter way round is taken, smoothly.
        count: frames, at least 1.
        elevation: radians, added to every view of a named path.
        seed: of seed_walk.
        poses: the distribution that seed_walk draws from; default euler_normal.

    Raises:
        ExportError: no such path, or a file that holds no keyframes.
    """
    if path in CAMERA_PATHS:
        with torch.device("cpu"):  # as random draws are, whatever torch's default
            return CAMERA_PATHS[path][1](count, elevation, seed, poses)
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        raise ExportError(f"path={path}: must be one of {', '.join(CAMERA_PATHS)} or a file of keyframes, FILE.yaml")
    with torch.device("cpu"):
        return euler_matrix(_closed_curve(_read_keyframes(Path(path)), count))


def _read_keyframes(path: Path) -> Float[Tensor, "K 3"]:
    try:
        entries = read_yaml_file(path)
    except OSError as error:
        raise ExportError(f"path={path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ExportError(f"path={path}: {error}") from None
    example = "it must be a list of two or more, each such as {azimuth: 90, elevation: 10, roll: 0}, in degrees"
    if not isinstance(entries, list) or len(entries) < 2:
        raise ExportError(f"path={path}: no list of keyframes; {example}")
    return torch.stack([_keyframe(path, entry, example) for entry in entries])


def _keyframe(path: Path, entry: Any, example: str) -> Float[Tensor, "3"]:
    if not isinstance(entry, dict) or not entry or not set(entry) <= set(KEYS):
        raise ExportError(f"path={path}: {entry!r} is no keyframe; {example}")
    angles = [entry.get(key, 0.0) for key in KEYS]
    if not all(type(angle) in (int, float) and abs(angle) <= 36000 for angle in angles):
        raise ExportError(f"path={path}: {entry!r} holds what is no angle; {example}")
    azimuth, elevation, roll = map(math.radians, angles)
    return torch.tensor([elevation, azimuth, roll])


def _phase(count: int) -> Float[Tensor, " B"]:
    return 2.0 * math.pi * torch.arange(count) / max(count, 1)


def _angles(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "3"]:
    """The inverse of `euler_matrix`; of the two triples that give a rotation, the one with less roll."""
    a = torch.atan2(-rotation[1, 2], rotation[2, 2])
    b = torch.asin(rotation[0, 2].clamp(-1.0, 1.0))
    c = torch.atan2(-rotation[0, 1], rotation[0, 0])
    if c.abs() <= math.pi / 2.0:
        return torch.stack([a, b, c])
    return torch.stack([a + math.pi, math.pi - b, c - math.copysign(math.pi, float(c))])


def _closed_curve(keyframes: Float[Tensor, "K 3"], count: int) -> Float[Tensor, "B 3"]:
    """Catmull-Rom through the keyframes and back to the first, each difference the shorter way round."""
    turn = 2.0 * math.pi
    steps = keyframes.roll(-1, 0) - keyframes
    steps = steps - turn * torch.round(steps / turn)
    whole = torch.cat([keyframes[:1], keyframes[0] + steps.cumsum(0)])  # K + 1 points, the last one turns further
    drift = whole[-1] - whole[0]  # a whole number of turns
    known = len(keyframes)
    points = torch.cat([whole[-2:-1] - drift, whole, whole[1:2] + drift])
    time = torch.arange(count) * (known / count)
    first = time.long().clamp_max(known - 1)
    s = (time - first)[:, None]
    p0, p1, p2, p3 = (points[first + k] for k in range(4))
    return p1 + 0.5 * s * (p2 - p0 + s * (2 * p0 - 5 * p1 + 4 * p2 - p3 + s * (3 * (p1 - p2) + p3 - p0)))
