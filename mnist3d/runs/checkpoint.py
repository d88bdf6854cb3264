"""A run's `resume.pt` put back into its trainer, those of version 0.1 too."""

import io
import pickle
from textwrap import shorten
from typing import Any

import torch

from ..errors import RunError
from ..storage.run_directory import RunDirectory
from ..training.trainer import Trainer

# Where the state of version 0.1's parts lies now.
PARTS_OF_0_1 = {
    "discriminator": "adversarial.discriminator",
    "nearest_pull": "nearest_image",
    "target_weights": "targets.weights",
    "class_prices": "class_balance",
}


def load_checkpoint(trainer: Trainer, run: RunDirectory) -> None:
    """Go on exactly where the run was saved; figures of later steps, which come again, are dropped.

    Raises:
        RunError: the checkpoint is damaged or of other options, or the run is complete.
    """
    try:
        content = io.BytesIO(run.resume_path.read_bytes())
        state = torch.load(content, map_location="cpu", weights_only=True)
        trainer.load_state_dict(translated(state, trainer))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = shorten(" ".join(str(error).split()), 120, placeholder=" ...")
        raise RunError(f"{run.resume_path}: damaged, or of other options ({reason}); start a new run") from None
    if trainer.progress >= 1.0:
        raise RunError(
            f"resume={run.path}: that run is complete after {trainer.steps_done} steps and {trainer.seconds:.0f} s; "
            "give it more: --trainer.max_steps or --trainer.max_minutes"
        )
    run.cut_stats(trainer.steps_done)


def translated(state: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    """A state as this version writes it; one of version 0.1 kept the objectives' parts side by side.

    Args:
        state: of `Trainer.state_dict`, of this version or of 0.1.
        trainer: that shall take it; what it has no part for is left out.
    """
    if "objectives" in state:
        return state
    own = trainer.objectives.state_dict()
    found = {f"{new}.{key}": value for old, new in PARTS_OF_0_1.items() for key, value in state.get(old, {}).items()}
    optimiser = {"optimiser": state["discriminator_optimiser"], "last_penalty": state["last_penalty"]}
    found["adversarial._extra_state"] = optimiser
    # A run from before there was a class balance begins with even shares, as its objective does.
    objectives = {key: found.get(key, value) for key, value in own.items()}
    kept = {key: value for key, value in state.items() if key not in (*PARTS_OF_0_1, "last_penalty")}
    return {**kept, "objectives": objectives}
