"""A run from its first line on the terminal to its last."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..callbacks.scores import Scores, made_by_targets_only
from ..callbacks.sheltered import Sheltered
from ..data.options import DataOptions
from ..errors import RunError, UserError, WatchdogGaveUp, WriteError
from ..invocation import program_name, to_type
from ..storage.exhausted import out_of_memory
from ..storage.labels import printable
from ..training.options import TrainerOptions
from ..training.processes import ALONE, ConnectionLost, Processes
from ..training.report import StepReport
from ..training.trainer import Trainer
from .at_work import said_if_slow
from .building import CommandLine, Parts, build_run, build_share
from .signals import Ended, end_in_order, on_signals, say
from .trust import command_to_score, flags_to_go_on
from .watch import Watch

PREPARING = "reading images and preparing the run ..."
COMPILING = "the first step compiles what has not been compiled on this machine yet: half a minute, once ..."


def sculpt(command: CommandLine, processes: Processes = ALONE, watch: Watch | None = None) -> Path:
    """Run or resume a sculpture, and leave it in its run directory.

    Args:
        command: what the user asked for.
        processes: of the run, of which this is the first; in the others `take_part` does its share.
        watch: watches the others.

    Returns:
        The run directory.

    Raises:
        UserError: what the user can mend; nothing is overwritten.
        WatchdogGaveUp: the run went wrong for good; its last good state is saved.
        Ended: a signal other than Ctrl-C's stopped the run before it was complete; it is saved.
    """
    with said_if_slow(PREPARING):
        parts = build_run(command, processes)
    run, trainer = parts.run, parts.trainer
    if watch is not None:
        watch.advice, watch.heard = partial(_what_stays, parts), partial(setattr, trainer, "stop_requested", True)
    stop, callbacks = _StopOnSignal(trainer), Sheltered(parts.callbacks, _print_above_the_bar)
    try:
        with stop.listening():
            _announce(command, parts)
            stop.agree(processes)
            if stop.number is not None:  # before there is anything to save
                end_in_order(stop.number)
            try:
                with _FirstStep() as first:
                    trainer.run([stop, first, callbacks])
                stop.agree(processes)
            except ConnectionLost:  # here, where a launcher's signal that follows is no more than a wish to stop
                raise RunError(processes.why()) from None
    except WatchdogGaveUp:
        if run.volume_path.is_file():  # a run that went wrong before its first save leaves none
            _conclude(parts)
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, UserError) or (memory := out_of_memory(error)) is None:
            raise
        raise RunError(_how_to_take_less(memory, parts)) from None
    finally:
        run.release()
    if callbacks.unsaved is not None:
        raise WriteError(f"the end of the run is not saved: {callbacks.unsaved}; {_what_stays(parts)}")
    try:
        _conclude(parts)
    finally:  # to a closed terminal no last line can be written
        if trainer.progress < 1.0 and stop.number not in (None, signal.SIGINT):
            raise Ended(stop.number, "stopped and saved")
    return run.path


def take_part(processes: Processes) -> None:
    """The share of a process that is not the first: it computes, and neither speaks nor writes.

    Args:
        processes: of the run.

    Raises:
        UserError: what the user can mend, on this machine.
    """
    trainer = build_share(processes)
    stop = _StopOnSignal(trainer)
    with stop.listening():
        try:
            stop.agree(processes)
            if stop.number is None:
                trainer.run([stop])
                stop.agree(processes)
        except ConnectionLost:
            processes.why()  # here, as in `sculpt`
            raise


def _announce(command: CommandLine, parts: Parts) -> None:
    config, trainer = parts.config, parts.trainer
    weights = sum(weight.numel() for weight in trainer.volume.parameters())
    for remark in parts.remarks:
        print(printable(remark), file=sys.stderr)  # names of files are in it, maybe a stranger's
    began = f"starting at step {trainer.steps_done}"
    if command.resume:  # a stranger's run may have any length
        began = f"going on at step {trainer.steps_done} until {_end_of(config.trainer)}"
    if command.resume is None and config.start_from and config.volume["init_args"].get("grow_at"):
        print("start_from: begins at the full resolution, so volume.grow_at is not used", file=sys.stderr)
    name = config.volume["class_path"].rpartition(".")[2]
    print(
        f"{name} with {weights:,} weights, {len(trainer.images):,} images of {_source(config.data)} to train on, "
        f"{_computing(trainer)}; {began}; into {printable(str(parts.run.path))}",
        file=sys.stderr,
        flush=True,
    )
    if parts.page is not None:
        parts.page.announce()


def _computing(trainer: Trainer) -> str:
    """On what, in words."""
    count = trainer.processes.count
    processes = "" if count == 1 else f"{count} processes, each on "
    return f"{processes}{trainer.device}, {torch.get_num_threads()} threads"


def _conclude(parts: Parts) -> None:
    where = _where(parts)
    look = to_type("view", where, *_trusting("--volume", [parts.config.volume["class_path"]]))
    if parts.trainer.progress < 1.0:
        print(printable(f"stopped at step {parts.trainer.steps_done}; go on with: {_to_go_on(parts)}"), file=sys.stderr)
    elif any(isinstance(each, Scores) for each in parts.callbacks) and not made_by_targets_only(parts.trainer):
        measure = command_to_score(where, parts.config)
        print(printable(f"to measure how many of its views can be read: {measure}"), file=sys.stderr)
    print(printable(f"The sculpture lies in {where} (views: {where}/pictures/views.png). Look at it: {look}"))


def _to_go_on(parts: Parts) -> str:
    """A command line that works as it stands."""
    volume = _trusting("--volume", [parts.config.volume["class_path"]])
    added = _trusting("--objectives.add", [spec["class_path"] for spec in parts.config.objectives])
    return to_type("train", "--resume", _where(parts), *volume, *added, *flags_to_go_on(parts.config))


def _where(parts: Parts) -> Path:
    path = parts.run.path
    return Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _source(data: DataOptions) -> str:
    """Where the images are from, in words."""
    return printable(f"the folder {data.path}") if data.name in ("images", "idx") else data.name


def _end_of(options: TrainerOptions) -> str:
    """When a run ends by itself, in words."""
    ends = [] if options.max_steps is None else [f"step {options.max_steps:,}"]
    minutes = options.seconds_limit / 60.0
    return " or ".join([*ends, *([f"{minutes:,.6g} minutes are over"] if minutes < math.inf else [])])


def _trusting(flag: str, class_paths: list[str]) -> list[str]:
    """The flags that name classes of others: naming them is trusting them."""
    return [word for path in class_paths if not path.startswith("mnist3d.") for word in (flag, path)]


def _what_stays(parts: Parts) -> str:
    """Of a run that ended without a last save."""
    if not parts.run.resume_path.is_file():
        return "nothing had been saved before"
    return f"the checkpoint before it stays; go on with: {_to_go_on(parts)}"


def _how_to_take_less(memory: str, parts: Parts) -> str:
    where = f"{memory} after step {parts.trainer.steps_done}"
    same = "go on with fewer trainer.views_at_once"  # the one that a run may change
    lower = "lower trainer.views, volume.resolution, renderer.image_size or discriminator.channels"
    return f"{where}; {same}, {lower} of a new run, or end other programs; {_what_stays(parts)}"


def _print_above_the_bar(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


class _FirstStep:
    """A callback: says what is going on if the first step, before which there is no bar, takes long."""

    def __init__(self) -> None:
        self._waiting = ExitStack()

    def __enter__(self) -> "_FirstStep":
        self._waiting.enter_context(said_if_slow(COMPILING))
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.close()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """From now on there is a bar."""
        self._waiting.close()

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""


class _StopOnSignal:
    """A callback: the first signal asks the trainer to stop after the current step, a later one ends at once.

    Args:
        trainer: of the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs, the first signal is taken as a wish."""
        with on_signals(self._stop, program_name("train"), even_ignored=(signal.SIGINT,)):
            yield

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """A signal may have come before the run did, which begins with no wish to stop."""
        if self.number is not None:
            trainer.stop_requested = True

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""

    def agree(self, processes: Processes) -> None:
        """One word of all processes: a signal to any of them stops all."""
        if processes.count > 1:
            self.number = int(processes.largest([self.number or 0])[0]) or None

    def _stop(self, number: int) -> None:
        self.number = number
        self.trainer.stop_requested = True
        if not self.trainer.processes.first:
            return
        again = "Ctrl-C again" if number == signal.SIGINT else "another SIGTERM"
        say(f"\nstopping after this step and saving ({again} ends it at once)")
