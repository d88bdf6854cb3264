"""Imports go one way: the design's list as data, the sources read with ast, and made-up sources that must not pass."""

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from import_rules import (
    LINES,
    RULES,
    Layout,
    Part,
    circles,
    hidden,
    private_imports,
    too_long,
    unplaced,
    unused_entries,
    wrong_handing_on,
    wrong_imports,
    wrong_list,
    wrong_sentences,
)

from tools.read_imports import foreign_imports, imports

Rule = Callable[[Path, Layout], list[str]]

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mnist3d"


# From the top down: a part imports only from below. A folder allows all its modules, a module itself alone.
PARTS = {
    "__main__": Part(None, "cli.program"),
    "mnist3d": Part(
        "Sculpt a 3D volume out of 2D pictures.",
        "runs.loading training export.notebook_cell rendering data volumes geometry notebook version",
    ),
    "cli": Part(
        "One file a command, a user's mistake in one line.",
        "comparisons sweeps runs viewer reconstruction distillation training.objectives.base evaluation export "
        "rendering data.images volumes formats.picking formats.reading storage geometry.rotations errors invocation "
        "version",
    ),
    "comparisons": Part(
        "Variants side by side, after equal time or equal steps.",
        "sweeps runs evaluation export.learning_curves rendering.renderer data.images volumes storage "
        "geometry.rotations errors",
    ),
    "sweeps": Part(
        "Many runs: planned, run here or on a cluster, compared.",
        "runs callbacks.progress evaluation rendering.renderer data.images volumes.files storage geometry.rotations "
        "errors",
    ),
    "runs": Part(
        "One run: described, built, resumed, opened again.",
        "callbacks viewer training evaluation export.notebook_cell rendering.renderer data volumes formats.picking "
        "formats.reading formats.values storage geometry.rotations errors invocation notebook",
    ),
    "callbacks": Part(
        "What watches a run.",
        "viewer training evaluation rendering data volumes.base volumes.files storage geometry.rotations errors "
        "invocation",
    ),
    "viewer": Part(
        "The page that shows a volume, finished or in the making.",
        "export rendering volumes.base volumes.files volumes.wrappers geometry.rotations errors invocation",
    ),
    "testing": Part(
        "Contract checks for authors of volumes, kernels, objectives.",
        "training rendering.renderer data.images volumes kernels geometry",
    ),
    "reconstruction": Part(
        "One object from its images, views known or unknown.",
        "training rendering.renderer data.image_files data.images volumes.base volumes.occupancy volumes.voxel_grid "
        "volumes.wrappers formats.contents formats.mrc formats.voxel_array storage.memory storage.optional "
        "storage.plain_files kernels.absorption geometry.grids geometry.rotations errors",
    ),
    "distillation": Part(
        "One field fitted to another.", "rendering.renderer volumes geometry.grids geometry.rotations"
    ),
    "training": Part(
        "The loop and the reasons.",
        "rendering.renderer data volumes.base geometry errors",
    ),
    "evaluation": Part(
        "How good and how diverse views are.",
        "rendering.renderer volumes.base storage.atomic storage.plain_files geometry.rotations errors",
    ),
    "export": Part(
        "Videos, meshes, pages, plots.",
        "rendering volumes.base volumes.resampling volumes.wrappers formats storage kernels.absorption geometry errors",
    ),
    "rendering": Part(
        "Volume + rotation -> view.",
        "volumes.base volumes.occupancy volumes.resampling volumes.voxel_grid volumes.wrappers storage.memory "
        "kernels.absorption kernels.block_absorption kernels.compositing geometry errors",
    ),
    "data": Part(
        "Images to learn from.", "storage.memory storage.plain_files geometry.on_device geometry.rotations errors"
    ),
    "volumes": Part(
        "The fields one can train.",
        "formats.reading storage.atomic storage.inflating storage.memory storage.plain_files kernels geometry errors "
        "notebook",
    ),
    "formats": Part(
        "A file format's reader and writer side by side.",
        "storage.inflating storage.labels storage.memory storage.optional storage.plain_files geometry.grids errors "
        "invocation version",
    ),
    "storage": Part("On disk whole or not at all.", "errors invocation"),
    "kernels": Part(
        "One folder an operation, its `__init__` the contract, `reference` plain PyTorch, a file for each faster twin.",
        "geometry.parts",
    ),
    "geometry": Part("Rotations, cameras, grids."),
    "errors": Part(None),
    "invocation": Part(None),
    "notebook": Part(None),
    "version": Part(None),
}
BY_NAME = {
    "storage.optional": "a library that only one file format needs",
    "runs.class_paths": "a class of the user's own",
}
LAYOUT = Layout(PARTS, BY_NAME)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule):
    wrong = rule(PACKAGE, LAYOUT)
    assert not wrong, "\n".join(wrong)


