"""Say what is here, what "auto" takes with it and why, and what to install for more."""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, get_args

from ..invocation import program_name
from ..storage.memory import free_memory
from ..storage.optional import to_install
from ..storage.plain_files import size_in_words
from ..version import __version__
from .tool_parser import OneLineParser

# Modules of the extra "export", and what does not work without each.
EXPORT = {
    "trimesh": ("meshes",),
    "skimage": ("meshes",),
    "scipy": ("meshes", "points"),
    "lxml": (".3mf",),
    "networkx": (".3mf",),
    "nrrd": (".nrrd",),
    "nibabel": (".nii",),
    "mrcfile": (".mrc",),
    "tifffile": (".tif",),
    "numcodecs": (".vdb",),
    "matplotlib": ("plot",),
}
CPU_TORCH = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
WIDTH = 12  # of the column of names


class Finding(NamedTuple):
    """One line of the report.

    Args:
        name: of the thing.
        here: what was found.
        advice: what to do for more; "" where there is nothing to do.
    """

    name: str
    here: str
    advice: str = ""


def build_parser() -> OneLineParser:
    """All flags."""
    return OneLineParser(
        prog=program_name("doctor"),
        description=__doc__,
        epilog='"auto" is found out by trying, as a run does: the first time on a machine this compiles for some '
        "seconds. Nothing is installed, sent or written.",
    )


def main(arguments: Sequence[str]) -> None:
    """Parse, look, print each line as it is known."""
    build_parser().parse_args(arguments)
    print(f"mnist3d {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    advice = _told(_machine())
    if sys.modules.get("torch") is not None:  # without it there is nothing to ask
        advice += _told(_libraries())
        print('\nwhat "auto" takes')
        advice += _told(_choices())
    if advice:
        print("\nfor more")
        for line in dict.fromkeys(advice):
            print(f"  {line}")
    else:
        print("\nnothing is missing")


def _told(findings: Iterable[Finding]) -> list[str]:
    """Print findings; their advice."""
    advice = []
    for found in findings:
        print(f"  {found.name:{WIDTH}}{found.here}", flush=True)
        if found.advice:
            advice.append(found.advice)
    return advice


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = free_memory()
    yield Finding("processor", f"{usable} cores, {'' if free is None else f'{size_in_words(free)} of memory free'}")
    try:
        import torch
    except Exception as error:  # a library of the system's that is not there, another's module of that name
        yield Finding("torch", _of_an_import(error), "anything at all: pip install --force-reinstall torch torchvision")
        return
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield Finding("torch", f"{torch.__version__}, {built}, {torch.get_num_threads()} threads")
    yield _gpu(torch.cuda.is_available(), torch.version.cuda)


def _gpu(seen: bool, cuda: str | None) -> Finding:
    if seen:
        import torch

        try:
            names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        except RuntimeError as error:  # another program has it for itself, or its driver is broken
            return Finding("GPU", f"cannot be asked ({' '.join(str(error).split())[:90]})", "the GPU: run nvidia-smi")
        return Finding("GPU", ", ".join(f"{each.name} ({size_in_words(each.total_memory)})" for each in names))
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return Finding("GPU", "none that CUDA could use; a CPU is enough")
    if cuda is None:
        remedy = "the GPU: pip uninstall torch torchvision, then pip install torch torchvision"
        return Finding("GPU", "nvidia-smi is here, but torch was built without CUDA", remedy)
    remedy = f"the GPU: run nvidia-smi; its driver must be new enough for CUDA {cuda}"
    return Finding("GPU", "nvidia-smi is here, but torch sees no GPU", remedy)


def _libraries() -> Iterator[Finding]:
    yield _library("numba", _import_numba, "the fast renderer and hash encoding on a CPU", "pip install numba")
    import torch

    if torch.cuda.is_available():
        remedy = "a CUDA build of torch, which brings triton on Linux"
        yield _library("triton", _import_triton, "the fast renderer on a GPU", remedy)
        yield _library("tinycudann", _import_tinycudann, "the fused hash grid on a GPU", "see docs/hash_grid.md")
    else:
        yield Finding("triton", "not needed without a GPU")
        yield Finding("tinycudann", "not needed without a GPU")
    yield _ffmpeg()
    yield _browser()
    missing = {name: what for name, what in EXPORT.items() if importlib.util.find_spec(name) is None}
    if missing:
        lost = ", ".join(dict.fromkeys(what for each in missing.values() for what in each))
        yield Finding("export", f"{', '.join(missing)} missing", f"{lost}: {to_install('export')}")
    else:
        yield Finding("export", "all formats")


def _import_numba() -> None:
    import numba  # noqa: F401


def _import_triton() -> None:
    import triton  # noqa: F401  # pyright: ignore[reportMissingImports]


def _import_tinycudann() -> None:
    import tinycudann  # noqa: F401  # pyright: ignore[reportMissingImports]


def _library(name: str, imported: Callable[[], object], purpose: str, remedy: str) -> Finding:
    try:
        imported()
        return Finding(name, f"{importlib.metadata.version(name)}, {purpose}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"here, {purpose}")
    except Exception as error:  # whatever somebody else's library raises while it is imported
        return Finding(name, _of_an_import(error), f"{purpose}: {remedy}")


def _of_an_import(error: Exception) -> str:
    return "not installed" if isinstance(error, ModuleNotFoundError) else " ".join(str(error).split())[:90]


def _ffmpeg() -> Finding:
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
        said = subprocess.run(
            [program, "-version"], capture_output=True, encoding="utf-8", errors="replace", timeout=20
        ).stdout
        return Finding("ffmpeg", f"{' '.join(said.split()[2:3])}, for .mp4 and .webm")
    except Exception:  # of the library as of the program
        return Finding("ffmpeg", "none", ".mp4 and .webm: pip install imageio-ffmpeg")


def _browser() -> Finding:
    try:
        return Finding("browser", getattr(webbrowser.get(), "name", "") or "the system's own")
    except webbrowser.Error:
        return Finding("browser", "none here: open the printed address elsewhere (docs/troubleshooting.md, The page)")


def _choices() -> Iterator[Finding]:
    """What each "auto" says when it is asked, on each kind of device that is here."""
    import torch

    from ..rendering import AbsorptionRenderer
    from ..rendering.renderer import QuadratureName
    from ..volumes import HashGrid, VoxelGrid

    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        # all that touches the device is asked, as another program may have taken its memory or the whole of it
        for quadrature in get_args(QuadratureName):
            renderer = AbsorptionRenderer(8, quadrature=quadrature)
            said = _asked(lambda on=device, draw=renderer: draw(VoxelGrid(12).to(on), torch.eye(3, device=on)))
            yield Finding("renderer", f"{quadrature} on {device}: {said}")
        said = _asked(lambda on=device: HashGrid(num_levels=2).to(on)(torch.eye(3, device=on)))
        yield Finding("hash grid", f"on {device}: {said}")


def _asked(question: Callable[[], object]) -> str:
    """What is logged while it is answered."""
    with _heard() as lines:
        try:
            question()
        except Exception as error:  # a broken library must not keep the rest from being said
            lines.append(" ".join(f"fails ({error})".split()))
    return "; ".join(line.partition(" takes ")[2] or line for line in lines) or "the same"


@contextmanager
def _heard() -> Iterator[list[str]]:
    logger, lines = logging.getLogger("mnist3d.kernels"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level, passed_on = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = passed_on
