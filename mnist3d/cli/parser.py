"""The command line of `train`: flags and YAML files -> nested mappings of plain values -> Config.

Flags come from `flags`, are merged in `merging` and checked in `runs.validation`.
"""

import argparse
import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shown
from ..runs.building import CommandLine
from ..runs.class_paths import full_path
from ..runs.config import Config, flat
from ..runs.trust import check_resume_is_trusted
from ..runs.validation import checked, did_you_mean, no_such_key
from ..runs.version_0_1 import moved_or_gone
from ..storage.last_two import previous
from ..storage.plain_yaml import read_yaml_file
from ..storage.run_directory import RunDirectory
from .flags import choosing_parser, full_parser, known_keys
from .merging import Values, classes_of, config_of, merge, merge_flag
from .presets import preset_file, preset_names
from .resuming import check_resumable, values_to_resume


def parse_command_line(
    arguments: Sequence[str], began_here: Callable[[Path], bool] = lambda folder: False
) -> CommandLine:
    """The configuration that a command line asks for.

    Args:
        arguments: without the program's name.
        began_here: whether a folder holds a run that an earlier try of this very command has begun, and that goes on.

    Raises:
        ConfigError, RunError: one line about what is wrong with them.
        SystemExit: after `--help` and `--print_config`.
    """
    read = functools.cache(_read_file)  # once, so that what is trusted is what is used
    chosen = _parsed(choosing_parser(), arguments)[0].given
    named = _merged({}, chosen, read)
    resume = checked(str | None, named.get("resume"), "resume")
    again, begun = checked(str | None, named.get("run_dir"), "run_dir"), False
    if resume is None and again is not None and began_here(Path(again)):
        begun, resume = True, again if _is_saved(again) else None
    base, written = {}, {}
    if resume is not None:
        written = values_to_resume(resume, named)
        merge(base, written)
    # Each class that is named on the way may have been told something, though another takes its place.
    volumes = [classes_of(_merged(base, chosen[:count], read))[0] for count in range(len(chosen) + 1)]
    volume, objectives = classes_of(_merged(base, chosen, read))
    parsed, unknown = _parsed(full_parser(volume, objectives, passed_over=volumes), arguments)
    if unknown:
        raise _unknown(unknown[0], full_path(volume), known_keys(volume, objectives))
    values = _merged(base, parsed.given, read)
    run_dir = checked(str | None, values.pop("run_dir", None), "run_dir")
    if run_dir is not None and not run_dir.strip():
        raise ConfigError("run_dir is empty: must be the folder of the new run; leave it out for runs/TIME-PRESET")
    values.pop("resume", None)
    config = config_of(values)
    if resume is not None:
        check_resumable(config_of(base), config, written)
        if run_dir is not None and not begun:
            raise ConfigError("run_dir and resume: a resumed run goes on in its own folder; give only one of the two")
        if not parsed.trust:
            check_resume_is_trusted(resume, config, flat(_merged({}, parsed.given, read)))
    else:
        _check_path_is_used(config)
    if resume is None and parsed.trust:
        raise ConfigError("trust: is for a run that is there already; add --resume FOLDER, or leave --trust out")
    if parsed.print_config:
        print(config.to_yaml(), end="")
        raise SystemExit(0)
    files = [Path(value).stem for key, value in parsed.given if key == "config"]
    return CommandLine(config, run_dir, resume, files[-1] if files and resume is None else "digits", begun)


def _is_saved(folder: str) -> bool:
    """Whether there is something to go on with."""
    saved = RunDirectory(folder).resume_path
    return saved.is_file() or previous(saved).is_file()


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What the parser knows, and what it does not."""
    try:
        return parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        key = (error.argument_name or "").split("/")[-1].strip("-")
        if error.message == "expected one argument":
            raise ConfigError(f"{key}: no value follows; write --{key} VALUE, or --{key}=VALUE") from None
        raise ConfigError(f"{key}: {error.message}") from None


def _merged(base: Values, given: Sequence[tuple[str, Any]], read: Callable[[str], Values]) -> Values:
    """Flags and files on top of a base, in the order in which they were given."""
    values = copy.deepcopy(base)
    for key, value in given:
        if key == "config":
            merge(values, read(value))
        else:
            merge_flag(values, key, value)
    return values


def _check_path_is_used(config: Config) -> None:
    """A folder that nothing would read is a forgotten `data.name`. Runs that were begun with one may go on.

    Raises:
        ConfigError: there is one.
    """
    if config.data.path is not None and config.data.name == "mnist_5k":
        raise ConfigError(
            f"data.path={shown(config.data.path)}: is not used by data.name=mnist_5k; add --data.name images for a "
            "folder of images, or --data.name idx for idx files"
        )


def _unknown(argument: str, volume: str, known: Sequence[str]) -> ConfigError:
    if argument in preset_names() or (argument.endswith(".yaml") and argument[0] != "-"):
        return ConfigError(f"{argument}: must follow a flag, as in --config {argument}")
    key = argument.lstrip("-").partition("=")[0]
    if key in ("preset", "presets"):
        return ConfigError(f"{key}: no such key; a preset is chosen with --config, as in --config {preset_names()[0]}")
    place, _, name = key.rpartition(".")
    message = moved_or_gone(f"volume.init_args.{name}" if place == "volume" else key, volume)
    return no_such_key(key, known) if message is None else ConfigError(message)


def _read_file(name: str) -> Values:
    """The mapping in a preset or in a YAML file; a file that is named as a preset needs its folder, ./digits."""
    path, presets = Path(name), preset_names()
    try:
        values = read_yaml_file(preset_file(name) if name in presets else path)
    except FileNotFoundError:
        hint = did_you_mean(path.stem, presets) or f"; presets are {', '.join(presets)}"
        raise ConfigError(f"config={name}: no such preset or file{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"config={name}: is a folder; give a YAML file, or the name of a preset") from None
    except OSError as error:
        raise ConfigError(f"config={name}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"config={shown(name)}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config={name}: the file is empty or no mapping; write lines KEY: VALUE, as the presets do")
    return values