def test_the_trainer_knows_no_objective_by_name():
    taken = {each.imported for each in imports(PACKAGE) if each.importer == "training.trainer"}
    assert {name for name in taken if name.startswith("training.objectives")} == {"training.objectives.base"}


def test_nothing_imports_the_programs():
    programs = {"train", "inference", "tools", "tests", "benchmarks", "docs", "research"}
    assert not [pair for pair in foreign_imports(PACKAGE) if pair[1] in programs]


def test_the_package_alone_brings_in_nothing_but_itself():
    """Torch takes seconds: `mnist3d --help` and `mnist3d presets` do without."""
    code = "import sys, mnist3d.cli.program, mnist3d.cli.presets; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("mnist3d.")}
    assert ours >= {"mnist3d.cli.presets", "mnist3d.cli.program"}
    assert len(ours) < 12
    assert not {"torch", "numpy", "einops", "jaxtyping", "safetensors", "imageio"} & {*loaded}


def test_importing_brings_in_nothing_heavy():
    """No numba, CUDA, tinycudann, torchvision, viewer or command line before it is asked for."""
    code = "import sys, mnist3d, mnist3d.testing; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mnist3d.testing.volumes" in loaded
    heavy = {"numba", "triton", "tinycudann", "torchvision", "websockets", "mlxtend", "numcodecs", "pureml", "zarr"}
    heavy |= {"torchmetrics", "pandas", "scipy", "matplotlib"}
    assert not (heavy | {f"mnist3d.{name}" for name in ("cli", "runs", "callbacks", "viewer")}) & {*loaded}


# A made-up package that keeps all rules, and then one change after the other that breaks one.
HOUSE = {
    "__init__": '"""A house."""',
    "roof/__init__": '"""Above."""\nfrom .tiles import tile\n__all__ = ["tile"]',
    "roof/tiles": "from ..walls import brick\nfrom ..walls.plaster import smooth\nimport json",
    "walls/__init__": '"""Around."""\nfrom .stone import brick\n__all__ = ["brick"]',
    "walls/stone": "from ..ground import depth",
    "walls/stone_age": "",
    "walls/plaster": "from .stone import brick",
    "walls/_straw": "",
    "ground": "depth = 1",
}
ORDER = Layout(
    {
        "house": Part("A house."),
        "roof": Part("Above.", "walls"),
        "walls": Part("Around.", "ground"),
        "ground": Part(None),
    }
)


def build(folder: Path, changes: Mapping[str, str]) -> Path:
    """The made-up package with lines added to some of its files."""
    for name in {*HOUSE, *changes}:
        path = folder / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{HOUSE.get(name, '')}\n{changes.get(name, '')}\n")
    return folder / "house"


def test_a_package_in_order_passes(tmp_path: Path):
    house = build(tmp_path, {})
    assert [rule(house, ORDER) for rule in RULES] == [[]] * len(RULES)


@pytest.mark.parametrize(
    ("rule", "changes", "word"),
    [
        (unplaced, {"cellar/__init__": ""}, "cellar: has no place"),
        (wrong_imports, {"walls/stone": "from ..roof.tiles import tile"}, "imports roof.tiles; it may import ground"),
        (wrong_imports, {"walls/stone": "def later():\n    from ..roof import tile"}, "stone:3 imports roof"),
        (wrong_imports, {"walls/stone": "import house.roof.tiles as up"}, "imports roof.tiles"),
        (wrong_imports, {"walls/stone": "from house import roof"}, "imports roof"),
        (wrong_imports, {"walls/stone": "from .. import roof"}, "imports roof"),
        (wrong_imports, {"walls/stone": "import house"}, "imports house"),
        (wrong_imports, {"walls/stone": "from .. import *"}, "imports house"),
        (wrong_imports, {"ground": "from .walls.stone import brick"}, "it may import nothing"),
        (wrong_imports, {"walls/stone": "from .mortar import lime"}, "walls.mortar, which does not exist"),
        (
            circles,
            {"walls/stone": "def later():\n    from .plaster import smooth"},
            "walls.plaster imports walls.stone",
        ),
        (circles, {"walls/stone": "from . import brick"}, "walls imports walls.stone imports walls"),
        (circles, {"walls/stone": "from .plaster import x", "walls/stone_age": "from .stone import y"}, "walls.stone"),
        (hidden, {"walls/stone": "import importlib\nimportlib.import_module('house.roof')"}, "hides an import"),
        (hidden, {"walls/stone": "__import__('house')"}, "hides an import"),
        (hidden, {"walls/stone": "import_module(f'house.{kind}')"}, "hides an import"),
        (hidden, {"walls/stone": "import_module(f'{__package__}.stone')"}, "hides an import"),
        (hidden, {"walls/stone": "import_module(__package__)"}, "hides an import"),
        (hidden, {"walls/stone": "import_module('.stone', __package__)"}, "hides an import"),
        (hidden, {"walls/stone": "import_module(name='house.' + kind)"}, "hides an import"),
        (hidden, {"walls/stone": "from importlib import import_module as get\nget('house.roof')"}, "hides an import"),
        (hidden, {"walls/stone": "ROOF = 'house.roof'\nimport_module(ROOF)"}, "imports by a name"),
        (hidden, {"walls/stone": "exec('from ..roof import tile')"}, "imports by a name"),
        (private_imports, {"roof/tiles": "from ..walls._straw import x"}, "imports walls._straw"),
        (private_imports, {"roof/tiles": "from ..walls import _straw"}, "imports walls._straw"),
        (private_imports, {"roof/tiles": "from ..walls.stone import _crack"}, "imports _crack"),
        (too_long, {"ground": "pass\n" * LINES}, "ground: 352 lines"),
        (too_long, {f"loose{count}": "" for count in range(5)}, "7 files at the root"),
        (wrong_handing_on, {"walls/__init__": "__all__ = ['brick', 'door']"}, "`__all__` has door"),
        (wrong_handing_on, {"walls/__init__": "__all__ = []"}, "brick is taken, but not in"),
        (wrong_handing_on, {"cellar/__init__": "from ..walls.stone import brick"}, "hands on brick without `__all__`"),
    ],
)
def test_a_rule_catches(rule: Rule, changes: dict[str, str], word: str, tmp_path: Path):
    assert word in "\n".join(rule(build(tmp_path, changes), ORDER))


