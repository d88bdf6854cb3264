"""`--resume`: what a run says of itself, whom it may import, and what may change when it goes on."""

import dataclasses
import shlex
from typing import Any

from ..errors import ConfigError, RunError
from ..runs.class_paths import import_objective_class, import_volume_class
from ..runs.config import SECTIONS, Config, flat, read_values
from ..runs.validation import shown
from ..storage.last_two import previous
from ..storage.run_directory import RunDirectory
from ..viewer.options import ViewerOptions
from ..volumes import OWN_VOLUMES, class_path

# How long it goes on, where, and who watches: not what it is. The volume's class adds arguments of its own.
RESUMABLE = (
    "trainer.max_steps",
    "trainer.max_minutes",
    "trainer.stop_after",
    "trainer.save_every",
    "trainer.views_at_once",
    "device",
    "renderer.impl",
    "scorecard.every",
    "scorecard.train_classifiers",
    "watchdog",
    *(f"viewer.{field.name}" for field in dataclasses.fields(ViewerOptions)),
)


def values_to_resume(path: str, named: dict[Any, Any]) -> dict[Any, Any]:
    """The configuration of a run that is to go on, after a look at whether its classes are trusted.

    Of its page it says nothing: who may watch is for the user who goes on with it.

    Args:
        path: the run directory.
        named: what the user says, merged: a run directory alone never causes an import.

    Raises:
        RunError: nothing to resume there, or a class that the user has not named.
    """
    run = RunDirectory(path)
    for needed, instead in ((run.config_path, run.config_path), (run.resume_path, previous(run.resume_path))):
        if not needed.is_file() and not instead.is_file():
            if needed.exists():
                raise RunError(f"resume={path}: nothing to resume there, {needed.name} is not a plain file")
            raise RunError(f"resume={path}: nothing to resume there, {needed.name} is missing")
    values = read_values(run, exactly=True)
    volume = values.get("volume", {}).get("class_path")
    ours = [class_path(found) for found in OWN_VOLUMES.values()]
    if volume not in (None, named.get("volume", {}).get("class_path"), *ours):
        raise RunError(f"resume={path}: its volume is a {volume}; to trust it, add --volume {shlex.quote(volume)}")
    for objective in [spec["class_path"] for spec in values.get("objectives", [])]:
        if objective not in named.get("objectives", []):
            adding = f"--objectives.add {shlex.quote(objective)}"
            raise RunError(f"resume={path}: its objective is a {objective}; to trust it, add {adding}")
    return {key: value for key, value in values.items() if key != "viewer"}


def check_resumable(before: Config, after: Config, written: dict[Any, Any]) -> None:
    """A run goes on as what it was.

    Args:
        before: what the run says, by itself.
        after: with what the user says.
        written: what `config.yaml` says, without this version's defaults.

    Raises:
        ConfigError: something has changed that must not.
    """
    old, new = _flat(before), _flat(after)
    allowed = (*RESUMABLE, *(f"volume.{name}" for name in import_volume_class(after.volume["class_path"]).RESUMABLE))
    said = flat(written)
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key != "objectives", key)):
        # What the file doesn't say is newer than the run: there its value before is this version's default, no more.
        # Of a class nothing is guessed: its shape must be what the weights have.
        kept = key in said or key.partition(".")[0] not in SECTIONS
        if kept and old.get(key) != new.get(key) and key.replace(".init_args", "") not in allowed:
            raise ConfigError(
                f"{key}={shown(new.get(key))}: a resumed run keeps its {key}={shown(old.get(key))}; "
                f"only {', '.join(allowed)} may change"
            )


def _flat(config: Config) -> dict[str, Any]:
    """Dotted keys, those of an objective below its name."""
    values = dataclasses.asdict(config)
    paths = [spec["class_path"] for spec in config.objectives]
    named = {import_objective_class(spec["class_path"]).name: spec["init_args"] for spec in config.objectives}
    return flat({**values, "objectives": paths, **named})
