"""`benchmarks/which_field.py`: the page of the docs changes only where every run is complete."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "which_field.py"


@pytest.mark.parametrize(("code", "figure"), [(1, True), (0, False), (130, False), (0, True)])
def test_the_page_changes_only_where_all_runs_are_complete(tmp_path, monkeypatch, code, figure):
    docs, results, output = tmp_path / "docs", tmp_path / "benchmarks" / "results", tmp_path / "out"
    for folder in (docs, results, output):
        folder.mkdir(parents=True)
    before = "words\n<!-- comparison -->\nold\n<!-- end -->\nmore\n"
    (docs / "which_field.md").write_text(before)

    def compared(words: list[Any], check: bool) -> Any:
        for name in ("comparison.md", "comparison.csv", *(["comparison.png"] if figure else [])):
            (output / name).write_text(f"new {name}")
        return SimpleNamespace(returncode=code)

    main = runpy.run_path(str(PROGRAM))["main"]
    main.__globals__.update(ROOT=tmp_path, PAGE=docs / "which_field.md")
    monkeypatch.setattr(subprocess, "run", compared)
    monkeypatch.setattr(sys, "argv", ["which_field.py", "--output", str(output)])
    complete = code == 0 and figure
    assert main() == (code or (0 if complete else 1))
    page = (docs / "which_field.md").read_text()
    assert ("new comparison.md" in page, page == before) == (complete, not complete)
    assert (docs / "which_field.png").is_file() == complete
