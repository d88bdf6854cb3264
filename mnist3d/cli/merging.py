"""What a person says, in the order in which it was said, as one nested mapping of plain values, and that as a Config.

Mappings merge key by key, lists and single values replace, a later one wins. Classes of volumes and objectives are
imported here, so only what the user says may be merged: never a run directory on its own.

In a merged mapping, `volume` is {class_path, init_args} or less, `objectives` lists class paths, and an objective's
options stand as a section of its name.
"""

import copy
from typing import Any

from ..errors import ConfigError
from ..runs.class_paths import full_path, import_objective_class, import_volume_class
from ..runs.config import DEFAULT_VOLUME, Config, refuse_keys_of_0_1
from ..runs.validation import options_of, shown, validated_arguments
from ..training.objectives.base import Objective
from ..volumes import Volume
from .flags import OF_THE_COMMAND, WITHOUT_VALUE

Values = dict[Any, Any]  # YAML's keys can be anything
TAKEN = {*options_of(Config), *OF_THE_COMMAND, *WITHOUT_VALUE, "help"}
SPELT = "class_path", "init_args"


def merge(into: Values, values: Values) -> None:
    """Let values win over what was said before; a dotted key stands for mappings in each other, as a flag does.

    Raises:
        ConfigError: a class that there is not, or that is none.
    """
    for key, value in values.items():
        if key == "volume":
            _merge_volume(into, value)
        elif key == "objectives":
            _merge_objectives(into, value)
        elif isinstance(key, str) and "." in key:
            merge_flag(into, key, value)
        else:
            _merge_plain(into, key, value)


def merge_flag(into: Values, key: str, value: Any) -> None:
    """Let one flag win: `volume.resolution` is `volume.init_args.resolution`, `objectives.add` is one more.

    Raises:
        ConfigError: as `merge`.
    """
    if key == "objectives.add":
        _add_objective(into, value, {})
    elif key == "volume.class_path":
        merge(into, {"volume": value})
    else:
        section, _, name = key.rpartition(".")
        merge(into, {section: {name: value}} if section else {name: value})


def classes_of(values: Values) -> tuple[type[Volume], list[type[Objective]]]:
    """The volume and the objectives of somebody else's in what was merged."""
    volume = import_volume_class(values.get("volume", {}).get("class_path", DEFAULT_VOLUME))
    return volume, [import_objective_class(path) for path in values.get("objectives", [])]


def config_of(values: Values) -> Config:
    """The configuration that was merged, with all arguments of its classes.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range.
    """
    refuse_keys_of_0_1(values)
    volume, objectives = classes_of(values)
    rest = {key: value for key, value in values.items() if key not in [each.name for each in objectives]}
    given = values.get("volume", {}).get("init_args", {})
    rest["volume"] = {"class_path": full_path(volume), "init_args": validated_arguments(volume, given, "volume")}
    rest["objectives"] = [
        {
            "class_path": full_path(each),
            "init_args": validated_arguments(each, values.get(each.name, {}), each.name),
        }
        for each in objectives
    ]
    return Config.from_mapping(rest)


def _merge_plain(into: Values, key: Any, value: Any) -> None:
    if isinstance(value, dict) and isinstance(into.get(key), dict):
        for name, inner in value.items():
            _merge_plain(into[key], name, inner)
    else:
        into[key] = copy.deepcopy(value)


def _merge_volume(into: Values, value: Any) -> None:
    spec = _spec("volume", value if isinstance(value, dict) else {"class_path": value})
    kept = into.setdefault("volume", {})
    if "class_path" in spec:
        path = full_path(import_volume_class(spec["class_path"]))
        if kept.get("class_path", path) != path:
            kept.clear()  # arguments of another class mean something else
        kept["class_path"] = path
    _merge_plain(kept, "init_args", spec["init_args"])


def _merge_objectives(into: Values, value: Any) -> None:
    if not isinstance(value, list):
        raise ConfigError(f"objectives={shown(value)}: must be a list of class paths, [package.Class, ...]")
    into["objectives"] = []
    for number, each in enumerate(value):
        spec = _spec(f"objectives[{number}]", each if isinstance(each, dict) else {"class_path": each})
        if "class_path" not in spec:
            raise ConfigError(f"objectives[{number}]={shown(each)}: its class_path is missing")
        _add_objective(into, spec["class_path"], spec["init_args"])


def _add_objective(into: Values, path: str, arguments: Values) -> None:
    added = import_objective_class(path)
    if added.name in TAKEN:
        raise ConfigError(f"objectives={path}: its name {added.name} is a key of its own already; give it another name")
    for other in [import_objective_class(known) for known in into.setdefault("objectives", [])]:
        if other is not added and other.name == added.name:
            raise ConfigError(
                f"objectives={path}: its name {added.name} is that of {full_path(other)} too; give one another name"
            )
    if full_path(added) not in into["objectives"]:  # named again, as on --resume, it is the same one
        into["objectives"].append(full_path(added))
    _merge_plain(into, added.name, arguments)


def _spec(key: str, value: Values) -> Values:
    """A class path, if there is one, and arguments; what stands beside these two is an argument, as among the flags."""
    arguments = value.get("init_args")
    if arguments is not None and not isinstance(arguments, dict):
        raise ConfigError(f"{key}.init_args={shown(arguments)}: must be a mapping, {{KEY: VALUE, ...}}")
    path = value.get("class_path", "")
    if not isinstance(path, str):
        raise ConfigError(f"{key}={shown(path)}: must be a class path, package.Class, or a mapping with a class_path")
    beside = {name: each for name, each in value.items() if name not in SPELT}
    spec: Values = {"init_args": {**(arguments or {}), **beside}}
    return {"class_path": path, **spec} if "class_path" in value else spec
