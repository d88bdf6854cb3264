"""What the renderer needs of a volume (`Field`), and what a run needs besides (`Volume`)."""

import inspect
import json
import os
import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file as write_safetensors
from torch import Tensor, nn

from .. import notebook
from ..errors import VolumeFileError
from ..kernels.block_absorption import Blocks
from ..storage.atomic import whole_files

FORMAT_VERSION = 1
OWN_PACKAGE = __name__.split(".", 1)[0]
PUBLIC_PLACE = __name__.rpartition(".")[0]
SUFFIX = ".safetensors"
LOOKED_THROUGH = 2**21  # voxels whose smallest and largest value are found in some .1 s: a `repr` must not take longer


class Field(ABC):
    """Attenuation and absorbance at every point of [-1, 1]^3: all that the renderer needs.

    The renderer uses points inside the unit ball only; what a field returns outside does not matter. A wrapper (a
    frozen copy, a cut) is a Field. A Field that can also be trained and saved is a `Volume`.
    """

    @abstractmethod
    def __call__(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Attenuation (per world unit, >= 0) and absorbance ([0, 1]) at world points, in xyz order."""

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """The grid (attenuation, absorbance) of a field that is a grid, differentiable; else None.

        The fused kernel renders this grid. A field that returns None is evaluated at points along the rays.
        """
        return None

    def blocks(self) -> Blocks | None:
        """The same grid as those of its blocks that are not empty, where it is kept so; else None.

        Views are then rendered block by block, and `dense` is left to those who need the whole grid.
        """
        return None

    def like(self) -> Tensor:
        """A tensor with the device and the precision that points should have."""
        return torch.zeros(())


class Volume(nn.Module, Field):
    """A Field that can be trained, saved, and built again from plain arguments.

    A volume of your own is a subclass with a `forward`; its constructor's arguments must be plain values (numbers,
    strings, lists of them), so that a saved volume can be built again from them.
    """

    _init_args: dict[str, Any]
    RESUMABLE: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that a resumed run may change, as they change how, but not what, is computed."""
    RUNS_OWN: ClassVar[dict[str, str | None]] = {}
    """Arguments of the constructor that say how a run goes on, not what its weights mean: a volume keeps them where it
    takes the weights of another one (`--start_from`). Beside each stands the tensor of the state that goes with it."""

    def __new__(cls, *args: Any, **kwargs: Any):
        """Remembers the arguments of the constructor, which is all that a saved volume needs besides its weights."""
        volume = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(volume, *args, **kwargs)
        bound.apply_defaults()
        init_args = dict(list(bound.arguments.items())[1:])
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                init_args |= init_args.pop(name, {})
        object.__setattr__(volume, "_init_args", init_args)  # nn.Module is not initialised yet
        return volume

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments, defaults included."""
        return dict(self._init_args)

    @abstractmethod
    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Attenuation (per world unit, >= 0) and absorbance ([0, 1]) at world points, in xyz order.

        Gradients:
            To the parameters; to the points where the field is differentiable there.
        """

    def like(self) -> Tensor:
        """A parameter: it has the device and the precision of the volume."""
        return next((weight for weight in self.parameters() if weight.is_floating_point()), torch.zeros(()))

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> Path:
        """Write a volume file, whole or not at all; `mnist3d.load_volume(path)` builds the volume again.

        Args:
            path: ends in .safetensors; its folder is made where it is missing.
            extra: more metadata that JSON can hold; the commands read `renderer`, the options of the renderer that
                belongs to the volume, and `step`. Its names must not be `format_version`, `class_path`
                or `init_args`.

        Returns:
            The path.

        Raises:
            VolumeFileError: another suffix, or weights that are not a number, which `load_volume` refuses.
            ValueError: an extra with a name that the volume itself needs.
            TypeError: a constructor argument or an extra is no plain value.
            WriteError: the disk is full, or the folder cannot be written; what was there before is unchanged.
        """
        path = Path(path)
        if path.suffix != SUFFIX:
            raise VolumeFileError(
                f"path={path}: suffix {path.suffix or '(none)'}; must be {SUFFIX}. Voxel files of other tools are "
                "written by mnist3d.export.export_voxels"
            )
        try:
            content = _content(self, extra)
        except VolumeFileError as error:
            raise VolumeFileError(f"path={path}: {error}; not saved") from None
        with whole_files(path) as folder:
            _write(content, folder / path.name)
        return path

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters as groups for an optimiser; "rate" is a factor on `trainer.volume_rate`, default 1.

        Any other key, such as "eps", is the optimiser's own.
        """
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def extra_repr(self) -> str:
        """What `repr` says first: the constructor's arguments; of a subclass what describes it best."""
        return ", ".join(f"{name}={reprlib.repr(value)}" for name, value in self.init_args.items())

    def __repr__(self) -> str:
        weights, like = sum(weight.numel() for weight in self.parameters()), self.like()
        place = f"{str(like.dtype).removeprefix('torch.')} on {like.device}"
        parts = [self.extra_repr(), f"{weights:,} weights", place]
        return f"{type(self).__name__}({', '.join(part for part in parts if part)})"

    def _repr_html_(self) -> str | None:
        """For a notebook; see `mnist3d.notebook`."""
        write = notebook.volume_html
        return None if write is None else notebook.shown(self, lambda: write(self))

    def grow(self, steps_done: int, progress: float) -> bool:
        """Called before every training step. A volume that refines itself during training does so here.

        It may replace its parameters and must not draw random numbers; what it shows should stay what it was. What
        stage it is at belongs to its state: `load_state_dict` must take one from before or after.

        Args:
            steps_done: number of training steps so far.
            progress: share of the run that is done, [0, 1].

        Returns:
            Whether the volume was refined; if so, the trainer resets the state of its optimiser.
        """
        return False

    def grow_like(self, grown: "Volume", steps_done: int, progress: float) -> None:
        """Called for the average of a volume after `grow` has refined that volume: out of its own values it refines
        itself to the same shapes. A volume whose values decide what `grow` makes of it looks at the other one.

        Args:
            grown: the volume that has just grown.
            steps_done: as of `grow`.
            progress: as of `grow`.
        """
        self.grow(steps_done, progress)

    def take_voxels(self, grid: Float[Tensor, "2 Z Y X"]) -> None:
        """Take the values of a grid. A run that starts from a file (`--start_from`) uses this.

        A volume that grows while it is trained goes to its last stage first. Values at the border of their range may be
        drawn in a little, so that they get a gradient.

        Args:
            grid: attenuation per world unit, absorbance; of any resolution.

        Raises:
            ValueError: this kind of volume cannot be made of voxels.
        """
        raise ValueError(f"a {type(self).__name__} cannot start from voxels; a VoxelGrid can")


