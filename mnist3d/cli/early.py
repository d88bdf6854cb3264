"""What `train` can refuse before anything heavy is imported: a used `--run_dir`, `--resume` of a run that is complete.

A look at the arguments as they stand. What it cannot decide is decided where the configuration is known, in the same
words.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runs.launcher import began_here, is_alone
from ..storage.plain_files import open_plain
from ..storage.plain_yaml import read_yaml_file
from ..storage.run_directory import CONFIG_FILE, VOLUME_FILE, check_unused, complete

BEGIN_NOTHING = ("--help", "-h", "--print_config")
GIVE_MORE = ("--config", "--trainer", "--trainer.max_steps", "--trainer.max_minutes")
NO_FOLDER = ("", "null")
MOST_HEADER = 2**20  # bytes


def refuse_early(arguments: Sequence[str]) -> None:
    """Fail where the arguments alone show that nothing can come of them.

    Raises:
        RunError: the folder of a new run is used, or the run to go on with is complete.
    """
    flags = [argument.partition("=")[0] for argument in arguments]
    if not is_alone():  # the first of several processes says it for all, once they know each other
        return
    if any(flag in flags for flag in BEGIN_NOTHING):
        return
    new, resumed = _value(arguments, "--run_dir"), _value(arguments, "--resume")
    decided = new is not None and "--config" not in flags[_last(flags, "--run_dir") :]
    if resumed is None and new is not None and decided and not began_here(Path(new)):
        check_unused(Path(new))
    if resumed is not None and new is None and not any(flag in flags for flag in GIVE_MORE):
        _refuse_complete(Path(resumed))


def _last(flags: Sequence[str], flag: str) -> int:
    return len(flags) - 1 - flags[::-1].index(flag)


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, as argparse takes it."""
    value = None
    for place, argument in enumerate(arguments):
        name, equals, given = argument.partition("=")
        if name == flag:
            value = given if equals else "".join(arguments[place + 1 : place + 2])
    return None if value in NO_FOLDER or (value or "").startswith("--") else value


def _refuse_complete(run: Path) -> None:
    """Of what a run says of itself nothing is believed but its length; damage is for later to report."""
    try:
        trainer = read_yaml_file(run / CONFIG_FILE)["trainer"]
        with open_plain(run / VOLUME_FILE) as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), MOST_HEADER)))
        saved: Any = json.loads(header["__metadata__"]["mnist3d"])
        steps, seconds = saved["step"], saved.get("seconds")
        most_steps, most_minutes = trainer.get("max_steps"), trainer.get("max_minutes")
        if most_steps is not None:
            done = steps >= most_steps
        else:  # without either, the length is this version's default, as it was when the file was written
            done = saved["complete"] is True if most_minutes is None else seconds >= 60.0 * most_minutes
        refusal = complete(run, steps, seconds) if done else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return
    if refusal is not None:
        raise refusal
