"""notebooks/: each runs from first cell to last, shows what it should, and is committed without outputs."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import need
from docs_commands import wrong_commands
from docs_rules import Page, read_page, wrong_links, wrong_names
from test_words import left_in

from mnist3d.callbacks.progress import NOTEBOOK_COLUMNS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STEPS = 6
BAR = re.compile(rf"\r100%\|█+\| step {STEPS}\b")


def cells_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text_of(path: Path, kind: str) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == kind)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    """The cells of every notebook with their outputs, after a few steps each."""
    for package in ("nbclient", "ipykernel", "matplotlib"):
        need(importlib.util.find_spec(package), f"{package} is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("notebooks")
    given = {"MNIST3D_NOTEBOOK_STEPS": f"{STEPS}", "MNIST3D_NOTEBOOK_IMAGES": "12", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "tests" / "execute_notebooks.py", folder, *NOTEBOOKS]
    done = subprocess.run(command, env={**os.environ, **given}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path.stem: cells_of(folder / path.name) for path in NOTEBOOKS}


def streams(cells: list[dict[str, Any]], name: str) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == name)


def kinds(cells: list[dict[str, Any]]) -> list[str]:
    """What cells show, each by its richest form."""
    shown = [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    order = ("text/html", "image/gif", "image/png", "text/plain")
    return [next(kind for kind in order if kind in data) for data in shown]


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == [
        "known_views",
        "quickstart",
        "your_own_backend_and_objective",
        "your_own_images",
    ]


def test_every_notebook_runs_and_shows_a_thing_that_turns(executed: dict[str, list[dict[str, Any]]]):
    for name, cells in executed.items():
        ran = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in ran), name
        assert "text/html" in kinds(cells), name
        assert "Traceback" not in streams(cells, "stderr"), name


def test_what_each_notebook_shows(executed: dict[str, list[dict[str, Any]]]):
    assert kinds(executed["quickstart"]) == ["text/html", "image/png", "image/png", "image/gif"]
    assert re.search(r"^legible \d\.\d\d, classes \d+\.\d$", streams(executed["quickstart"], "stdout"), re.MULTILINE)
    assert kinds(executed["your_own_images"]) == ["image/png", "text/html", "image/png"]
    assert kinds(executed["known_views"]) == ["text/plain", *["image/png"] * 3, "text/html", "image/png"]
    assert re.search(r"wrong by \d\.\d degrees as measured, \d\.\d refined", streams(executed["known_views"], "stdout"))
    assert re.search(r"'between': '\d+\.\d dB'", streams(executed["known_views"], "stdout"))


def test_the_bar_of_a_run_is_drawn_anew_in_a_cell(executed: dict[str, list[dict[str, Any]]]):
    for name in ("quickstart", "your_own_images", "your_own_backend_and_objective"):
        said = streams(executed[name], "stderr")
        assert BAR.search(said), said
        bars = [line for line in re.split(r"[\r\n]", said) if re.match(r" *\d+%\|", line)]
        assert max(map(len, bars)) <= NOTEBOOK_COLUMNS


def test_notebooks_are_committed_without_outputs():
    for path in NOTEBOOKS:
        code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
        assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == [], path.name


def test_every_notebook_says_how_long_it_takes_and_what_to_expect():
    for path in NOTEBOOKS:
        first, second, *_ = cells_of(path)
        words = "".join(first["source"])
        assert re.search(r"^\*\*Time\*\*: .*\bminutes?\b.*two cores", words, re.MULTILINE), path.name
        assert "**Expect**: " in words, path.name
        assert 'pip install -e ".[export]" jupyterlab' in words, path.name
        assert 'os.environ.get("MNIST3D_NOTEBOOK_STEPS"' in "".join(second["source"]), path.name


@pytest.fixture
def pages(tmp_path: Path) -> list[Page]:
    """What is not code in the notebooks, as pages that lie where the notebooks lie."""
    need(importlib.util.find_spec("markdown"), "mkdocs is not installed: pip install -e '.[docs]'")
    read = []
    for path in NOTEBOOKS:
        copy = tmp_path / f"{path.stem}.md"
        copy.write_text(text_of(path, "markdown"), encoding="utf-8")
        read.append(read_page(copy))
        read[-1].path = path
    return read


def test_links_names_and_commands_of_the_notebooks(pages: list[Page]):
    docs = [read_page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
    assert sum(len(page.links) for page in pages) >= 8
    notebooks = {path.name for path in NOTEBOOKS}
    assert [line for line in wrong_links([*pages, *docs], ROOT / "docs") if line.partition(":")[0] in notebooks] == []
    assert [line for page in pages for line in wrong_names(page, ROOT)] == []
    assert [line for page in pages for line in wrong_commands(page)] == []


def test_no_old_word_is_in_the_notebooks():
    texts = [text_of(path, kind) for path in NOTEBOOKS for kind in ("markdown", "code")]
    assert [word for text in texts for word in left_in(text)] == []