def class_path(cls: type[Volume]) -> str:
    """The import path of a volume class; our own backends under their public place."""
    if cls.__module__.startswith(f"{PUBLIC_PLACE}."):
        return f"{PUBLIC_PLACE}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def volume_bytes(volume: Volume, extra: dict[str, Any] | None = None) -> bytes:
    """The content of a volume file; arguments and errors as of `volume_writer`."""
    weights, metadata = _content(volume, extra)
    return safetensors_bytes(weights, metadata)


def volume_writer(volume: Volume, extra: dict[str, Any] | None = None) -> Callable[[Path], None]:
    """What writes the content of a volume file to a path, without a second copy of the weights in memory.

    Args:
        volume: any backend whose constructor takes plain values.
        extra: more metadata that JSON can hold, such as the renderer's settings and the step.

    Raises:
        VolumeFileError: weights that are not a number, which `load_volume` refuses.
        ValueError: an extra with a name that the volume itself needs.
        TypeError: a constructor argument or an extra is no plain value.
    """
    return partial(_write, _content(volume, extra))


def _write(content: tuple[dict[str, Tensor], dict[str, str]], path: Path) -> None:
    """Weights and metadata as a file.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "wb") as file:
        mode = os.fstat(file.fileno()).st_mode  # as the user wants new files; safetensors lets nobody else read its own
    try:
        write_safetensors(content[0], path, content[1])
        os.chmod(path, mode)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error)) from None


def _content(volume: Volume, extra: dict[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a volume file; see `volume_writer`."""
    if not_numbers := [name for name, weight in volume.state_dict().items() if weight.isnan().any()]:
        raise VolumeFileError(f"{not_numbers[0]} holds weights that are not a number")
    description = {
        "format_version": FORMAT_VERSION,
        "class_path": class_path(type(volume)),
        "init_args": volume.init_args,
    }
    if taken := description.keys() & (extra or {}):
        raise ValueError(f"extra: {', '.join(sorted(taken))} must not be among its names; the volume says that itself")
    description |= extra or {}
    weights = {key: value.detach().cpu().contiguous() for key, value in volume.state_dict().items()}
    return weights, {OWN_PACKAGE: json.dumps(description)}


@torch.no_grad()
def grid_shape(field: Field) -> tuple[int, ...] | None:
    """(Z, Y, X) of a field that is a grid; None of any other."""
    blocks = field.blocks()
    if blocks is not None:
        return blocks.resolution
    grid = field.dense()
    return None if grid is None else tuple(grid.shape[1:])


@torch.no_grad()
def grid_words(field: Field, resolution: Sequence[int]) -> str:
    """Resolution and range of a field whose grid costs little, for its `repr`.

    Args:
        field: its grid is looked through up to 128^3 voxels; beyond, the range is left out.
        resolution: of the grid, (Z, Y, X).
    """
    words, voxels = f"resolution={tuple(resolution)}", 1
    for count in resolution:
        voxels *= count
    if voxels > LOOKED_THROUGH or field.like().is_meta:
        return words
    grid = field.dense()
    assert grid is not None
    low, high = (f"{round(float(value), 6):.3g}" for value in grid[0].aminmax())  # a millionth is nothing
    return f"{words}, attenuation {low} to {high} per world unit"
