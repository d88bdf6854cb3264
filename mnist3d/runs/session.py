"""A run from its first line on the terminal to its last."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import torch

from ..errors import WatchdogGaveUp
from ..invocation import to_type
from ..training.trainer import Trainer
from .building import CommandLine, Parts, build_run


def sculpt(command: CommandLine) -> Path:
    """Run or resume a sculpture, and leave it in its run directory.

    Args:
        command: what the user asked for.

    Returns:
        The run directory.

    Raises:
        UserError: what the user can mend; nothing is overwritten.
        WatchdogGaveUp: the run went wrong for good; its last good state is saved.
    """
    parts = build_run(command)
    run, trainer = parts.run, parts.trainer
    try:
        _announce(command, parts)
        with _StopOnInterrupt(trainer):
            trainer.run(parts.callbacks)
    except WatchdogGaveUp:
        _conclude(parts)
        raise
    finally:
        run.release()
    _conclude(parts)
    return run.path


def _announce(command: CommandLine, parts: Parts) -> None:
    config, trainer = parts.config, parts.trainer
    weights = sum(weight.numel() for weight in trainer.volume.parameters())
    for remark in parts.remarks:
        print(remark, file=sys.stderr)
    began = "going on at step" if command.resume else "starting at step"
    if command.resume is None and config.start_from and config.volume["init_args"].get("grow_at"):
        print("start_from: begins at the full resolution, so volume.grow_at is not used", file=sys.stderr)
    name = config.volume["class_path"].rpartition(".")[2]
    print(
        f"{name} with {weights:,} weights, {len(trainer.images):,} images of {config.data.name}, "
        f"{trainer.device}, {torch.get_num_threads()} threads; {began} {trainer.steps_done}; into {parts.run.path}",
        file=sys.stderr,
        flush=True,
    )
    if parts.page is not None:
        parts.page.announce()


def _conclude(parts: Parts) -> None:
    path = parts.run.path
    where = Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
    name = parts.config.volume["class_path"]
    look = to_type("view", where, *_trusting("--volume", [name]))
    if parts.trainer.progress < 1.0:
        added = _trusting("--objectives.add", [spec["class_path"] for spec in parts.config.objectives])
        go_on = to_type("train", "--resume", where, *_trusting("--volume", [name]), *added)
        print(f"stopped at step {parts.trainer.steps_done}; go on with: {go_on}", file=sys.stderr)
    print(f"The sculpture lies in {where} (views: {where}/pictures/views.png). Look at it: {look}")


def _trusting(flag: str, class_paths: list[str]) -> list[str]:
    """The flags that name classes of others: naming them is trusting them."""
    return [word for path in class_paths if not path.startswith("mnist3d.") for word in (flag, path)]


class _StopOnInterrupt:
    """Ctrl-C asks the trainer to stop after the current step; a second one interrupts at once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.previous = None

    def __enter__(self) -> None:
        self.previous = signal.signal(signal.SIGINT, self._stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.previous)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.trainer.stop_requested:
            signal.signal(signal.SIGINT, self.previous)
            raise KeyboardInterrupt
        self.trainer.stop_requested = True
        print("\nstopping after this step and saving (Ctrl-C again: at once)", file=sys.stderr, flush=True)
