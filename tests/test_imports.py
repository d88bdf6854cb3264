"""Imports go one way: the design's list as data, the sources read with ast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mnist3d"
# Which of our modules each part may import; the first matching prefix counts.
ALLOWED = {
    "cameras": (),
    "poses": (),
    "kernels": ("kernels",),
    "losses": (),
    "datasets": (),
    "discriminator": (),
    "exemplars": (),
    "plates": ("poses",),
    "group_weights": (),
    "class_prices": (),
    "registration": ("exemplars",),
    "nearest_pull": ("exemplars", "group_weights", "plates", "registration"),
    "step_report": (),
    "trainer_options": (),
    "glyphs": ("datasets",),
    "targets": ("datasets", "exemplars", "glyphs", "plates", "poses"),
    "run_directory": (),
    "version": (),
    "volumes": ("kernels", "volumes"),
    "occupancy": ("volumes.base",),
    "renderer": ("cameras", "kernels", "occupancy", "volumes.base"),
    "scorecard": ("renderer", "poses", "volumes.base", "scorecard"),
    "export": ("renderer", "poses", "volumes.base", "volumes.resampling", "export", "version"),
    "viewer": ("renderer", "poses", "volumes.base", "volumes.files", "export", "viewer"),
    "testing": ("kernels", "renderer", "poses", "volumes", "volume_contract"),
    "volume_contract": ("volumes",),
    "trainer": (
        "class_prices",
        "datasets",
        "discriminator",
        "group_weights",
        "losses",
        "nearest_pull",
        "plates",
        "poses",
        "renderer",
        "targets",
        "volumes",
        "step_report",
        "trainer_options",
        "kernels",
        "scorecard",
    ),
    "score_hook": ("datasets", "run_directory", "scorecard", "trainer"),
    "diagnosis": ("trainer", "volumes"),
    "watchdog": ("diagnosis", "trainer"),
    "viewer_hook": ("score_hook", "scorecard", "trainer", "viewer"),
    "gallery": ("config", "datasets", "run_directory", "scorecard", "viewer", "viewer_hook", "volumes"),
    "config": (
        "datasets",
        "discriminator",
        "losses",
        "poses",
        "renderer",
        "run_directory",
        "score_hook",
        "targets",
        "trainer",
        "viewer.options",
        "volumes",
        "watchdog",
    ),
    "command_line": ("config", "run_directory", "version", "volumes", "export", "watchdog"),
    "tool_arguments": ("config", "version"),
    "hooks": ("trainer", "run_directory", "export", "poses", "renderer", "scorecard", "volumes"),
    "session": (
        "command_line",
        "config",
        "datasets",
        "gallery",
        "hooks",
        "run_directory",
        "score_hook",
        "scorecard",
        "targets",
        "trainer",
        "viewer_hook",
        "watchdog",
    ),
    "__init__": ("config", "poses", "renderer", "volumes", "version"),
}


def modules():
    return sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))


def imported(path: Path):
    """Our own modules that a source imports, also inside functions, as dotted names below the package."""
    here = [*path.parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / path).with_suffix(".py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mnist3d":
            yield (node.module or "").partition(".")[2]
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == "mnist3d")


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_go_one_way(path):
    part = path.parts[0]
    assert part in ALLOWED, f"{path} has no place in the list: give it one in this test and in the design"
    for name in imported(path):
        allowed = any(name == prefix or name.startswith(f"{prefix}.") for prefix in ALLOWED[part])
        assert allowed, f"{path} imports mnist3d.{name}; allowed are {ALLOWED[part]}"


def test_the_list_catches_a_wrong_import():
    assert list(imported(Path("renderer"))) != []
    assert "volumes.base" in list(imported(Path("renderer")))
    assert not any("voxel_grid".startswith(prefix) for prefix in ALLOWED["renderer"])


def test_nothing_imports_the_programs():
    for path in modules():
        tree = ast.parse((PACKAGE / path).with_suffix(".py").read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert not {str(name).split(".")[0] for name in names} & {"train", "inference", "tools"}


def test_importing_brings_in_nothing_heavy():
    """No numba, CUDA, tinycudann, torchvision, viewer or command line before it is asked for."""
    code = "import sys, mnist3d, mnist3d.testing; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "numba",
        "llvmlite",
        "triton",
        "tinycudann",
        "torchvision",
        "websockets",
        "mlxtend",
        "pandas",
        "jsonargparse",
    }
    assert not heavy & set(loaded)
