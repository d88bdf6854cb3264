"""Configurations of version 0.1: which key became which, and which values are constants now.

A table, and its use on plain mappings. Values are not checked here, and an old key that stays where it was is not
named.
"""

import copy
from typing import Any

from ..invocation import program_name
from ..training.objectives.target_list import RENAMED

VOXEL_GRID, HASH_GRID = "mnist3d.volumes.VoxelGrid", "mnist3d.volumes.HashGrid"
MOVED = {
    "trainer.discriminator_rate": "discriminator.rate",
    "losses.adversarial": "adversarial.pairing",
    "losses.adversarial_weight": "adversarial.weight",
    "losses.penalty": "adversarial.penalty",
    "losses.diversity": "diversity.weight",
    "losses.diversity_everywhere": "class_balance.weight",
    "losses.nearest": "nearest_image.weight",
    "losses.nearest_from": "nearest_image.start",
    "volume.init_args.init": "start_from",
    "watchdog.enabled": "watchdog",
    "watchdog.act": "watchdog",
}
ANY_VALUE = object()  # none of them changed what a run computes
CONSTANTS: dict[str, Any] = {
    "trainer.decay_from": 0.5,
    "trainer.final_rate": 0.1,
    "trainer.average_decay": 0.98,
    "trainer.max_shift": 2,
    "poses.elevation_spread": 0.2,
    "renderer.stratified": True,
    "losses.classification": 1.0,
    "losses.penalty_every": 4,
    "losses.nearest_quantile": 0.58,
    "losses.nearest_registration": 0.2,
    "losses.nearest_focus": 6.0,
    "scorecard.train_judges": ANY_VALUE,
    "watchdog.window": 90,
    "watchdog.rate_scale": 0.5,
    "watchdog.max_rewinds": 3,
    "volume.init_args.table_rate": 1.0,
}
OF_VOLUME = {"volume.init_args.init": VOXEL_GRID, "volume.init_args.table_rate": HASH_GRID}  # others' are their own


def translated(values: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """What version 0.1 or this one wrote, with the keys of this one.

    Args:
        values: plain values, not checked; they stay as they are.

    Returns:
        The same with moved keys moved and constants left out, and of these a line for each that was another number.
    """
    values = copy.deepcopy(values)
    differing = []
    for key, constant in CONSTANTS.items():
        if not _present(values, key):
            continue
        value = _popped(values, key)
        if constant is not ANY_VALUE and value != constant:
            differing.append(f"{key}={value}: is always {_shown(constant)} since version 0.2")
    if isinstance(values.get("watchdog"), dict):
        enabled, act = (_popped(values, f"watchdog.{name}") is not False for name in ("enabled", "act"))
        if not values["watchdog"]:  # what is left over is no key of 0.1 either, and refused with its name
            values["watchdog"] = ("rewind" if act else "warn") if enabled else "off"
    for old, new in MOVED.items():
        if new == "watchdog" or not _present(values, old):
            continue
        value = _popped(values, old)
        section, _, name = new.rpartition(".")
        into = values.setdefault(section, {}) if section else values
        if isinstance(into, dict):
            into.setdefault(name, value)
    if values.get("losses") == {}:
        del values["losses"]
    data = values.get("data")
    if isinstance(data, dict) and "resize" in data:  # all keys are there, but for those that 0.1 did not know
        data.setdefault("invert", False)
    targets = values.get("targets")
    for entries in targets.values() if isinstance(targets, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            for old, new in RENAMED.items() if isinstance(entry, dict) else ():
                if old in entry:
                    entry.setdefault(new, entry.pop(old))
    return values, differing


def moved_or_gone(key: str, volume: str) -> str | None:
    """What became of a key of version 0.1, as a message for who still writes it; None for any other key.

    Args:
        key: "losses.nearest", or "volume.init_args.init".
        volume: class path of the volume.
    """
    if OF_VOLUME.get(key, volume) != volume:
        return None
    named = key.replace(".init_args", "")
    if key in MOVED:
        how = ", with off, warn or rewind," if MOVED[key] == "watchdog" else ""
        return f"{named}: is {MOVED[key]}{how} since version 0.2"
    if key == "scorecard.train_judges":
        return f"{named}: is no option since version 0.2; {program_name('score')} trains the classifiers, once"
    if key in CONSTANTS:
        return f"{named}: is no option since version 0.2, but always {_shown(CONSTANTS[key])}"
    return None


def _shown(constant: Any) -> str:
    return f"{constant}".lower()


def _holder(values: dict[Any, Any], key: str) -> Any:
    """The mapping that holds the last part of a dotted key, or something else where there is none."""
    holder: Any = values
    for part in key.split(".")[:-1]:
        holder = holder.get(part) if isinstance(holder, dict) else None
    return holder


def _present(values: dict[Any, Any], key: str) -> bool:
    volume = values.get("volume")
    if key in OF_VOLUME and (not isinstance(volume, dict) or volume.get("class_path") != OF_VOLUME[key]):
        return False
    holder = _holder(values, key)
    return isinstance(holder, dict) and key.rpartition(".")[2] in holder


def _popped(values: dict[Any, Any], key: str) -> Any:
    return _holder(values, key).pop(key.rpartition(".")[2], None)
