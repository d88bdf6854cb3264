"""What a launcher such as torchrun has told this process: which of a run's processes it is, and of which job.

Read from the environment variables that `torch.distributed` defines; nothing heavy is imported here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.plain_files import open_plain

ENVIRONMENT_FILE = "environment.json"
MOST_BYTES = 2**20  # of that file
NO_NAME = "none"  # what torchrun calls a job that nobody has named


@dataclass(frozen=True)
class Place:
    """One process among those of a run.

    Args:
        rank: 0 to count - 1.
        count: of processes.
        local_rank: among those of this machine.
        on_machine: how many these are.
        address: where the processes find each other.
        port: likewise.
        served: whether the launcher listens there; else the process of rank 0 does.
    """

    rank: int
    count: int
    local_rank: int
    on_machine: int
    address: str
    port: int
    served: bool


def place() -> Place | None:
    """The place of this process; None where it is alone.

    Raises:
        ConfigError: an environment variable that says so is missing or no number.
    """
    count = _number("WORLD_SIZE", 1, default=1)
    if count == 1:
        return None
    return Place(
        rank=_number("RANK", 0, count - 1),
        count=count,
        local_rank=_number("LOCAL_RANK", 0, default=0),
        on_machine=_number("LOCAL_WORLD_SIZE", 1, default=1),
        address=os.environ.get("MASTER_ADDR") or "127.0.0.1",
        port=_number("MASTER_PORT", 1, 65535),
        served=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def is_alone() -> bool:
    """Whether there is one process; what is wrong with the environment is for later to say."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def job() -> dict[str, Any]:
    """What `environment.json` keeps of who started a run; empty where no launcher did."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and is_alone():
        return {}
    return {"job": os.environ.get("TORCHELASTIC_RUN_ID"), "processes": _number("WORLD_SIZE", 1, default=1)}


def check_can_restart(run_dir: str | None) -> None:
    """A launcher that starts a run again must find it again.

    Raises:
        ConfigError: torchrun may restart the run, and it would have another folder each time.
    """
    if run_dir is None and _number("TORCHELASTIC_MAX_RESTARTS", 0, default=0) > 0:
        raise ConfigError(
            "run_dir: must be given with --max-restarts of torchrun, so that a run that is started again goes on where "
            "it was; add --run_dir FOLDER"
        )


def began_here(run_dir: Path) -> bool:
    """Whether a folder holds a run that this job began: a launcher starts the same command again after a failure.

    Args:
        run_dir: the folder.
    """
    name, again = os.environ.get("TORCHELASTIC_RUN_ID"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if name is None or (name == NO_NAME and not again):
        return False
    try:
        with open_plain(run_dir / ENVIRONMENT_FILE) as file:
            known: Mapping[str, Any] = json.loads(file.read(MOST_BYTES))
        return known["job"] == name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _number(name: str, least: int, most: int | None = None, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    wanted = f">= {least}" if most is None else f"in [{least}, {most}]"
    if text is None or not text.isascii() or not text.isdigit() or not least <= int(text) <= (most or int(text)):
        given = f"{name} is not set" if text is None else f"{name}={text}"
        raise ConfigError(f"environment variable {given}: must be a whole number {wanted}; torchrun sets it")
    return int(text)
