"""Backends from elsewhere, end to end in processes of their own; and docs/your_own_volume.md, followed literally."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError
from mnist3d.runs.building import import_volume_class
from mnist3d.runs.loading import load_run

ROOT = Path(__file__).parent.parent
THIRD_PARTY = Path(__file__).parent / "third_party"
TINY = ["--trainer.views", "4", "--data.limit", "40", "--trainer.max_steps", "3", "--scorecard.every", "0"]
TINY += ["--renderer.image_size", "12", "--renderer.samples_per_ray", "8"]


# One process for a chain of programs: starting torch costs more than what each of them does here.
DRIVER = """
import json, runpy, sys
for program, *arguments in json.load(sys.stdin):
    sys.argv = [program, *arguments]
    code = 0
    try:
        if program == "-c":
            exec(compile(arguments[0], "block", "exec"), {"__name__": "block"})
        elif program == "mnist3d":
            from mnist3d.cli.program import mnist3d_command
            mnist3d_command()
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush()
    for stream in (sys.stdout, sys.stderr):
        print("<exit>", code, file=stream, flush=True)
"""


def run_programs(commands, cwd, path=THIRD_PARTY):
    """(exit code, stdout, stderr) of each, run in turn in a process that finds mnist3d and the packages in `path`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    commands = [[str(word) for word in command] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, complained = (re.split(r"<exit> (\d+)\n", text) for text in (done.stdout, done.stderr))
    outcomes = [
        (int(code), out, error) for out, code, error in zip(said[::2], said[1::2], complained[::2], strict=False)
    ]
    assert len(outcomes) == len(commands)
    return outcomes


def test_a_package_that_mnist3d_does_not_know_is_trained_reloaded_and_rendered(tmp_path, monkeypatch):
    volume = ["--volume", "glass_beads.Beads"]
    arguments = [*volume, "--volume.count", "7", "--volume.colours", "[0.2,0.8]", "--run_dir", "run"]
    orbit = ["--frames", "2", "--size", "16", "--output", "orbit.gif"]
    trained, refused, viewed, turned, drawn, resumed = run_programs(
        [
            [ROOT / "train.py", *TINY, *arguments],
            [ROOT / "inference.py", "run", "--snapshot", "refused.png"],
            [ROOT / "inference.py", "run", "--volume", "glass_beads.beads.Beads", "--snapshot", "views.png"],
            [ROOT / "tools" / "render_orbit.py", "run", *volume, *orbit],
            [ROOT / "tools" / "plot_run.py", "run", *volume, "--output", "run.png"],
            [ROOT / "train.py", "--resume", "run", *volume, "--trainer.max_steps", "5"],
        ],
        tmp_path,
    )
    assert "Beads with 35 weights" in trained[2]
    # typed as printed, it opens: the third command
    look = f"{sys.executable} {ROOT / 'inference.py'} run --volume glass_beads.beads.Beads"
    assert f"Look at it: {look}\n" in trained[1]
    assert [code for code, _, _ in (trained, refused, viewed, turned, drawn, resumed)] == [0, 2, 0, 0, 0, 0]
    assert refused[2].count("\n") == 1
    assert "--volume glass_beads.beads.Beads" in refused[2]
    assert (tmp_path / "views.png").is_file()
    assert not (tmp_path / "refused.png").exists()
    assert (tmp_path / "orbit.gif").is_file()
    assert (tmp_path / "run.png").is_file()
    assert "going on at step 3" in resumed[2]
    monkeypatch.syspath_prepend(THIRD_PARTY)
    beads = import_volume_class("glass_beads.Beads")
    run = load_run(tmp_path / "run", trusted=[beads])
    assert run.volume.init_args == {"count": 7, "radius": 0.2, "colours": [0.2, 0.8]}
    assert run.renderer(run.volume, torch.eye(3)).std() > 0.01


def test_help_shows_the_chosen_volumes_options(monkeypatch, capsys):
    monkeypatch.syspath_prepend(THIRD_PARTY)
    with pytest.raises(SystemExit):
        parse_command_line(["--volume", "glass_beads.Beads", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Number of balls, 1 to 1000." in text
    assert "20" in text.partition("Number of balls, 1 to 1000.")[2][:40]  # its default
    assert "Voxels along each edge" not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("glass_beads.Bead", "glass_beads has no Bead, did you mean glass_beads.Beads"),
        ("glass_bead.Beads", "no module named glass_bead; is it installed"),
        ("glass_beads.beds.Beads", "no module named glass_beads.beds"),
        ("glass_beads.Bowl", "is no Volume"),
        ("mnist3d.Volume", "is abstract"),
        ("broken_beads.Beads", r"importing broken_beads failed \(RuntimeError: the glass is broken\)"),
        ("unbuilt_beads.Beads", "importing unbuilt_beads failed .*glass_furnace"),
        ("Beads", "must be one of our own .*VoxelGrid"),
        ("glass-beads.Beads", "no such volume class"),
        (".Beads", "no such volume class"),
        ("3", "no such volume class"),
        ("", "no such volume class"),
    ],
)
@pytest.mark.parametrize("how", ["flag", "file"])
def test_a_class_path_that_will_not_do_says_why_in_one_line(name, words, how, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(THIRD_PARTY)
    arguments = ["--volume", name]
    if how == "file":
        (tmp_path / "mine.yaml").write_text(f"volume:\n  class_path: '{name}'\n")
        arguments = ["--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(ConfigError, match=words) as error:
        parse_command_line(arguments)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"volume={name}")


def test_a_mistake_in_its_options_names_the_nearest(monkeypatch):
    monkeypatch.syspath_prepend(THIRD_PARTY)
    with pytest.raises(ConfigError, match=r"volume\.cout: no such key, did you mean volume\.count"):
        parse_command_line(["--volume", "glass_beads.Beads", "--volume.cout", "3"])


def commands_of(page, folder, shorter):
    """The page's files, written into a folder, and its commands in their order; training made shorter."""
    text = (ROOT / "docs" / page).read_text()
    assert sum(bool(line) for line in text.splitlines()) < 80  # what a reader has to go through
    commands = []
    for language, name, content in re.findall(r"```(\w+)(?: file=(\S+))?\n(.*?)```", text, re.DOTALL):
        if name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        elif language == "python":
            commands.append(["-c", content])
        for line in content.splitlines() if language == "bash" else []:
            program, command, *arguments = shlex.split(line)
            new = command == "train" and not {"--help", "--resume"} & {*arguments}
            commands.append([program, command, *arguments, *(shorter if new else [])])
    return commands


def test_your_own_objective_followed_literally(tmp_path):
    shorter = [*TINY, "--volume.resolution", "8", "--trainer.stop_after", "2", "--viewer.enabled", "false"]
    commands = commands_of("your_own_objective.md", tmp_path, shorter)
    assert len(commands) == 3
    commands += [["-c", "import test_my_package; test_my_package.test_total_variation()"]]
    outcomes = run_programs(commands, tmp_path, tmp_path)
    assert [code for code, _, _ in outcomes] == [0] * len(commands), outcomes
    helped, trained, resumed, _ = outcomes
    assert "--total_variation.weight" in helped[1]
    assert "go on with: mnist3d train --resume runs/smooth --objectives.add my_package.TotalVariation" in trained[2]
    assert "going on at step 2" in resumed[2]
    records = [json.loads(line) for line in (tmp_path / "runs" / "smooth" / "stats.jsonl").read_text().splitlines()]
    assert records[-1]["total_variation_loss"] > 0.0


def test_your_own_volume_followed_literally(tmp_path):
    commands = commands_of("your_own_volume.md", tmp_path, TINY)
    assert len(commands) > 3
    commands += [
        ["-c", "import test_glow; test_glow.test_glow()"],
        ["-c", "from mnist3d.testing import check_volume; import glow.baked; check_volume(glow.baked.BakedGlow())"],
        [ROOT / "inference.py", "glow.safetensors", "--snapshot", "views.png"],
    ]
    outcomes = run_programs(commands, tmp_path, tmp_path)
    assert [code for code, _, _ in outcomes] == [0] * len(commands), outcomes
    assert "Number of balls" in outcomes[0][1]
    assert (tmp_path / "runs" / "glow" / "orbit.gif").is_file()
    assert (tmp_path / "views.png").is_file()
