"""The stages of `benchmarks/gpu.py` that run programs: what they make of those that go wrong."""

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.score import build_parser

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import _gpu_commands as commands  # pyright: ignore[reportMissingImports]
import _gpu_tests as selection  # pyright: ignore[reportMissingImports]
from _gpu_report import Done, Report, Setup  # pyright: ignore[reportMissingImports]


def small(folder: Path, device: str = "cpu", **asked: Any) -> Setup:
    return Setup(device, True, folder, **asked)


def right(report: Report) -> dict[str, bool]:
    return {each["what"]: each["right"] for each in report.checks}


class Product:
    """In place of the commands: writes what they would, and keeps what it was asked.

    Args:
        loss: of each step.
        codes: exit codes, of one command after the other; then 0.
        taken: what "auto" says that it takes, likewise; then numba.
    """

    def __init__(self, loss: float | None = 1.0, codes: tuple[int | None, ...] = (), taken: tuple[str, ...] = ()):
        self.loss, self.codes, self.taken, self.asked = loss, [*codes], [*taken], []
        self.steps = 0

    def __call__(self, words, seconds: float) -> Done:
        self.asked.append([*words])
        name, words = words[2], [*words[3:]]
        code = self.codes.pop(0) if self.codes else 0
        if name == "train" and code == 0:
            run = Path(words[words.index("--run_dir" if "--run_dir" in words else "--resume") + 1])
            run.mkdir(exist_ok=True)
            with open(run / "stats.jsonl", "a") as stats:
                for _ in range(4):
                    self.steps += 20
                    line = {"step": self.steps, "volume_loss": self.loss, "seconds": self.steps / 5}
                    stats.write(json.dumps(line) + "\n")
            for name in ("resume.pt", "resume.previous.pt"):
                (run / name).touch()
        if name == "score" and code == 0:
            scores = dict.fromkeys(commands.KEPT_SCORES, 0.5)
            (Path(words[0]) / "scorecard.json").write_text(json.dumps({"poses": {"sphere": {**scores, "count": 9}}}))
        taken = self.taken.pop(0) if self.taken else "numba on the CPU"
        return Done(code, f"render_grid: impl='auto' takes {taken}\nthe last line\n", 2.0)

    def trained(self) -> list[list[str]]:
        """The arguments of each run."""
        return [words[3:] for words in self.asked if words[2] == "train"]


def short_runs(tmp_path: Path, product: Product) -> Report:
    report = Report()
    commands._run_and_resume("default", report, Setup("cpu", False, tmp_path, command=product))
    return report


def test_runs_and_resumes_that_are_right(tmp_path: Path):
    product = Product()
    report = short_runs(tmp_path, product)
    assert len(report.checks) == 5
    assert all(right(report).values())
    assert report.figures["default, steps/s before and after the resume"] == [5.0, 5.0]
    assert report.figures["default, auto takes"] == {"render_grid: impl='auto'": "numba"}
    assert not [*tmp_path.rglob("*.pt")], "what is left is to be taken home"


@pytest.mark.parametrize(
    ("product", "wrong", "said"),
    [
        (Product(loss=None), "default, 80 steps, finite losses", "not finite: volume_loss"),
        (Product(loss=math.inf), "default, 80 steps after a resume, finite losses", "not finite: volume_loss"),
        (Product(codes=(2,)), "default, 80 steps", "exit code 2 after 2 s: the last line"),
        (Product(codes=(0, None)), "default, 80 steps after a resume", "stopped, as the time of the stage was over"),
        (
            Product(taken=("triton on cuda: it agrees", "the reference on cuda")),
            "default, auto takes the same after the resume",
            "{\"render_grid: impl='auto'\": 'triton'}, {\"render_grid: impl='auto'\": 'the reference'}",
        ),
    ],
)
def test_runs_that_are_wrong(tmp_path: Path, product: Product, wrong: str, said: str):
    report = short_runs(tmp_path, product)
    assert not right(report)[wrong]
    assert next(each["said"] for each in report.checks if each["what"] == wrong).startswith(said)


def test_a_session_that_ended_early_is_found(tmp_path: Path):
    (tmp_path / "stats.jsonl").write_text('{"step": 60, "volume_loss": 1.0, "seconds": 1.0}\n')
    report = Report()
    assert commands._rate(report, "it", tmp_path, 0, 80) is None
    assert report.checks[0]["said"] == "stats.jsonl has no step 80"


@pytest.mark.parametrize("tiny", [True, False])
def test_every_command_is_one_that_the_product_takes(tmp_path: Path, tiny: bool):
    product, setup = Product(), None
    setup = Setup("cpu", tiny, tmp_path, command=product)
    commands.short_runs(Report(), setup)
    commands.sculpture(Report(), setup)
    assert [words[2] for words in product.asked] == ["doctor", *["train"] * 5, "score"]
    for words in product.trained():
        if "--resume" in words:  # of a run that is not there: only its flags can be read
            at = words.index("--resume")
            words = [*words[:at], *words[at + 2 :]]
        config = parse_command_line(words).config
        assert config.device == "cpu"
        assert not config.viewer.enabled
    build_parser().parse_args(product.asked[-1][3:])


