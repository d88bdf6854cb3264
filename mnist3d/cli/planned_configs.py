"""The configuration of each run that was planned: of its words, or of the folder in which many runs go on.

A run keeps what it was begun with. A folder of somebody else's imports nothing, and reads nothing that its user has not
agreed to.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, RunError
from ..runs.building import spelt_out
from ..runs.class_paths import import_volume_class
from ..runs.config import Config
from ..runs.trust import acts_of
from ..storage.plain_files import read_plain
from ..storage.plain_yaml import MAX_BYTES, read_yaml_file
from ..sweeps.folder import SweepFolder
from ..sweeps.plan import Planned
from .parser import parse_command_line

OURS = "mnist3d."  # begins the paths of our own classes


def planned_configs(
    place: Path, runs: Iterable[Planned], *, resumed: bool, trust: bool, kind: str, source: str
) -> dict[str, Config]:
    """The configuration of each run, by its name.

    Args:
        place: folder of all of them.
        runs: that were planned.
        resumed: whether they go on as the folder says, and not as their words do.
        trust: whether the user lets them read and download what the folder names.
        kind: what the folder holds, for messages: "sweep".
        source: with what it is begun, for messages: "its SPEC.yaml".

    Raises:
        ConfigError: one cannot be run, or is not what it was in the beginning.
        RunError: what goes on would do what its user has not said.
    """
    configs: dict[str, Config] = {}
    for run in runs:
        file = place / "configs" / f"{run.name}.yaml"
        words = run.words
        if resumed:
            _check_is_trusted(place, run.name, _values(file, kind, source), trust, source)
            words = [f"--config={file}"]
        try:
            config = parse_command_line(words).config
        except ConfigError as error:
            raise ConfigError(f"{run.name}: {error}") from None
        configs[run.name] = _as_the_run_has_it(config)
        known = [dataclasses.asdict(each) for each in (config, configs[run.name])]
        if not resumed and file.is_file() and _values(file, kind, source) not in known:
            raise ConfigError(
                f"{run.name}: the presets or files that it names have changed since the {kind} in {place} began; "
                f"--resume {place} goes on as it was, --output FOLDER begins anew"
            )
    return configs


def write_configs(folder: SweepFolder, configs: Mapping[str, Config]) -> None:
    """Those that are not there yet, or that another version has written in other words."""
    texts = {name: config.to_yaml() for name, config in configs.items()}
    folder.write_configs({name: text for name, text in texts.items() if _text(folder.config(name)) != text})


def words_of_trust(configs: Iterable[Config]) -> list[str]:
    """What must stand behind `--resume` so that runs which read files or download go on."""
    return ["--trust"] if any(map(_acts_of, configs)) else []


def imports_nothing(configs: Iterable[Config]) -> bool:
    """Whether all classes are ours: `--resume` imports no others, so they must be named again."""
    return all(path.startswith(OURS) for config in configs for path in _classes_of(config))


def _classes_of(config: Config) -> list[str]:
    """The class paths of its volume and of the objectives of others."""
    return [config.volume["class_path"], *(each["class_path"] for each in config.objectives)]


def _as_the_run_has_it(config: Config) -> Config:
    """With what the volume itself puts in the place of null, as a run notes it: it must be told the same to go on."""
    try:
        with torch.device("meta"):  # without memory
            volume = import_volume_class(config.volume["class_path"])(**config.volume["init_args"])
    except Exception:  # somebody else's class may need another device; what is wrong with it, its run says
        return config
    return spelt_out(config, volume)


def _text(file: Path) -> str:
    """What a file holds; empty where it cannot be read."""
    try:
        return read_plain(file, MAX_BYTES).decode()
    except (OSError, ValueError):
        return ""


def _check_is_trusted(place: Path, name: str, values: Any, trust: bool, source: str) -> None:
    config = Config.from_mapping(values)
    for path in _classes_of(config):
        if not path.startswith(OURS):
            raise RunError(
                f"resume={place}: {name} imports {path}; go on with {source} that names it, and --output {place}"
            )
    acts = _acts_of(config)
    if acts and not trust:
        key, value = next(iter(acts.items()))
        raise RunError(
            f"resume={place}: the {key} of {name} is {value}, which would be read or downloaded; if that is what you "
            "want, add --trust"
        )


def _acts_of(config: Config) -> dict[str, str]:
    """What a run that is begun or gone on with reads or downloads."""
    return acts_of(config) | ({} if config.start_from is None else {"start_from": config.start_from})


def _values(file: Path, kind: str, source: str) -> Any:
    """What a configuration in the folder says."""
    try:
        return read_yaml_file(file)
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); begin the {kind} anew with {source}") from None
    except ValueError as error:
        raise RunError(f"{file}: damaged ({error}); begin the {kind} anew with {source}") from None