@pytest.mark.parametrize(
    ("rule", "name", "part", "word"),
    [
        (wrong_list, "walls", Part("Around.", "roof ground"), "walls: roof is not below it"),
        (wrong_list, "walls", Part("Around.", "walls.stone"), "walls: walls.stone is not below it"),
        (wrong_list, "walls", Part("Around.", "ground.floor"), "walls: ground.floor is no module"),
        (wrong_list, "roof", Part("Above.", "ground walls"), "not in the layout's order"),
        (wrong_list, "roof", Part("Above.", "walls walls.stone"), "walls.stone is listed beside"),
        (wrong_list, "roof", Part("Above.", "walls walls"), "walls is listed twice"),
        (unused_entries, "roof", Part("Above.", "walls ground"), "roof: nothing there imports ground"),
        (unused_entries, "roof", Part("Above.", "walls.stone_age walls"), "imports walls.stone_age"),
        # A name that another one begins with is another one.
        (wrong_imports, "roof", Part("Above.", "walls.plaster wall"), "tiles:1 imports walls; it may import"),
        (wrong_imports, "roof", Part("Above.", "walls.plaster_of_paris"), "tiles:2 imports walls.plaster"),
        (wrong_sentences, "roof", Part("Above all.", "walls"), "must be: Above all."),
        (unplaced, "cellar", Part("Below.", ""), "cellar: there is no such"),
    ],
)
def test_a_wrong_list_is_caught(rule: Rule, name: str, part: Part, word: str, tmp_path: Path):
    wrong = rule(build(tmp_path, {}), Layout({**ORDER.parts, name: part}))
    assert word in "\n".join(wrong)


def test_a_place_that_imports_by_a_name_no_more_is_caught(tmp_path: Path):
    order = dataclasses.replace(ORDER, by_name={"walls.stone": "a reason"})
    assert hidden(build(tmp_path, {}), order) == ["by_name[walls.stone]: nothing there imports by a name"]
    assert hidden(build(tmp_path, {"walls/stone": "import_module(kind)"}), order) == []


def test_the_page_about_the_layout_names_what_is_there():
    named = re.findall(r"`((?:\w+/)+[\w.]*|\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 30
    assert [
        name
        for name in named
        if not any((place / name).exists() for place in (ROOT, PACKAGE / "kernels" / "absorption"))
    ] == []


def draw(root: Path, *flags: str) -> int:
    """The exit code of the drawing tool in a clone."""
    return subprocess.run([sys.executable, root / "tools" / "draw_layout.py", *flags], check=False).returncode


def test_the_drawing_of_the_layout_is_what_the_imports_say():
    assert draw(ROOT, "--check") == 0


def test_a_drawing_that_is_not_what_the_imports_say_is_caught(tmp_path: Path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    build(tmp_path, {}).rename(tmp_path / "mnist3d")
    (tmp_path / "docs").mkdir()
    assert draw(tmp_path, "--check") == 1
    assert draw(tmp_path) == 0
    assert draw(tmp_path, "--check") == 0
    (tmp_path / "mnist3d" / "roof" / "tiles.py").write_text("from ..ground import depth")
    assert draw(tmp_path, "--check") == 1
