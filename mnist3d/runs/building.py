"""From a configuration to the parts of a run: built once, from top to bottom, in `build_run`."""

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ..callbacks.checkpoints import Checkpoints
from ..callbacks.classifier_training import ClassifierTraining
from ..callbacks.live_page import LivePage, start_page
from ..callbacks.pictures import Pictures
from ..callbacks.progress import Progress
from ..callbacks.scores import Scores, find_classifiers
from ..callbacks.statistics import Statistics
from ..callbacks.watchdog import Watchdog
from ..data.images import load_images
from ..errors import ConfigError, DataError
from ..evaluation.classifiers import Classifiers
from ..rendering.renderer import AbsorptionRenderer
from ..storage.environment import environment
from ..storage.run_directory import RUNS_ROOT, RunDirectory
from ..training.objectives.base import Objective
from ..training.objectives.build import build_objectives
from ..training.objectives.targets import Targets, build_targets
from ..training.processes import ALONE, Processes
from ..training.step_settings import prepare_cublas
from ..training.trainer import Callback, Trainer
from ..volumes.base import Volume
from ..volumes.files import class_path
from .checkpoint import load_checkpoint
from .class_paths import import_objective_class, import_volume_class
from .config import Config
from .determinism import what_stays_open
from .gallery import Gallery
from .launcher import job
from .memory import check_memory
from .starting import start_from

Built = TypeVar("Built")


@dataclass
class CommandLine:
    """What the user asked `train` for.

    Args:
        config: all options.
        run_dir: folder of the new run; None for one named by time.
        resume: folder of the run to go on with, or None.
        preset: short name of what is run.
        begun: whether an earlier try of the same job has left its start in that folder.
    """

    config: Config
    run_dir: str | None
    resume: str | None
    preset: str
    begun: bool = False


@dataclass
class Parts:
    """What a run consists of.

    Args:
        config: with all arguments of the volume, so that a version with other defaults can repeat the run.
        trainer: ready to run.
        run: the directory, taken for this process; whoever has the parts releases it.
        callbacks: in the order in which they are called.
        page: the last of them, or None.
        remarks: what the user should know of images and volume, a line each.
    """

    config: Config
    trainer: Trainer
    run: RunDirectory
    callbacks: list[Callback]
    page: LivePage | None
    remarks: list[str]


def build_run(command: CommandLine, processes: Processes = ALONE) -> Parts:
    """Everything that a run consists of, seeded.

    No folder appears, and nothing in one changes, before all that can be refused has been.

    Args:
        command: what the user asked for.
        processes: of the run, of which this is the first; the others wait to hear what is run, see `build_share`.

    Raises:
        ConfigError, DataError, RunError, VolumeFileError: what the user can mend.
    """
    config = command.config
    remarks: list[str] = []
    config, trainer = _built(config, command.resume is not None, remarks, processes)
    if command.resume is None:
        run = RunDirectory.create(command.run_dir, RUNS_ROOT, command.preset, begun=command.begun)
    else:
        run = RunDirectory(command.resume)
        run.take()
    whole = True
    try:
        if command.resume is not None:
            whole = load_checkpoint(trainer, run)
        run.write(run.config_path.name, config.to_yaml())
        run.write_json("environment.json", {**environment(str(trainer.device)), **job()})
        say = partial(tqdm.write, file=sys.stderr)  # keeps the progress bar whole
        found = build_classifiers(config, say)
        scores = None if found is None else Scores(run, found, config.scorecard.every)
        training, classifiers = (None, None) if scores is None else (scores.training, scores.classifiers)
        watchdog = None if config.watchdog == "off" else Watchdog(config.watchdog, say, run.append_stats)
        gallery = partial(Gallery, RUNS_ROOT, run.path, trusted=[type(trainer.volume)])
        # Last: what is paused on the page has been saved, and what it says is saved at the end is.
        page = start_page(
            config.viewer, trainer, run.path.name, classifiers, scores, gallery, run.read_stats(), training, run.path
        )
        callbacks: list[Callback | None] = [
            watchdog,  # before what writes, so that nothing is saved that it has not looked at
            training,  # before what asks for its classifiers
            scores,
            Progress(remark=lambda: _remark(training, scores)),
            Statistics(run),
            Pictures(run, next((each for each in trainer.each_objective() if isinstance(each, Targets)), None)),
            Checkpoints(run, config.trainer.save_every, say, whole=whole),
            page,
        ]
        processes.handed_out(json.dumps(dataclasses.asdict(config)).encode())
    except BaseException:
        run.release()
        raise
    return Parts(config, trainer, run, [each for each in callbacks if each is not None], page, remarks)


def build_share(processes: Processes) -> Trainer:
    """The trainer of a process that is not the first, of the configuration that the first hands out.

    It reads the images and no more: the state comes from the first process when the run begins.

    Raises:
        ConfigError, DataError: what the user can mend; a file that is missing on this machine.
    """
    config = Config.from_mapping(json.loads(processes.handed_out()))
    return build_trainer(config, resumed=True, processes=processes)


def build_trainer(
    config: Config, resumed: bool = False, remarks: list[str] | None = None, processes: Processes = ALONE
) -> Trainer:
    """Images, volume, renderer, objectives, and the trainer of them, seeded.

    Args:
        config: what they are built from.
        resumed: whether the weights will come from a checkpoint: the file that the run started from may be gone.
        remarks: takes what the user should know of images and volume, a line each.
        processes: of the run.

    Raises:
        ConfigError, DataError: a value, device, file or image that is refused.
    """
    return _built(config, resumed, remarks, processes)[1]


