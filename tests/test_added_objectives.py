"""Objectives of somebody else's on the command line: their options, their mistakes, their trust, their exact resume."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError, RunError
from mnist3d.runs.session import sculpt

ADD = ["--objectives.add", "glass_beads.TotalVariation"]
TINY = ["--trainer.views", "4", "--volume.resolution", "12", "--data.limit", "40", "--trainer.max_steps", "4"]
TINY += ["--scorecard.every", "0", "--viewer.enabled", "false"]
DEFAULTS = {"weight": 0.1, "reach": 0.05, "norm": "absolute"}


@pytest.fixture(autouse=True)
def third_party(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "third_party")


def added(arguments, text=None, tmp_path=None):
    """The one objective of a command line and of a file."""
    if text is not None:
        assert tmp_path is not None
        (tmp_path / "mine.yaml").write_text(text)
        arguments = ["--config", str(tmp_path / "mine.yaml"), *arguments]
    (spec,) = parse_command_line(arguments).config.objectives
    assert spec["class_path"] == "glass_beads.smoothness.TotalVariation"
    return spec["init_args"]


def test_its_options_are_flags_and_its_defaults_its_own():
    assert added(ADD) == DEFAULTS
    assert added([*ADD, "--total_variation.weight", "2"]) == {**DEFAULTS, "weight": 2.0}
    assert added(["--total_variation.norm=squared", *ADD]) == {**DEFAULTS, "norm": "squared"}
    assert added(["--objectives", "[glass_beads.TotalVariation]"]) == DEFAULTS
    assert added([*ADD, *ADD]) == DEFAULTS  # named twice, it is the same one
    assert parse_command_line([]).config.objectives == []


@pytest.mark.parametrize(
    "text",
    [
        "objectives: [glass_beads.TotalVariation]\ntotal_variation: {weight: 2}",
        "objectives:\n  - {class_path: glass_beads.TotalVariation, init_args: {weight: 2}}",
        "objectives:\n  - {class_path: glass_beads.smoothness.TotalVariation, weight: 2}",
        "total_variation: {weight: 2}\nobjectives: [{class_path: glass_beads.TotalVariation}]",
    ],
)
def test_in_a_file_it_stands_in_the_list_or_as_a_section_and_flags_win(text, tmp_path):
    assert added([], text, tmp_path) == {**DEFAULTS, "weight": 2.0}
    more = ["--total_variation.reach", ".1", "--total_variation.weight=3"]
    assert added(more, text, tmp_path) == {**DEFAULTS, "weight": 3.0, "reach": 0.1}
    assert added(["--total_variation", "{reach: 1}"], text, tmp_path)["reach"] == 1.0


def test_a_later_list_replaces_and_its_options_are_merged(tmp_path):
    (tmp_path / "first.yaml").write_text("objectives: [glass_beads.smoothness.Needs]\nneeds: {file: a}")
    (tmp_path / "second.yaml").write_text("objectives: [glass_beads.TotalVariation]")
    files = [f"--config={tmp_path / 'first.yaml'}", f"--config={tmp_path / 'second.yaml'}"]
    with pytest.raises(ConfigError, match=r"^needs\.file: no such key"):
        parse_command_line(files)
    (tmp_path / "first.yaml").write_text("objectives: [glass_beads.TotalVariation]\ntotal_variation: {weight: 3}")
    assert added(files)["weight"] == 3.0


def test_what_is_printed_can_be_used_again(capsys, tmp_path):
    with pytest.raises(SystemExit):
        parse_command_line([*ADD, "--total_variation.weight", "2", "--print_config"])
    assert added([], capsys.readouterr().out, tmp_path) == {**DEFAULTS, "weight": 2.0}


def test_help_shows_its_options_once_it_is_added(capsys):
    for arguments, there in ((ADD, True), ([], False)):
        with pytest.raises(SystemExit) as ended:
            parse_command_line([*arguments, "--help"])
        assert ended.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert ("--total_variation.weight WEIGHT Of the difference, >= 0. (type: float, default: 0.1)" in text) == there
        assert ("--total_variation.norm {absolute,squared}" in text) == there
        assert "--objectives.add" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["glass_beads.TotalVariatio"], "^objectives=.*did you mean glass_beads.TotalVariation"),
        (["glass_bead.TotalVariation"], "^objectives=.*no module named glass_bead"),
        (["broken_beads.X"], r"^objectives=.*importing broken_beads failed \(RuntimeError: the glass is broken\)"),
        (["TotalVariation"], "^objectives=TotalVariation: no such objective class; must be a class path"),
        (["glass_beads.smoothness.Other"], "is no Objective; it must be a subclass of .*Objective with a loss"),
        (["glass_beads.Beads"], "is no Objective"),
        (["glass_beads.smoothness.Lossless"], "is abstract"),
        (["glass_beads.smoothness.Nameless"], "its name is None"),
        (["glass_beads.smoothness.Loud"], "its name is 'Loud!'"),
        (["glass_beads.smoothness.Section"], "its name targets is a key"),
        (["glass_beads.smoothness.Flag"], "its name print_config is a key"),
        (["mnist3d.training.objectives.diversity.Diversity"], "its name diversity is a key"),
        (["glass_beads.TotalVariation", *ADD[:1], "glass_beads.smoothness.Twin"], "total_variation is that of .*Total"),
        (["glass_beads.TotalVariation", "--total_variation.wieght", "2"], r"did you mean total_variation\.weight\?"),
        (["glass_beads.TotalVariation", "--total_variation.weight", "much"], r"\.weight=much: must be a number"),
        (["glass_beads.TotalVariation", "--total_variation.norm", "L1"], r"norm=L1: must be one of absolute, squared"),
        (["glass_beads.TotalVariation", "--total_variation", "3"], "^total_variation=3: must be a mapping"),
        (["glass_beads.smoothness.Needs"], r"^needs\.file: is missing; must be text"),
    ],
)
def test_a_mistake_is_one_line(arguments, words):
    with pytest.raises(ConfigError, match=words) as error:
        parse_command_line([ADD[0], *arguments])
    assert "\n" not in str(error.value)


def test_options_without_the_objective_are_no_keys():
    with pytest.raises(ConfigError, match=r"^total_variation\.weight: no such key"):
        parse_command_line(["--total_variation.weight", "2"])


def test_it_is_trained_and_resumed_to_the_bit_by_who_names_it_again(tmp_path):
    plain, whole, half = (tmp_path / name for name in ("plain", "whole", "half"))
    sculpt(parse_command_line([*TINY, "--run_dir", str(plain)]))
    sculpt(parse_command_line([*TINY, *ADD, "--run_dir", str(whole)]))
    sculpt(parse_command_line([*TINY, *ADD, "--trainer.stop_after", "2", "--run_dir", str(half)]))
    volumes = [(path / "volume.safetensors").read_bytes() for path in (plain, whole, half)]
    assert len(set(volumes)) == 3
    assert yaml.safe_load((half / "config.yaml").read_text())["objectives"] == [
        {"class_path": "glass_beads.smoothness.TotalVariation", "init_args": DEFAULTS}
    ]
    go_on = ["--resume", str(half), "--trainer.stop_after", "null"]
    with pytest.raises(RunError, match=r"to trust it, add --objectives\.add glass_beads\.smoothness\.TotalVariation$"):
        parse_command_line(go_on)
    with pytest.raises(ConfigError, match=r"total_variation\.weight=2\.0: a resumed run keeps its .*weight=0\.1"):
        parse_command_line([*go_on, *ADD, "--total_variation.weight", "2"])
    with pytest.raises(ConfigError, match=r"objectives=\[.*Needs'\]: a resumed run keeps its objectives=\["):
        parse_command_line([*go_on, *ADD, *ADD[:1], "glass_beads.smoothness.Needs", "--needs.file", "x"])
    sculpt(parse_command_line([*go_on, *ADD]))
    assert (half / "volume.safetensors").read_bytes() == volumes[1]
    assert torch.load(half / "resume.pt", weights_only=True).keys()


def test_a_run_alone_never_imports_its_objective(tmp_path):
    (tmp_path / "resume.pt").touch()
    (tmp_path / "config.yaml").write_text("objectives: [{class_path: antigravity.Objective, init_args: {}}]")
    with pytest.raises(RunError, match=r"its objective is a antigravity\.Objective; to trust it"):
        parse_command_line(["--resume", str(tmp_path)])
    with pytest.raises(RunError, match="to trust it"):
        parse_command_line(["--resume", str(tmp_path), *ADD])
    assert "antigravity" not in sys.modules
