"""A run's `resume.pt` put back into its trainer, those of version 0.1 too."""

import logging
import math
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError, VolumeFileError
from ..storage.last_two import previous
from ..storage.run_directory import RunDirectory, complete
from ..training.finite import each_value
from ..training.trainer import Trainer
from ..volumes import Volume, load_volume
from .archive import read_archive

# How large a checkpoint may be. An optimiser keeps two numbers for each weight.
FIXED_BYTES = 64 * 2**20  # for what somebody's objective remembers
OPTIMISED = 4  # times the weights
UNKNOWN_DOUBLINGS = 4  # of a volume whose schedule is its own
# Where the state of version 0.1's parts lies now.
PARTS_OF_0_1 = {
    "discriminator": "adversarial.discriminator",
    "nearest_pull": "nearest_image",
    "target_weights": "targets.weights",
    "class_prices": "class_balance",
}


def load_checkpoint(trainer: Trainer, run: RunDirectory) -> bool:
    """Go on exactly where the run was saved; figures of later steps, which come again, are dropped.

    Where the newest checkpoint is damaged or missing, the one before is taken, and a line says so.

    Returns:
        Whether the newest was taken and the volume beside it is whole: then both may become the ones before.

    Raises:
        RunError: all checkpoints are damaged or of other options, or the run is complete.
    """
    newest, before = run.resume_path, previous(run.resume_path)
    reason = _load(trainer, newest)
    if reason is not None:
        if not before.exists():
            raise RunError(f"{newest}: damaged, or of other options ({reason}); start a new run")
        if (other := _load(trainer, before)) is not None:
            raise RunError(
                f"{newest}: damaged, or of other options ({reason}), and so is {before.name} ({other}); start a new run"
            )
        logging.getLogger(__name__).warning(
            "%s cannot be used (%s); going on from %s of step %d", newest, reason, before.name, trainer.steps_done
        )
    if trainer.progress >= 1.0:
        limited = trainer.options.seconds_limit < math.inf
        raise complete(run.path, trainer.steps_done, trainer.seconds if limited else None)
    run.cut_stats(trainer.steps_done)
    return reason is None and _is_whole(run, trainer)


def _load(trainer: Trainer, path: Path) -> str | None:
    """Put a checkpoint into the trainer, or return why that cannot be."""
    try:
        trainer.load_state_dict(translated(read_archive(path, largest(trainer)), trainer))
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return error.strerror or f"{error}"
    except Exception as error:  # objectives of others load their part themselves, whatever they find there
        return shorten(" ".join(f"{error}".split()) or type(error).__name__, 120, placeholder=" ...")
    return None


def largest(trainer: Trainer) -> int:
    """Bytes that a checkpoint of this run may have: generous, yet bounded by what the run holds.

    The volume is counted as it will be after its last growth.
    """
    state = trainer.state_dict()
    sizes = {
        part: sum(value.nbytes for _, value in each_value(state[part]) if isinstance(value, Tensor))
        for part in ("volume", "averaged", "objectives")
    }
    volume, arguments = trainer.volume, trainer.volume.init_args
    if type(volume).grow is Volume.grow:
        doublings = 0
    elif "grow_at" in arguments:
        doublings = len(arguments["grow_at"] or [])
    else:
        doublings = UNKNOWN_DOUBLINGS
    volumes = (sizes["volume"] + sizes["averaged"]) * 8**doublings
    return FIXED_BYTES + OPTIMISED * (volumes + sizes["objectives"])


def _is_whole(run: RunDirectory, trainer: Trainer) -> bool:
    try:
        # To build a volume draws, and the trainer's generators have been restored already.
        with torch.random.fork_rng(devices=[]):
            load_volume(run.volume_path, trusted=[type(trainer.volume)])
    except (VolumeFileError, OSError):
        return False
    return True


def translated(state: Any, trainer: Trainer) -> dict[str, Any]:
    """A state as this version writes it; one of version 0.1 kept the objectives' parts side by side.

    Args:
        state: of `Trainer.state_dict`, of this version or of 0.1.
        trainer: that shall take it; what it has no part for is left out.

    Raises:
        ValueError: it is no state at all.
    """
    if not isinstance(state, dict):
        raise ValueError(f"it is a {type(state).__name__}, no state of a run")
    if "objectives" in state or "discriminator_optimiser" not in state:
        return state
    own = trainer.objectives.state_dict()
    found = {f"{new}.{key}": value for old, new in PARTS_OF_0_1.items() for key, value in state.get(old, {}).items()}
    optimiser = {"optimiser": state["discriminator_optimiser"], "last_penalty": state["last_penalty"]}
    found["adversarial._extra_state"] = optimiser
    # A run from before there was a class balance begins with even shares, as its objective does.
    objectives = {key: found.get(key, value) for key, value in own.items()}
    kept = {key: value for key, value in state.items() if key not in (*PARTS_OF_0_1, "last_penalty")}
    return {**kept, "objectives": objectives}
