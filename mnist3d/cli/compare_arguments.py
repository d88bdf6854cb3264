"""What is typed behind `mnist3d compare`, as a folder and options; the flags themselves stand in `compare`."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..comparisons.options import SPEC_FILE, CompareOptions, comma_separated, read_options, volume_names
from ..comparisons.report import is_comparison
from ..errors import ConfigError, RunError, shown
from ..runs.validation import from_text, options_of, validated
from ..sweeps.folder import is_unused

ROOT = "comparisons"  # where new ones go, in the folder in which the command is typed
LONGEST = 60  # letters of the name of a folder
WHAT = ("volumes", "vary", "set", "config", "minutes", "steps", "seeds")  # flags that say what is compared
PLACES = {
    "cores": "processor cores a run, >= 1 (default 1)",
    "gpus": "GPUs a run; below 1, runs share one (default 0: processors alone)",
    "at_once": "runs at the same time (default as many as there are cores and GPUs for)",
}


def place_and_options(typed: argparse.Namespace) -> tuple[Path, CompareOptions]:
    """The folder, and what is compared in it.

    Raises:
        ConfigError, RunError: a flag is wrong, or the folder holds something else.
    """
    places = {name: getattr(typed, name) for name in PLACES if getattr(typed, name) is not None}
    if typed.resume is not None:
        wrong = next((name for name in (*WHAT, "output") if getattr(typed, name) is not None), None)
        if wrong is not None:
            raise ConfigError(f"{wrong} and resume: a comparison goes on as it was begun; leave --{wrong} out")
        if not is_comparison(typed.resume):
            raise RunError(f"resume={typed.resume}: no comparison lies there, {SPEC_FILE} is missing")
        begun = read_options(typed.resume / SPEC_FILE)
        options = _options(dataclasses.asdict(begun), places)
        _check_same(f"resume={typed.resume}", options, begun)
        return typed.resume, options
    if typed.trust:
        raise ConfigError("trust: is for a comparison that is there already; add --resume FOLDER, or leave --trust out")
    texts = {name: text for name in ("config", "minutes", "steps") if (text := getattr(typed, name)) is not None}
    values: dict[str, Any] = {"vary": _pairs("vary", typed.vary or []), "set": _pairs("set", typed.set or [])}
    values["vary"] = {key: _several(f"vary {key}", text) for key, text in values["vary"].items()}
    for name, parted in (("volumes", volume_names), ("seeds", comma_separated)):
        if (text := getattr(typed, name)) is not None:
            values[name] = _several(name, text, parted)
    options = _options(values, {**texts, **places})
    place = typed.output or Path(ROOT) / _folder_name(options)
    check_place(place, options, typed)
    return place, options


def _options(values: dict[str, Any], texts: Mapping[str, str]) -> CompareOptions:
    """Checked, the texts read as what their keys ask for."""
    hints = options_of(CompareOptions)
    read = {name: from_text(hints[name].hint, text) for name, text in texts.items()}
    return validated(CompareOptions, {**values, **read}, "")


def _pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """KEY=TEXT as a mapping.

    Raises:
        ConfigError: one is something else, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip().removeprefix("--")
        if not equals or not key:
            example = "adversarial.pairing=relativistic,hinge" if flag == "vary" else "trainer.views=20"
            raise ConfigError(f"{flag}={shown(text)}: must be KEY=VALUE, such as {example}")
        if key in found:
            raise ConfigError(f"{flag} {key}: is given twice; leave one out")
        found[key] = value
    return found


def _several(name: str, text: str, parted: Callable[[str], list[str]] = comma_separated) -> list[str]:
    """Values with commas between them.

    Raises:
        ConfigError: there is none.
    """
    found = parted(text)
    if not found:
        raise ConfigError(f"{name}={shown(text)}: is empty; must be one value or more, with commas between them")
    return found


def _folder_name(options: CompareOptions) -> str:
    """VoxelGrid-HashGrid-3_minutes: the same for the same command."""
    keys = [key.rpartition(".")[2] for key in options.vary]
    parts = [*(Path(name).stem if "/" in name else name for name in options.volumes), *keys]
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts))[:LONGEST].strip("._-")
    return f"{safe or 'variants'}-{options.length.replace(',', '').replace(' ', '_')}"


def check_place(place: Path, options: CompareOptions, typed: argparse.Namespace) -> None:
    """Fail where a comparison can neither begin nor go on.

    Raises:
        ConfigError: the folder holds something else.
    """
    if typed.resume is None and is_comparison(place):
        _check_same(f"output={place}", options, read_options(place / SPEC_FILE))
    elif typed.resume is None and not is_unused(place, SPEC_FILE):
        raise ConfigError(f"output={place}: holds something else; give another --output FOLDER")


def _check_same(said: str, options: CompareOptions, begun: CompareOptions) -> None:
    """Fail where a comparison would go on as another.

    Raises:
        ConfigError: they differ in what its runs depend on.
    """
    for name in options.differing(begun):
        if name in PLACES:
            before, now = (f"{getattr(each, name):g}" for each in (begun, options))
            raise ConfigError(
                f"{name}={now}: the comparison in {said.partition('=')[2]} was begun with {before}, and in equal time "
                f"runs depend on it; give --{name} {before}, or begin anew with another --output FOLDER"
            )
        raise ConfigError(f"{said}: holds a comparison with another {name}; give another --output FOLDER")
