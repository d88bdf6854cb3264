"""What a run directory may describe and not do: read files elsewhere, download, or render for hours.

A `config.yaml` can be a stranger's. Whoever goes on with a run, or opens it with a tool, says what it may do: the key
on the command line, or `--trust` for all of them. No trust imports a class: it is named on the command line.
"""

import dataclasses
import shlex
from collections.abc import Container
from pathlib import Path

from ..data.options import DataOptions
from ..data.sources import DOWNLOADED
from ..errors import RunError
from ..invocation import to_type
from ..rendering.renderer import FIELD_SAMPLES, RendererOptions
from ..training.objectives.target_list import TargetOptions
from ..viewer.options import ViewerOptions
from ..volumes.base import Field, grid_shape
from .config import Config

# Samples along rays that a tool takes for a run without being told to: minutes on a grid, an hour or two on a field.
MOST_SAMPLES = 2**36


def acts_of_data(data: DataOptions) -> dict[str, str]:
    """What reading a run's images would do beyond the packages that are installed: each key, and how it reads."""
    if data.name in DOWNLOADED:
        acts = {"data.name": data.name}
        return acts if data.path is None else {**acts, "data.path": data.path}
    return {"data.path": str(data.path)} if data.name in ("images", "idx") else {}


def acts_of_targets(targets: TargetOptions) -> dict[str, str]:
    """Likewise for the image files that its targets name."""
    found = {}
    for target in targets.listed():
        if target.kind == "image":
            found.setdefault(target.place.partition("[")[0], target.subject)
    return found


def acts_of(config: Config) -> dict[str, str]:
    """All that going on with a run would do beyond its folder."""
    return {**acts_of_data(config.data), **acts_of_targets(config.targets)}


def flags_to_go_on(config: Config) -> list[str]:
    """What must stand behind `--resume` so that a run goes on as it did: its own word for it is not taken."""
    flags = ["--trust"] if acts_of(config) else []
    for key, value in dataclasses.asdict(config.viewer).items():
        if value != getattr(ViewerOptions(), key):
            flags += [f"--viewer.{key}", f"{value}".lower() if isinstance(value, bool) else f"{value}"]
    return flags


def command_to_score(path: Path, config: Config) -> str:
    """What to type to measure a run of one's own, as it stands."""
    volume = config.volume["class_path"]
    flags = [] if volume.startswith("mnist3d.") else ["--volume", volume]
    return to_type("score", path, *flags, *(["--trust"] if acts_of_data(config.data) else []))


def check_resume_is_trusted(path: str, config: Config, said: Container[str]) -> None:
    """A run that is to go on reads and downloads only what its user has named.

    Args:
        path: its folder.
        config: what it says of itself.
        said: dotted keys that the user says; that they have the run's values is checked elsewhere.

    Raises:
        RunError: its `config.yaml` asks for more.
    """
    unsaid = {key: value for key, value in acts_of(config).items() if key not in said}
    if not unsaid:
        return
    key, value = next(iter(unsaid.items()))
    flags = " ".join(f"--{each} {shlex.quote(text)}" for each, text in unsaid.items())
    named = all(each.startswith("data.") for each in unsaid)
    does = {"data.name": "downloads it", "data.path": f"reads the images in the folder {value}"}
    raise RunError(
        f"resume={path}: its {key} is {value}, and going on {does.get(key, f'reads the file {value}')}; "
        f"if that is what you want, add {f'{flags} or ' if named else ''}--trust"
    )


def check_data_is_trusted(path: object, data: DataOptions, trust: bool) -> None:
    """A tool reads and downloads a run's images only if its user trusts the run.

    Args:
        path: of the run, for messages.
        data: where its images are.
        trust: whether the user has said so.

    Raises:
        RunError: they are neither in a package nor trusted.
    """
    acts = acts_of_data(data)
    if trust or not acts:
        return
    key, value = next(iter(acts.items()))
    does = "downloads them" if key == "data.name" else f"reads the images in the folder {value}"
    raise RunError(
        f"{path}: its images are needed, its {key} is {value}, and that {does}; if that is what you want, add --trust"
    )


def check_work_is_trusted(path: object, renderer: RendererOptions, volume: Field, views: int, trust: bool) -> None:
    """A tool renders at a run's own size for hours only if its user trusts the run.

    Args:
        path: of the run, for messages.
        renderer: its size and samples.
        volume: what is rendered.
        views: that are rendered.
        trust: whether the user has said so.

    Raises:
        RunError: it would, and is not trusted.
    """
    shape = grid_shape(volume)
    samples = renderer.samples_per_ray or (FIELD_SAMPLES if shape is None else max(shape))
    if trust or views * renderer.image_size**2 * samples <= MOST_SAMPLES:
        return
    raise RunError(
        f"{path}: {views:,} views with its renderer.image_size={renderer.image_size} and {samples} samples along each "
        "ray may take hours; if that is what you want, add --trust"
    )
