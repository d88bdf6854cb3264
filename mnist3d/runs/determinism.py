"""What two runs of one configuration may still differ in, in one line; `training.step_settings` does what torch can."""

import math

import torch

from .config import Config

# What adds to one place in any order when it is asked for by name; "auto" does not take it in a deterministic run.
IN_ANY_ORDER = {"renderer.impl": "triton", "volume.implementation": "tinycudann"}


def what_stays_open(config: Config, device: torch.device) -> str:
    """A line for the start of a deterministic run.

    Args:
        config: of the run.
        device: where it is computed.
    """
    chosen = {
        "renderer.impl": config.renderer.impl,
        "volume.implementation": config.volume["init_args"].get("implementation"),
    }
    found = [
        f"the gradient of {key}={name} (auto takes another)"
        for key, name in chosen.items()
        if IN_ANY_ORDER[key] == name
    ]
    if config.trainer.seconds_limit < math.inf:
        found.append("the number of steps (give trainer.max_steps instead of minutes)")
    if found:
        return f"deterministic: on {device} two runs may still differ in {' and in '.join(found)}"
    threads = "with the same number of threads" if device.type == "cpu" else "as far as torch knows"
    return f"deterministic: on {device} two runs are the same to the bit, {threads}"
