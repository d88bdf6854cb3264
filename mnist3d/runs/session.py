"""From a command line's wishes to a sculpted volume on disk.

What it is: the order in which the parts are built, started and saved. What it is not: the loop (`trainer`).
"""

import dataclasses
import io
import os
import pickle
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from types import FrameType

import torch
from tqdm import tqdm

from ..callbacks.checkpoints import Saver
from ..callbacks.live_page import start_viewer
from ..callbacks.pictures import Pictures
from ..callbacks.progress import Progress
from ..callbacks.scores import Judges, Scores, find_judges
from ..callbacks.statistics import Stats
from ..callbacks.watchdog import Watchdog, WatchdogGaveUp
from ..data.images import load_images
from ..errors import ConfigError, DataError, RunError
from ..storage.environment import environment
from ..storage.run_directory import RunDirectory
from ..training.objectives.targets import build_targets
from ..training.trainer import Trainer
from .building import build_device, build_renderer, build_volume, spelt_out
from .config import Config
from .gallery import Gallery


@dataclass
class CommandLine:
    """What the user asked `train.py` for.

    Args:
        config: all options.
        run_dir: folder of the new run; None for one named by time.
        resume: folder of the run to go on with, or None.
        preset: short name of what is run.
    """

    config: Config
    run_dir: str | None
    resume: str | None
    preset: str


RUNS_ROOT = "runs"


def build_trainer(config: Config) -> Trainer:
    """Volume, renderer, pictures and discriminator as the configuration says, seeded.

    Raises:
        ConfigError, DataError: a value, device or picture that will not do.
    """
    device = build_device(config)
    images = load_images(config.data, config.renderer.image_size)
    torch.manual_seed(config.seed)
    volume = build_volume(config).to(device)
    try:
        with torch.no_grad():
            volume(torch.zeros(1, 3, device=device))  # an implementation that cannot compute here says so now
        return Trainer(
            volume,
            build_renderer(config).to(device),
            images,
            options=config.trainer,
            losses=config.losses,
            poses=config.poses,
            targets=build_targets(config.targets, images, config.data),
            discriminator=config.discriminator,
            seed=config.seed,
        )
    except DataError:
        raise
    except ValueError as error:  # pictures too small for the discriminator, nothing that pulls
        raise ConfigError(" ".join(str(error).split())) from None


def sculpt(command: CommandLine) -> Path:
    """Run or resume a sculpture, and leave it in its run directory.

    Args:
        command: what the user asked for.

    Returns:
        The run directory.

    Raises:
        ConfigError, DataError, RunError: what the user can mend; nothing is overwritten.
        WatchdogGaveUp: the run went wrong for good; its last good state is saved.
    """
    config = command.config
    trainer = build_trainer(config)  # everything that can be refused, before a folder appears
    if command.resume is None:
        command = dataclasses.replace(command, config=spelt_out(config, trainer.volume))
        run = RunDirectory.create(command.run_dir, RUNS_ROOT, command.preset)
    else:
        run = RunDirectory(command.resume)
        run.take()
    try:
        if command.resume is not None:
            _resume(trainer, run)
        run.write(run.config_path.name, command.config.to_yaml())
        run.write_json("environment.json", environment(str(trainer.device)))
        _announce(command, trainer, run)
        judges = _judges(command.config)
        scores = [Scores(run, judges, command.config.scorecard.every)] if judges is not None else []
        progress = Progress(remark=lambda: scores[0].summary if scores else "")
        # Last of the hooks: what is paused on the page has been saved, and what it says is saved at the end is.
        page = start_viewer(
            command.config.viewer,
            trainer,
            run.path.name,
            judges,
            scores[0] if scores else None,
            lambda: Gallery(RUNS_ROOT, run.path, trusted=[type(trainer.volume)]),
            run.read_stats(),
        )
        with _StopOnInterrupt(trainer):
            trainer.run([*_watchdog(command, run), *scores, progress, Stats(run), Pictures(run), Saver(run), *page])
    except WatchdogGaveUp:
        _conclude(command, trainer, run)
        raise
    finally:
        run.release()
    _conclude(command, trainer, run)
    return run.path


def _judges(config: Config) -> Judges | None:
    asked = config.targets.listed()
    if config.losses.adversarial_weight == 0.0 and all(target.kind in ("text", "picture") for target in asked):
        if config.scorecard.every:
            print(
                "no scores during this run: its judges read the data's classes, not letters or files", file=sys.stderr
            )
        return None
    return find_judges(config.scorecard, config.data, config.renderer.image_size)


def _watchdog(command: CommandLine, run: RunDirectory) -> list[Watchdog]:
    """First of the hooks, so that nothing is saved that it has not looked at."""
    options = command.config.watchdog
    # tqdm's write keeps the progress bar whole
    return [Watchdog(options, partial(tqdm.write, file=sys.stderr), run.append_stats)] if options.enabled else []


def _resume(trainer: Trainer, run: RunDirectory) -> None:
    try:
        content = io.BytesIO(run.resume_path.read_bytes())
        trainer.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = shorten(" ".join(str(error).split()), 120, placeholder=" ...")
        raise RunError(f"{run.resume_path}: damaged, or of other options ({reason}); start a new run") from None
    if trainer.share >= 1.0:
        raise RunError(
            f"resume={run.path}: that run is complete after {trainer.steps_done} steps and {trainer.seconds:.0f} s; "
            "give it more: --trainer.max_steps or --trainer.max_minutes"
        )
    run.cut_stats(trainer.steps_done)


def _announce(command: CommandLine, trainer: Trainer, run: RunDirectory) -> None:
    config = command.config
    weights = sum(weight.numel() for weight in trainer.volume.parameters())
    began = "going on at step" if command.resume else "starting at step"
    asked, kept = (given.get("grow_at") for given in (config.volume["init_args"], trainer.volume.init_args))
    if command.resume is None and asked and not kept:
        print("volume.init: starts at the full resolution, so volume.grow_at is not used", file=sys.stderr)
    name = config.volume["class_path"].rpartition(".")[2]
    print(
        f"{name} with {weights:,} weights, {len(trainer.images):,} pictures of {config.data.name}, "
        f"{trainer.device}, {torch.get_num_threads()} threads; {began} {trainer.steps_done}; into {run.path}",
        file=sys.stderr,
        flush=True,
    )


def _conclude(command: CommandLine, trainer: Trainer, run: RunDirectory) -> None:
    where = os.path.relpath(run.path) if run.path.is_absolute() and run.path.is_relative_to(Path.cwd()) else run.path
    name = command.config.volume["class_path"]
    trust = "" if name.startswith("mnist3d.volumes.") else f" --volume {name}"
    if trainer.share < 1.0:
        go_on = f"python train.py --resume {where}{trust}"
        print(f"stopped at step {trainer.steps_done}; go on with: {go_on}", file=sys.stderr)
    look = f"python inference.py {where}{trust}"
    print(f"The sculpture lies in {where} (views: {where}/pictures/views.png). Look at it: {look}")


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
