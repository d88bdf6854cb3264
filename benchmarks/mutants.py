"""Whether the tests can fail: one deliberate mistake a module, and whether a test notices it.

    python benchmarks/mutants.py [--only volumes/] [--seed 0] [--output mutants.json]

Each module of the package gets one mistake, at a place that its name and the seed choose: a comparison or an
operator turned, a number moved, a condition negated. The tests that name the module or something that it defines
are run against a copy of the tree until one fails. What survives is listed with its line: either a test is missing, or
the mistake changes nothing that matters. Takes an hour or two on one core.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = "mnist3d"
MOST_TEST_FILES = 8  # tried for a module, those that name it first
OF_FOLDER = {  # tried last, for what no test names
    "kernels": "test_kernels*.py test_hash_encoding.py test_renderer.py",
    "formats": "test_volume_readers*.py test_export_voxels.py test_export_failures.py",
    "export": "test_limits.py test_export*.py test_page.py",
    "data": "test_datasets.py test_limits.py test_targets.py",
    "evaluation": "test_limits.py test_scorecard.py test_packaged_classifiers.py",
    "volumes": "test_voxel_grid.py test_growth.py test_volume_files.py",
    "training": "test_trainer.py test_objectives.py test_watchdog.py",
    "callbacks": "test_callbacks.py test_limits.py test_watchdog.py test_viewer.py",
    "viewer": "test_viewer.py test_page.py test_viewer_browser.py",
    "testing": "test_volume_contract.py test_objectives.py test_kernels.py",
    "cli": "test_limits.py test_added_objectives.py test_config.py test_command_line.py test_backends.py",
    "runs": "test_limits.py test_added_objectives.py test_config.py test_command_line.py test_backends.py",
}
SECONDS = 240  # for a test file: one that hangs has noticed, too
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of functions that a mistake can be made in; annotations, messages and docstrings aside."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        left: list[ast.AST] = list(function.body)
        while left:
            node = left.pop()
            if isinstance(node, ast.Raise | ast.JoinedStr | ast.FunctionDef | ast.Assert):
                continue
            number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
            binary = isinstance(node, ast.BinOp) and type(node.op) in OPERATORS
            compared = isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS
            if number or binary or compared or isinstance(node, ast.BoolOp | ast.IfExp | ast.If):
                yield node
            for name, value in ast.iter_fields(node):
                if name != "annotation":
                    left += [
                        child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)
                    ]


def spoil(node: Any) -> None:
    """The mistake."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        node.value += 1
    elif isinstance(node, ast.BinOp):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    else:
        node.test = ast.UnaryOp(ast.Not(), node.test)


def mutant(path: Path, seed: int) -> tuple[str, int, str, str] | None:
    """Source with one mistake, its line, what stood there and what stands there now; None: nothing to spoil."""
    tree = ast.parse(path.read_text())
    found = list(places(tree))
    if not found:
        return None
    node = random.Random(f"{path.relative_to(ROOT)} {seed}").choice(found)
    shown = node.test if isinstance(node, ast.If) else node
    before = ast.unparse(shown)  # pyright: ignore[reportArgumentType]
    spoil(node)
    after = ast.unparse(node.test if isinstance(node, ast.If) else node)  # pyright: ignore[reportArgumentType]
    return ast.unparse(ast.fix_missing_locations(tree)), node.lineno, before, after  # pyright: ignore[reportAttributeAccessIssue]


def tests_of(path: Path) -> list[Path]:
    """Test files, those that import the module first, then those that name what it defines."""
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [name for name in defined if not name.startswith("_")] or [path.stem]
    ranked = []
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        text = test.read_text()
        imports = 5 * (f"from {dotted} import" in text) + 3 * (path.stem in test.stem)
        score = imports + len({name for name in names if re.search(rf"\b{name}\b", text)})
        if score:
            ranked.append((-score, test))
    found = [test for _, test in sorted(ranked)][:MOST_TEST_FILES]
    patterns = OF_FOLDER.get(path.relative_to(ROOT / PACKAGE).parts[0], "test_command_line.py").split()
    return list(dict.fromkeys([*found, *(test for each in patterns for test in sorted((ROOT / "tests").glob(each)))]))


def noticed(tree: Path, tests: list[Path]) -> str | None:
    """The first test file that fails, or None."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    for test in tests:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            f"tests/{test.name}",
        ]
        try:
            ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"{test.name} (hangs)"
        if ended.returncode not in (0, 5):
            return test.name
    return None


def _not_source(folder: str, names: list[str]) -> list[str]:
    """What a copy of the tree does not need; `runs` is a folder of the package too."""
    outputs = (".git", "runs", "data") if Path(folder) == ROOT else ()
    return [name for name in names if name in ("__pycache__", *outputs)]


def main() -> None:
    """A line a module, then what survived."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default="", help="modules whose path this regular expression finds")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mistakes")
    parser.add_argument("--part", default="1/1", help="k/n: the k-th of n shares of the modules, for several processes")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    number, parts = map(int, options.part.split("/"))
    modules = [
        path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if re.search(options.only, str(path.relative_to(ROOT)))
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=_not_source)
        for path in modules[number - 1 :: parts]:
            made = mutant(path, options.seed)
            if made is None:
                continue
            source, line, before, after = made
            copy = tree / path.relative_to(ROOT)
            kept, began = copy.read_text(), time.monotonic()
            copy.write_text(source)
            by = noticed(tree, tests_of(path))
            copy.write_text(kept)
            place = f"{path.relative_to(ROOT)}:{line}"
            rows.append({"place": place, "before": before, "after": after, "noticed_by": by})
            seconds = time.monotonic() - began
            print(f"{by or 'SURVIVED':34} {seconds:5.0f} s  {place}  {before[:50]} -> {after[:50]}", flush=True)
    survived = [row for row in rows if row["noticed_by"] is None]
    print(f"{len(rows) - len(survived)} of {len(rows)} noticed")
    if options.output:
        options.output.write_text(json.dumps({"seed": options.seed, "mutants": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
