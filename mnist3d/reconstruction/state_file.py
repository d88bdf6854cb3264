"""`state.safetensors`: what a reconstruction has done so far, so that it can go on; it cannot carry code."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import RunError
from ..storage.plain_files import check_plain_file
from .ab_initio import SIZE
from .pose_search import Poses
from .refinement import Rounds
from .unknown_views import Stages

STATE_FILE = "state.safetensors"
ROUND_TENSORS = ("volumes", "raw", "curve")
POSE_TENSORS = ("rotations", "shifts", "unexplained")


def fingerprint(options: dict[str, Any], images: Tensor) -> str:
    """What a state belongs to: options that change the result, and the images."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(images.numpy()).tobytes())
    return digest.hexdigest()


def state_bytes(stages: Stages, mark: str) -> bytes:
    """The content of the file."""
    tensors = {f"start.{number}": volume.contiguous() for number, volume in enumerate(stages.starts)}
    numbers: dict[str, Any] = {"mark": mark, "left": stages.left}
    if stages.rounds is not None:
        state = stages.rounds
        tensors |= {name: getattr(state, name).contiguous() for name in ROUND_TENSORS}
        tensors |= {name: getattr(state.poses, name).contiguous() for name in POSE_TENSORS}
        numbers["rounds"] = [state.done, state.resolution, state.before, state.still]
    return save(tensors, metadata={"mnist3d": json.dumps(numbers)})


def read_state(path: Path, mark: str, count: int, size: int) -> Stages:
    """What was done before; nothing where there is no file.

    Args:
        path: of the file.
        mark: of `fingerprint`, of the present images and options.
        count: of the images.
        size: pixels of the images.

    Raises:
        RunError: damaged, or of other images or options.
    """
    if not path.exists():
        return Stages()
    try:
        check_plain_file(path)
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["mnist3d"])
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if numbers["mark"] != mark:
            raise RunError(
                f"output={path.parent}: holds a reconstruction of other images or with other options; give those, or "
                "a new folder"
            )
        left = [float(value) for value in numbers["left"]]
        starts = [tensors[f"start.{number}"] for number in range(len(left))]
        rounds = None
        if "rounds" in numbers:
            done, resolution, before, still = numbers["rounds"]
            poses = Poses(*(tensors[name] for name in POSE_TENSORS))
            volumes, raw, curve = (tensors[name] for name in ROUND_TENSORS)
            rounds = Rounds(int(done), volumes, raw, poses, curve, float(resolution), float(before), bool(still))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: damaged ({reason}); give a new folder") from None
    grid, coarse = (size,) * 3, (SIZE,) * 3
    expected = {"volumes": (2, *grid), "raw": (2, *grid), "curve": (size // 2,), "rotations": (count, 3, 3)}
    expected |= {"shifts": (count, 2), "unexplained": (count,)}
    if any(tuple(tensor.shape) != expected.get(name, coarse) for name, tensor in tensors.items()):
        raise RunError(f"{path}: damaged (its arrays have other shapes than they should); give a new folder")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise RunError(f"{path}: damaged (holds numbers that are not finite); give a new folder")
    return Stages(starts, left, rounds)
