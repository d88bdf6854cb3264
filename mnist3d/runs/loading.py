"""A run or a volume file opened again: configuration, volume, renderer."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import notebook
from ..errors import VolumeFileError, shown
from ..rendering.renderer import AbsorptionRenderer
from ..storage.last_two import previous
from ..storage.run_directory import RunDirectory
from ..volumes import Volume, load_volume, read_description
from .config import Config, read_config, written_config
from .memory import check_opened


@dataclass(repr=False)
class Run:
    """A finished or running run, as it lies on disk.

    Args:
        path: the run directory.
        config: what it was started with.
        volume: the averaged volume, on the CPU.
        renderer: makes the views that the discriminator saw.
        origin: name of the run or file, step (None: not said there) and as much of the configuration as was found, as
            JSON can hold it.
    """

    path: Path
    config: Config
    volume: Volume
    renderer: AbsorptionRenderer
    origin: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        step = self.origin.get("step")
        lines = [f"Run {self.path}" + (f" at step {step:,}" if isinstance(step, int) else "")]
        lines += [f"  {name}: {getattr(self, name)!r}" for name in ("volume", "renderer")]
        return "\n".join([*lines, f"  data: {self.config.data.name}"])

    def _repr_html_(self) -> str:
        """For a notebook; see `export.notebook_cell`."""
        return notebook.shown(self, self._cell)

    def _cell(self) -> str:
        from ..export.notebook_cell import notebook_cell  # a command that opens a run has no need of it

        title = str(self.origin.get("run") or self.path.resolve().name)
        return notebook_cell(self.volume, self.renderer.options, title, repr(self))


def load_sculpture(path: str | Path, *, trusted: Sequence[type[Volume]] = ()) -> Run:
    """Read a run directory, or a volume file on its own.

    A lone volume file says itself how it is rendered; the rest of its configuration is the default.

    Raises:
        RunError, VolumeFileError, ConfigError: as `load_run`.
    """
    path = Path(path)
    if not path.is_file():
        return load_run(path, trusted=trusted)
    volume = load_volume(path, trusted=trusted)
    description = read_description(path)
    volume_spec = {"class_path": description["class_path"], "init_args": description["init_args"]}
    known = {"volume": volume_spec, "renderer": description.get("renderer", {})}
    config = written_config(known)
    origin = {"run": path.name, "step": description.get("step"), "config": known}
    return _opened(path.parent, config, volume, origin)


def load_run(path: str | Path, *, trusted: Sequence[type[Volume]] = ()) -> Run:
    """Read a run directory. Where its volume is damaged or missing, the one before is read, and a line says so.

    Args:
        path: the folder.
        trusted: volume classes outside this package that may be built.

    Raises:
        RunError: no run lies there, or its configuration is damaged.
        VolumeFileError: it has no volume yet, damaged ones, or one of a class that is not trusted.
    """
    run = RunDirectory(path)
    config = read_config(run)
    volume, step = _volume_of(run, trusted)
    origin = {"run": run.path.resolve().name, "step": step, "config": dataclasses.asdict(config)}
    return _opened(run.path, config, volume, origin)


def _volume_of(run: RunDirectory, trusted: Sequence[type[Volume]]) -> tuple[Volume, Any]:
    """The newest volume that can be read, and its step."""
    newest, before = run.volume_path, previous(run.volume_path)
    try:
        return load_volume(newest, trusted=trusted), read_description(newest).get("step")
    except VolumeFileError as error:
        if not before.is_file():
            raise
        try:
            found = load_volume(before, trusted=trusted), read_description(before).get("step")
        except VolumeFileError:
            raise error from None
        logging.getLogger(__name__).warning("%s; showing %s of step %s", error, before.name, shown(found[1]))
        return found


def _opened(path: Path, config: Config, volume: Volume, origin: dict[str, Any]) -> Run:
    """As it is looked at: nothing of it learns any more."""
    check_opened(f"{origin['run']}", volume)
    # what rendered the run need not be here, and whoever looks at it may have another device
    renderer = AbsorptionRenderer(**{**dataclasses.asdict(config.renderer), "impl": "auto"})
    return Run(path, config, volume.eval().requires_grad_(False), renderer, origin)
