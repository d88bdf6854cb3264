"""The command line: flags and YAML files -> Config, and a user's errors in one line.

What it is: what `train.py` and the tools share of talking to a person at a terminal.
What it is not: no option is defined here but those that choose files.
"""

import argparse
import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile as ActionConfigFile
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ..errors import ConfigError, RunError
from ..runs.building import import_volume_class
from ..runs.config import DEFAULT_VOLUME, DEFAULT_VOLUME_ARGUMENTS, SECTIONS, Config, read_config
from ..runs.session import CommandLine
from ..storage.run_directory import RunDirectory
from ..volumes import Volume, class_path
from .messages import _one_line

# What a resumed run may be told anew: how long it goes on and where, not what it is.
RESUMABLE = (
    "trainer.max_steps",
    "trainer.max_minutes",
    "trainer.stop_after",
    "device",
    "scorecard.every",
    "scorecard.train_judges",
    "watchdog.enabled",
    "watchdog.act",
    "viewer.enabled",
    "viewer.port",
    "viewer.host",
    "viewer.share",
)


class _Parser(ArgumentParser):
    """jsonargparse's parser, with the options of the chosen volume in `--help`."""

    shown_volume: type[Volume] | None = None

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        if self.shown_volume is None:  # jsonargparse makes more parsers of this class, as for --volume.help
            return super().format_help(*args, **kwargs)
        volume = ArgumentParser(prog="", add_help=False, usage="")
        volume.add_class_arguments(self.shown_volume, "volume", skip=set())
        volume.set_defaults({f"volume.{key}": value for key, value in _own_defaults(self.shown_volume).items()})
        text = volume.format_help()
        return (
            super().format_help(*args, **kwargs).rstrip()
            + "\n\n"
            + text[text.index("\n") :].strip()
            + "\n\nOptions of another volume class: --volume CLASS_PATH --help\n"
        )


def _own_defaults(volume: type[Volume]) -> dict[str, Any]:
    """What a run builds a volume of this class with where nothing is said, beside the class's own defaults."""
    return copy.deepcopy(DEFAULT_VOLUME_ARGUMENTS) if class_path(volume) == DEFAULT_VOLUME else {}


def _parser(volume: type[Volume], own_defaults: dict[str, Any]) -> ArgumentParser:
    parser = _Parser(
        prog=Path(sys.argv[0]).name,
        description="Sculpt a volume whose views look like the given pictures.",
        exit_on_error=False,
        allow_abbrev=False,  # a typo must not become another key
    )
    parser.shown_volume = volume
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the keys below, see configs/.")
    parser.add_argument("--run_dir", type=str | None, help="Folder of the new run; default runs/<time>-<preset>.")
    parser.add_argument("--resume", type=str | None, help="Folder of a run to go on with.")
    parser.add_argument("--seed", type=int, default=0, help="Of everything random.")
    device = Literal["auto", "cpu", "cuda"]
    parser.add_argument("--device", type=device, default="auto", help="auto takes a CUDA GPU where there is one.")
    chosen = {"class_path": class_path(volume), "init_args": own_defaults}
    parser.add_subclass_arguments(Volume, "volume", default=chosen, help="What is sculpted.")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    return parser


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """The configuration that a command line asks for.

    Args:
        arguments: without the program's name.

    Raises:
        ConfigError, DataError, RunError: one line about what is wrong with them.
        SystemExit: after `--help` and `--print_config`.
    """
    arguments = list(arguments)
    resumed = _resumed_config(arguments)
    inserted = [] if resumed is None else ["--config", str(resumed.config_path)]
    # What a resumed run does not say is what its class says: so it was built.
    volume = _chosen_volume([*inserted, *arguments])
    parser = _parser(volume, _own_defaults(volume) if resumed is None else {})
    parsed = _parse(parser, inserted + arguments)
    config = _to_config(parsed)
    if resumed is not None:
        _check_resumable(resumed, _to_config(_parse(parser, inserted)), config)
    named = [Path(str(path)).stem for path in parsed.config or []]
    preset = named[-1] if named and resumed is None else "digits"
    if parsed.resume is not None and parsed.run_dir is not None:
        raise ConfigError("run_dir and resume: a resumed run goes on in its own folder; give only one of the two")
    return CommandLine(config, parsed.run_dir, parsed.resume, preset)


def _parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise ConfigError(_one_line(str(error), parser)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def _to_config(parsed: Namespace) -> Config:
    values = parsed.as_dict()
    chosen = {name: values[name] for name in ("seed", "device", "volume", *SECTIONS)}
    chosen["volume"] = {
        "class_path": class_path(import_volume_class(chosen["volume"]["class_path"])),
        "init_args": chosen["volume"].get("init_args", {}),
    }
    return Config.from_mapping(chosen)


def _chosen_volume(arguments: list[str]) -> type[Volume]:
    """The class that `--volume` or a `--config` names, imported here first: jsonargparse hides why it fails."""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    finder.add_argument("--config", dest="chosen", action="append", default=[], type=_volume_of_file)
    finder.add_argument(
        "--volume", "--volume.class_path", dest="chosen", action="append", default=[], type=_volume_of_text
    )
    try:
        known, _ = finder.parse_known_args(arguments)
    except argparse.ArgumentError:
        known = argparse.Namespace(chosen=[])  # the real parser says it better
    named = [import_volume_class(name) for name in known.chosen if name is not None]
    return named[-1] if named else import_volume_class(DEFAULT_VOLUME)


def _volume_of_file(name: str) -> str | None:
    try:
        values = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None  # the real parser says it better
    return _class_path_in(values.get("volume")) if isinstance(values, dict) else None


def _volume_of_text(text: str) -> str | None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return _class_path_in(value) if isinstance(value, dict) else text


def _class_path_in(value: Any) -> str | None:
    found = value.get("class_path") if isinstance(value, dict) else value
    return None if found is None else str(found)


def _resumed_config(arguments: list[str]) -> RunDirectory | None:
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    finder.add_argument("--resume")
    finder.add_argument("--volume", action="append", default=[])
    try:
        known, _ = finder.parse_known_args(arguments)
    except argparse.ArgumentError:
        return None  # the real parser says it better
    if known.resume is None:
        return None
    run = RunDirectory(known.resume)
    for path in (run.config_path, run.resume_path):
        if not path.is_file():
            raise RunError(f"resume={known.resume}: nothing to resume there, {path.name} is missing")
    name = str(read_config(run).volume.get("class_path"))
    trusted = {class_path(import_volume_class(given)) for given in known.volume}
    if not name.startswith("mnist3d.volumes.") and name not in trusted:
        raise RunError(f"resume={known.resume}: its volume is a {name}; to trust it, add --volume {name}")
    return run


def _check_resumable(run: RunDirectory, before: Config, after: Config) -> None:
    old, new = _flat(dataclasses.asdict(before)), _flat(dataclasses.asdict(after))
    written = _flat(yaml.safe_load(run.config_path.read_text(encoding="utf-8")))
    volume_class = import_volume_class(after.volume["class_path"])
    allowed = (*RESUMABLE, *(f"volume.{name}" for name in volume_class.RESUMABLE))
    for key in sorted(old.keys() | new.keys()):
        # What the file doesn't say is newer than the run: there its value before is this version's default, no more.
        kept = key in written or key.startswith("volume.")
        if kept and old.get(key) != new.get(key) and key.replace(".init_args", "") not in allowed:
            raise ConfigError(
                f"{key}={new.get(key)}: a resumed run keeps its {key}={old.get(key)}; "
                f"only {', '.join(allowed)} may change"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