def test_the_sculpture(tmp_path: Path):
    report, product = Report(), Product()
    commands.sculpture(report, Setup("cpu", False, tmp_path, command=product))
    assert right(report) == {"sculpture": True, "scorecard": True}
    assert report.figures["sphere"] == dict.fromkeys(commands.KEPT_SCORES, 0.5)
    assert report.figures["steps"] == 80
    assert "--trainer.max_minutes 2 " in " ".join(product.trained()[0])
    assert not [*tmp_path.rglob("*.pt")]
    failing = Report()
    commands.sculpture(failing, Setup("cpu", False, tmp_path, command=Product(codes=(0, 1))))
    assert right(failing) == {"sculpture": True, "scorecard": False}


# ---- the tests that need a GPU


def test_each_test_that_skips_without_a_gpu_is_found_by_its_reason():
    files = commands.files_with_gpu_tests()
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        marks = re.findall(r"skipif\(\s*not torch\.cuda\.is_available\(\),\s*reason=\"([^\"]*)\"", text)
        others = text.count("not torch.cuda.is_available()") - len(marks)
        assert others == 0 or path.name == Path(__file__).name, path
        assert {*marks} <= {*selection.REASONS}, path


def test_only_these_are_selected():
    def item(*marks: Any) -> SimpleNamespace:
        made = [mark.mark for mark in marks]
        return SimpleNamespace(iter_markers=lambda name: [each for each in made if each.name == name])

    needs = item(pytest.mark.skipif(True, reason="needs a GPU"), pytest.mark.parametrize("a", [1]))
    other = item(pytest.mark.skipif(True, reason="no triton: torch's CUDA builds bring it"))
    items, out = [needs, other, item()], []
    hook = SimpleNamespace(pytest_deselected=lambda items: out.extend(items))
    selection.pytest_collection_modifyitems(SimpleNamespace(hook=hook), items)
    assert items == [needs]
    assert len(out) == 2


XML = """<testsuites><testsuite><testcase classname="tests.test_a" name="one"/>
<testcase classname="tests.test_a" name="two"><{tag} message="no"/></testcase></testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("device", "tag", "code", "checks"),
    [
        ("cpu", "skipped", 0, {"tests, none failed": True}),
        ("cuda", "skipped", 0, {"tests, none failed": True, "tests, all ran": False}),
        ("cuda", "failure", 1, {"tests, none failed": False, "tests, all ran": True}),
        ("cuda", "properties", 0, {"tests, none failed": True, "tests, all ran": True}),
        ("cuda", "properties", 3, {"tests, none failed": False, "tests, all ran": True}),
    ],
)
def test_how_the_tests_ended(tmp_path: Path, device, tag, code, checks):
    def pytest_run(words, seconds: float) -> Done:
        (written,) = [word for word in words if word.startswith("--junitxml=")]
        Path(written.partition("=")[2]).write_text(XML.format(tag=tag))
        return Done(code, "", 1.0)

    report = Report()
    commands._run_tests(report, Setup(device, True, tmp_path, command=pytest_run))
    assert right(report) == checks
    assert report.needs_a_gpu == (["tests.test_a.two"] if device == "cpu" else [])


def test_tests_that_did_not_even_begin_are_found(tmp_path: Path):
    report = Report()
    commands._run_tests(report, small(tmp_path, command=lambda *_: Done(1, "No module named pytest\n", 1.0)))
    assert report.checks == [{"what": "tests", "right": False, "said": "exit code 1 after 1 s: No module named pytest"}]


@pytest.mark.parametrize(
    ("code", "output", "checks"),
    [
        (0, "rendered\n========= ERROR SUMMARY: 0 errors\n", [True]),
        (99, "rendered\n========= ERROR SUMMARY: 0 errors\n", [False]),
        (0, "rendered\n========= ERROR SUMMARY: 3 errors\n", [False]),
        (0, "========= ERROR SUMMARY: 0 errors\n", [False]),
        (None, "", []),
    ],
)
def test_memory_accesses(tmp_path: Path, monkeypatch, code, output, checks):
    asked = {}

    def sanitizer(words, seconds: float, **environment: str) -> Done:
        asked.update(environment, program=words[0])
        compile(Path(words[-1]).read_text(), "memory_check.py", "exec")
        return Done(code, output, 1.0)

    monkeypatch.setattr(commands.shutil, "which", lambda name, path=None: f"/opt/{name}" if path else None)
    report = Report()
    commands._check_memory(report, small(tmp_path, "cuda", command=sanitizer))
    assert [*right(report).values()] == checks
    assert len(report.remarks) == (code is None)
    assert asked == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "program": "/opt/compute-sanitizer"}


def test_without_compute_sanitizer_that_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(commands.shutil, "which", lambda name, path=None: None)
    report = Report()
    commands._check_memory(report, small(tmp_path, "cuda"))
    assert report.remarks == ["compute-sanitizer is not on PATH: memory accesses were not checked"]
