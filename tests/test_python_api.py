"""docs/python_api.md is one script: run from top to bottom, and every output that stands in it is what comes out."""

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mnist3d

PAGE = Path(__file__).parent.parent / "docs" / "python_api.md"


def blocks(text: str) -> list[str]:
    """The Python of a page, each block at its own lines so that an error names the page's."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text[: block.start(1)].count("\n") + block.group(1) for block in found]


def outputs(block: str, namespace: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Run a block; of each statement that has comment lines right below it: its line, these, and what it gives."""
    lines = block.split("\n")
    for statement in ast.parse(block).body:
        said, value = io.StringIO(), None
        with contextlib.redirect_stdout(said):
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), PAGE.name, "eval"), namespace)
            else:
                exec(compile(ast.Module([statement], []), PAGE.name, "exec"), namespace)
        expected = []
        for line in lines[statement.end_lineno or 0 :]:
            if not line.startswith("# "):
                break
            expected.append(line.removeprefix("# "))
        if expected:
            given = said.getvalue() + ("" if value is None else f"{value!r}\n")
            yield statement.lineno, "\n".join(expected), given.rstrip("\n")


def wrong_outputs(text: str) -> list[str]:
    """Where the page says something else than its code; "..." stands for anything in a line."""
    namespace: dict[str, Any] = {"__name__": "page"}
    return [
        f"line {line}: {given}\nbut the page says: {expected}"
        for block in blocks(text)
        for line, expected, given in outputs(block, namespace)
        if not re.fullmatch(re.escape(expected).replace(r"\.\.\.", ".*"), given)
    ]


def test_the_page_runs_from_top_to_bottom_and_says_what_comes_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    assert wrong_outputs(text) == []
    made = {path.name for path in tmp_path.iterdir()}
    assert {"shell.safetensors", "shell.npz", "shell.html", "shell.gif", "shell.stl", "runs"} <= made
    code = "\n".join(blocks(text))
    assert [name for name in mnist3d.__all__ if name not in code] == []


def test_a_page_that_says_something_else_is_caught():
    text = "\n```python\na = 2\na + 1\n# 4\nprint(a)\nprint(a)\n# 2\n# a comment\na\n# ...\n```\n"
    assert [found.partition(":")[0] for found in wrong_outputs(text)] == ["line 4", "line 7"]
    assert wrong_outputs("```python\nfor k in 1, 2:\n    print(k)\n# 1\n# 2\n[1, 2]\n# [1, ...]\n```\n") == []


def test_the_star_brings_the_names_of_all_and_no_module():
    namespace: dict[str, Any] = {"renderer": "mine"}
    exec("from mnist3d import *", namespace)
    assert namespace["renderer"] == "mine"
    assert namespace.keys() - {"__builtins__", "renderer"} == {*mnist3d.__all__}
    assert not [name for name, value in namespace.items() if isinstance(value, type(mnist3d))]