def _built(config: Config, resumed: bool, remarks: list[str] | None, processes: Processes) -> tuple[Config, Trainer]:
    """As `build_trainer`, and the configuration: of a new run with all arguments of its volume."""
    device = build_device(config, processes)
    check_memory(config, device, processes)
    if config.deterministic:
        prepare_cublas(device)
    images = load_images(config.data, config.renderer.image_size)
    targets = _allowed(lambda: build_targets(config.targets, images, config.data))
    said = [*images.remarks, *(() if targets is None else targets.remarks)]
    torch.manual_seed(config.seed)
    volume = build_volume(config, device)
    if not resumed:
        config = spelt_out(config, volume)  # before it takes the stage and the blocks of a file
    if config.start_from is not None and not resumed:
        said += start_from(volume, config.start_from)
    if config.deterministic:
        said.append(what_stays_open(config, device))
    if remarks is not None:
        remarks += said
    renderer = AbsorptionRenderer(**dataclasses.asdict(config.renderer)).to(device)
    _allowed(lambda: renderer.check_device(device))
    objectives = _allowed(
        lambda: build_objectives(
            images,
            device,
            adversarial=config.adversarial,
            discriminator=config.discriminator,
            diversity=config.diversity,
            class_balance=config.class_balance,
            nearest_image=config.nearest_image,
            targets=targets,
            poses=config.poses,
            max_tilt=config.trainer.max_tilt,
        )
    )
    objectives += [build_objective(spec).to(device) for spec in config.objectives]
    if not objectives:
        raise ConfigError(
            "adversarial.weight=0: without targets nothing would move the volume; add targets.views or targets.rings"
        )
    trainer = _allowed(
        lambda: Trainer(
            volume,
            renderer,
            images,
            objectives,
            options=config.trainer,
            poses=config.poses,
            seed=config.seed,
            deterministic=config.deterministic,
            processes=processes,
        )
    )
    return config, trainer


def build_device(config: Config, processes: Processes = ALONE) -> torch.device:
    """The device that a configuration asks for.

    Args:
        config: of the run.
        processes: of the run; each needs a GPU of its own.

    Raises:
        ConfigError: a GPU was asked for by name and there is none, or there are more processes than GPUs.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA GPU here; must be cpu or auto")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if processes.count > 1 and processes.on_machine > torch.cuda.device_count():
        raise ConfigError(
            f"device={config.device}: {processes.on_machine} processes share this machine, which has "
            f"{torch.cuda.device_count()} GPUs; each needs one of its own: start fewer, or add --device cpu"
        )
    return torch.device("cuda")


def build_volume(config: Config, device: torch.device | str = "cpu") -> Volume:
    """A fresh volume, from torch's own random generator on the CPU.

    Raises:
        ConfigError: the class refuses its arguments, or cannot compute here.
    """
    volume_class = import_volume_class(config.volume["class_path"])
    try:
        volume = volume_class(**config.volume["init_args"]).to(device)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"volume.{_one_line(error)}") from None
    with torch.no_grad():
        _allowed(lambda: volume(torch.zeros(1, 3, device=device)))  # what cannot compute here says so now
    return volume


def build_objective(spec: dict[str, Any]) -> Objective:
    """Somebody else's objective, of its class path and arguments.

    Raises:
        ConfigError: no such class, or it refuses its arguments.
    """
    objective_class = import_objective_class(spec["class_path"])
    try:
        return objective_class(**spec["init_args"])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{objective_class.name}.{_one_line(error)}") from None


def build_classifiers(config: Config, say: Callable[[str], None]) -> Classifiers | ClassifierTraining | None:
    """Who scores the run, or their training, or None: they read the data's classes, not letters or files."""
    if not shows_classes(config):
        if config.scorecard.every:
            print(
                "no scores during this run: its targets are letters or image files, and only digits and other classes "
                "of the data can be read",
                file=sys.stderr,
            )
        return None
    return find_classifiers(config.scorecard, config.data, config.renderer.image_size, say)


def shows_classes(config: Config) -> bool:
    """Whether views of a run are to show classes of its images, which can be read; letters and image files cannot."""
    asked = config.targets.listed()
    return config.adversarial.weight > 0.0 or not asked or any(each.kind not in ("text", "image") for each in asked)


def spelt_out(config: Config, volume: Volume) -> Config:
    """The configuration with all arguments of its volume, so that a version with other defaults can repeat the run.

    Args:
        config: what the volume was built from.
        volume: just built: what it takes from a file is in its state, and a resumed run is built as this one was.
    """
    given = {name: value for name, value in config.volume["init_args"].items() if value is not None}
    arguments = {**volume.init_args, **given}
    return dataclasses.replace(config, volume={"class_path": class_path(type(volume)), "init_args": arguments})


def _remark(training: ClassifierTraining | None, scores: Scores | None) -> str:
    """What the progress line ends with: the latest score, or how far the classifiers are that will give the first."""
    return (scores.summary if scores is not None else "") or (training.remark if training is not None else "")


def _allowed(build: Callable[[], Built]) -> Built:
    """What is built, or a user's error where it refuses a value, such as images that are too small."""
    try:
        return build()
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
