"""`mnist3d compare`: which runs a comparison has, its table and its figure of made-up records, and what it writes."""

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mnist3d.callbacks import scores as scores_module
from mnist3d.callbacks.scores import ScorecardOptions, Scores
from mnist3d.cli import compare
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.planned_configs import planned_configs
from mnist3d.cli.presets import preset_names
from mnist3d.cli.program import run_command_line
from mnist3d.comparisons import figure
from mnist3d.comparisons.figure import figure_of, points_of
from mnist3d.comparisons.measuring import Measured, Measuring, take_records
from mnist3d.comparisons.options import CompareOptions, comma_separated, volume_names
from mnist3d.comparisons.table import csv_of, markdown_of, rows_of, text_of
from mnist3d.comparisons.variants import TUNED, Variant, swept, variants_of
from mnist3d.errors import ConfigError, ExportError
from mnist3d.evaluation import Classifiers, ImageScore, Reading, turns
from mnist3d.evaluation.turns import TOP, Turn, turns_strip
from mnist3d.export import learning_curves
from mnist3d.export.learning_curves import median_and_spread
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import spelt_out
from mnist3d.runs.config import Config
from mnist3d.storage.memory import peak_memory
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.sweeps.plan import Planned, planned
from mnist3d.training.objectives.base import Objective
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import OWN_VOLUMES, VoxelGrid

THIRD_PARTY = Path(__file__).parent / "third_party"
PRESETS = ["digits", "hash_grid", "tensorf"]


# ---- what is compared -------------------------------------------------------------------------------------------
def variants(presets: list[str] = PRESETS, **options: Any) -> list[Variant]:
    return variants_of(CompareOptions(**options), presets)


def test_a_volume_of_ours_has_the_preset_that_was_tuned_for_it():
    found = variants(volumes=["VoxelGrid", "HashGrid", "mnist3d.VMGrid"])
    assert [(each.label, each.preset) for each in found] == [
        ("VoxelGrid", "digits"), ("HashGrid", "hash_grid"), ("VMGrid", "tensorf"),
    ]  # fmt: skip
    assert found[1].settings == {"config": "hash_grid", "volume": "HashGrid"}
    assert variants(["digits"], volumes=["HashGrid"])[0].settings == {"volume": "HashGrid"}


def test_every_volume_of_ours_has_a_preset_of_its_class():
    assert {*TUNED} == {*OWN_VOLUMES}
    for name, preset in TUNED.items():
        assert preset in preset_names()
        assert parse_command_line([f"--config={preset}"]).config.volume["class_path"].endswith(f".{name}")


def test_a_config_takes_the_place_of_all_presets_and_only_the_volume_changes():
    found = variants(volumes=["VoxelGrid", "HashGrid", "glow.Glow"], config="my.yaml")
    assert [each.settings for each in found] == [
        {"config": "my.yaml", "volume": "VoxelGrid"},
        {"config": "my.yaml", "volume": "HashGrid"},
        {"config": "my.yaml", "volume": "glow.Glow"},
    ]
    assert {each.preset for each in found} == {"my.yaml"}


def test_classes_of_others_presets_and_files_are_variants_too():
    found = variants(volumes=["glow.Glow", "other.Glow", "tensorf", "x/mine.yaml"])
    assert [each.label for each in found] == ["glow.Glow", "other.Glow", "tensorf", "mine"]
    assert [each.preset for each in found] == ["defaults", "defaults", "tensorf", "mine.yaml"]
    assert found[0].settings == {"volume": "glow.Glow"}
    assert variants(volumes=["tensorf"], config="my.yaml")[0].settings == {"config": ["my.yaml", "tensorf"]}


def test_values_are_compared_beside_volumes_and_without_any():
    vary = {"adversarial.pairing": ["relativistic", "hinge"]}
    found = variants(volumes=["VoxelGrid", "HashGrid"], vary=vary)
    assert [each.label for each in found] == [
        f"{volume}, pairing {value}" for volume in ("VoxelGrid", "HashGrid") for value in vary["adversarial.pairing"]
    ]
    alone = variants(vary={**vary, "diversity.weight": ["0", "1"], "nearest_image.weight": ["0"]})
    assert alone[1].label == "pairing relativistic, diversity.weight 1, nearest_image.weight 0"
    assert alone[0].settings["config"] == "digits"
    assert len(alone) == 4


def test_the_runs_are_those_of_a_sweep_as_long_as_was_said_and_named_by_their_variant():
    options = CompareOptions(volumes=["VoxelGrid", "HashGrid"], minutes=3.0, seeds=[4, 2], set={"trainer.views": "8"})
    found = variants_of(options, PRESETS)
    runs = planned(swept(options, found), [each.label for each in found])
    assert [run.name for run in runs] == [
        "001-VoxelGrid-seed_4", "002-HashGrid-seed_4", "003-VoxelGrid-seed_2", "004-HashGrid-seed_2",
    ]  # fmt: skip
    config = parse_command_line(runs[1].words).config
    assert (config.trainer.max_steps, config.trainer.max_minutes, config.trainer.views) == (None, 3.0, 8)
    assert (config.seed, config.scorecard.every) == (4, "10s")
    assert config.volume["class_path"] == "mnist3d.volumes.HashGrid"
    assert config.volume["init_args"]["bake_resolution"] == 48  # of the preset
    steps = swept(CompareOptions(volumes=["VoxelGrid"], steps=400), found[:1])
    assert (steps.base["trainer.max_steps"], steps.base["scorecard.every"]) == (400, 20)


def test_equal_steps_are_equal_where_a_preset_has_a_limit_in_minutes():
    options = CompareOptions(volumes=["VoxelGrid"], steps=5000, config="letters", seeds=[0])
    found = variants_of(options, PRESETS)
    config = parse_command_line(planned(swept(options, found))[0].words).config
    assert (config.trainer.max_steps, config.trainer.max_minutes) == (5000, None)


def test_what_is_set_holds_for_each_class_though_the_file_has_another():
    options = CompareOptions(
        volumes=["VoxelGrid", "SparseGrid", "VMGrid"], config="letters", set={"volume.resolution": "16"}, seeds=[0]
    )
    runs = planned(swept(options, variants_of(options, PRESETS)))
    configs = [parse_command_line(run.words).config for run in runs]
    assert [config.volume["class_path"].rpartition(".")[2] for config in configs] == options.volumes
    assert [config.volume["init_args"]["resolution"] for config in configs] == [16] * 3


def test_what_is_typed_again_is_the_same_comparison():
    options = CompareOptions(
        volumes=["VoxelGrid"], vary={"a.b": ["[1, 2]", "x"]}, steps=7, config="my.yaml", set={"c": "d e"}
    )
    typed = compare.build_parser().parse_args(options.words())
    assert compare.place_and_options(typed)[1] == options
    assert comma_separated("a, [b,c],'d,e',") == ["a", "[b,c]", "'d,e'"]
    third = CompareOptions(volumes=["VoxelGrid"], minutes=1 / 3, cores=2, gpus=0.1 + 0.2, at_once=4)
    assert compare.place_and_options(compare.build_parser().parse_args(third.words()))[1] == third
    assert third.words()[3] == "0.3333333333333333"
    assert CompareOptions(volumes=["VoxelGrid"], minutes=3.0).words()[3] == "3"


def test_a_file_with_a_comma_in_its_name_and_one_in_capitals_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mein Fäld, 2.yaml", "X.YAML"):
        (tmp_path / name).write_text("trainer: {views: 6}")
    given = "VoxelGrid, mein Fäld, 2.yaml,X.YAML,,no, such.yaml"
    assert volume_names(given) == ["VoxelGrid", "mein Fäld, 2.yaml", "X.YAML", "no", "such.yaml"]
    options = CompareOptions(volumes=volume_names(given)[:3], seeds=[0])
    assert compare.place_and_options(compare.build_parser().parse_args(options.words()))[1].volumes == options.volumes
    found = variants_of(options, PRESETS)
    assert [each.label for each in found] == ["VoxelGrid", "mein Fäld, 2", "X"]
    runs = planned(swept(options, found))
    assert [parse_command_line(run.words).config.trainer.views for run in runs[1:]] == [6, 6]


def test_a_run_that_goes_on_is_told_what_it_has_written_itself(tmp_path):
    """A grid puts its own size and growth in the place of null, and a run keeps what it was begun with."""
    (config,) = planned_configs(
        tmp_path, [Planned("a", {}, [])], resumed=False, trust=False, kind="sweep", source="it"
    ).values()
    assert config == spelt_out(parse_command_line([]).config, VoxelGrid())
    assert config.volume["init_args"]["grow_at"] is not None


def outcome(arguments: list[str], capsys: Any) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_command_line(compare.main, arguments, "mnist3d")
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "volumes and vary: one of the two must be given"),
        (["--volumes", ","], "volumes=,: is empty; must be one value or more"),
        (["--volumes", "HashGird"], "volumes=HashGird: no such volume or preset, did you mean HashGrid?"),
        (["--volumes", "zzz"], "must be one of"),
        (["--volumes", "torch.Tensor"], "volumes=torch.Tensor: is no Volume; it must be a subclass of"),
        (["--volumes", "torch.Tensr"], "volumes=torch.Tensr: no such volume class"),
        (["--volumes", "VoxelGrid,VoxelGrid"], "volumes: VoxelGrid is given 2 times; leave it once"),
        (["--volumes", "VoxelGrid,digits"], "VoxelGrid and digits: are the same configuration; leave one out"),
        (["--volumes", "VoxelGrid", "--minutes", "1", "--steps", "9"], "minutes and steps: runs are as long as one"),
        (["--volumes", "VoxelGrid", "--minutes", "0"], "minutes=0: must be finite and > 0"),
        (["--volumes", "VoxelGrid", "--steps", "x"], "steps=x: must be a whole number"),
        (["--volumes", "VoxelGrid", "--seeds", "0,x"], "seeds[1]=x: must be a whole number"),
        (["--volumes", "VoxelGrid", "--seeds", "1,1"], "seeds=1,1: must be different whole numbers"),
        (["--volumes", "VoxelGrid", "--seeds", "-1"], "seeds=-1: must be different whole numbers"),
        (["--volumes", "VoxelGrid", "--mintes", "3"], "--mintes: no such flag, did you mean --minutes?"),
        (["--volumes", "VoxelGrid", "--config", "countr"], "config=countr: no such preset or file, did you mean"),
        (["--vary", "adversarial.pairing"], "vary=adversarial.pairing: must be KEY=VALUE, such as"),
        (["--vary", "adversarial.pairing="], "vary adversarial.pairing=: is empty"),
        (["--vary", "adversarial.pairing=hinj"], "pairing=hinj: must be one of relativistic"),
        (["--vary", "losses.adversarial=hinge"], "losses.adversarial: is adversarial.pairing since version 0.2"),
        (["--vary", "seed=1,2"], "vary seed: the comparison sets it, by seeds; leave it out"),
        (["--vary", "trainer.max_steps=1,2"], "vary trainer.max_steps: the comparison sets it, by steps"),
        (["--vary", "seed=1", "--vary", "seed=2"], "vary seed: is given twice"),
        (["--vary", "trainer.views=4", "--set", "trainer.views=4"], "vary and set: both have trainer.views"),
        (["--set", "volume=HashGrid", "--vary", "a=1"], "set volume: the comparison sets it, by volumes"),
        (["--volumes", "VoxelGrid", "--cores", "100000"], "cores=100000: this machine has"),
        (["--volumes", "VoxelGrid", "--output", "file"], "output=file: holds something else"),
        (["--volumes", "VoxelGrid", "--trust"], "trust: is for a comparison that is there already"),
        (["--resume", "x"], "resume=x: no comparison lies there, comparison.yaml is missing"),
        (["--resume", "x", "--steps", "3"], "steps and resume: a comparison goes on as it was begun; leave --steps"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare.Measuring, "prepare", lambda self, config: None)
    (tmp_path / "file").touch()
    code, _, err = outcome(arguments, capsys)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- the table and the figure, of made-up records ---------------------------------------------------------------
def measured(seed: int, legible: float, half: float = math.inf, **more: Any) -> Measured:
    curve = [
        {"seconds": t, "step": t, "legible": 0.5 if t >= half else 0.1, "effective_classes": 5.0} for t in (9.0, 19.0)
    ]
    scores = {"legible": legible, "clean": legible / 2, "effective_classes": 9.0, "frechet_distance": 40.0}
    sizes = {"weights": 1000, "bytes": 2048, "peak_memory": 2**29, "steps": 90, "seconds": 45.0}
    given = {"scores": scores, "curve": curve, "volume": "a.B", **sizes, **more}
    return Measured(f"run-{seed}", seed, **given)


TWO = [Variant("A", "hash_grid", {}), Variant("B|", "defaults", {})]
RUNS = [measured(0, 0.5, 9.0), measured(0, 0.2), measured(1, 0.7, 19.0), measured(1, 0.4, state="failed", error="x")]


def test_a_row_is_the_median_of_its_seeds_and_how_far_they_are_apart():
    first, second = rows_of(TWO, RUNS)
    assert [run.seed for run in first.runs] == [0, 1]
    legible = first.figures["legible"]
    assert (legible.median, legible.lowest, legible.highest) == (pytest.approx(0.6), 0.5, 0.7)
    assert first.figures["steps_per_second"].median == 2.0
    assert (first.figures["seconds_to_half"].lowest, first.figures["seconds_to_half"].highest) == (9.0, 19.0)
    assert second.figures["seconds_to_half"].median == math.inf
    assert second.figures["legible"].highest == 0.2  # the failed run does not count
    assert first.middle is first.runs[0]  # the lower one of two


def test_the_table_says_it_on_a_terminal_on_a_page_and_for_programs():
    rows = rows_of(TWO, RUNS)
    title, one, spread, two, *_ = text_of(rows)
    assert title.split()[:4] == ["variant", "legible", "clean", "classes"]
    assert one.split() == ["A", "0.60", "0.30", "9.0", "40.0", "1,000", "2", "KiB", "2", "512", "MiB", "14", "s"]
    assert spread.split() == ["0.50-0.70", "0.25-0.35", "9-19", "s"]
    assert two.split()[-1] == "never"
    head, line, first, second = markdown_of(rows)
    assert head.startswith("|  | preset | legible | clean | classes | Frechet distance | weights | on disk | steps/s |")
    assert {text.count("|") for text in (head, line, first)} == {13}
    assert first.startswith("| A | `hash_grid` | 0.60 (0.50 to 0.70) | 0.30 (0.25 to 0.35) | 9.0 | 40.0 | 1,000 |")
    assert first.endswith("| 14 s (9 to 19 s) | 2 |")
    assert second.startswith("| B\\| | defaults | 0.20 |")
    assert second.endswith("| never | 1 of 2 |")
    table = list(csv.DictReader(io.StringIO(csv_of(rows))))
    assert [row["seed"] for row in table] == ["median", "lowest", "highest", "0", "1"] * 2
    assert [row["legible"] for row in table] == ["0.6", "0.5", "0.7", "0.5", "0.7", "0.2", "0.2", "0.2", "0.2", "0.4"]
    assert (table[4]["seconds_to_half"], table[8]["seconds_to_half"]) == ("19", "inf")
    assert (table[-1]["state"], table[-1]["error"], table[5]["state"]) == ("failed", "x", "1 of 2 done")


def test_of_images_without_classes_the_table_has_no_empty_columns():
    unread = measured(0, 0.0, scores={"legible": None, "clean": None, "frechet_distance": 3.0}, curve=[])
    title, line = text_of(rows_of(TWO[:1], [unread]))
    assert title.split()[:3] == ["variant", "Frechet", "weights"]
    assert "-" not in line
    failed = Measured("run", 0, "failed", "gone")
    assert text_of(rows_of(TWO[:1], [failed]))[1].split() == ["A", *"-" * 9]


def test_a_run_says_its_pace_its_memory_and_its_learning_curve():
    found = Measured("run", 0)
    lines = [
        {"step": 20, "progress": 0.1, "seconds": 4.0, "peak_memory": 900},
        {"step": 20, "legible": 0.25, "clean": 0.1, "effective_classes": 7.5, "seconds": 4.0, "histogram": {}},
        {"step": 40, "seconds": 8.0, "peak_memory": 700},
        {"step": 40, "legible": "damaged", "effective_classes": 7.5, "seconds": 8.0},
        {"step": 41, "rewound": True},
    ]
    take_records(found, lines)
    assert (found.steps, found.seconds, found.steps_per_second, found.peak_memory) == (40, 8.0, 5.0, 900)
    assert found.curve == [{"seconds": 4.0, "step": 20.0, "legible": 0.25, "effective_classes": 7.5}]
    assert found.seconds_to_half == math.inf
    assert Measured("run", 0).seconds_to_half is None
    assert points_of(found, by_steps=True).tolist() == [[20.0, 0.25, 7.5]]
    assert points_of(found, by_steps=False)[0, 0] == pytest.approx(4.0 / 60.0)


def test_the_band_is_where_all_seeds_have_been():
    runs = [np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([[1.0, 3.0], [3.0, 3.0]]), np.array([[0.0, 1.0], [8.0, 1.0]])]
    x, middle, low, high = median_and_spread(runs, 1)
    assert (x[0], x[-1]) == (1.0, 3.0)
    assert (middle[0], middle[-1]) == (1.0, 3.0)
    assert (low[0], low[-1], high[0], high[-1]) == (1.0, 1.0, 3.0, 3.0)
    assert np.allclose(middle, np.clip(x, 1.0, 3.0))


def reading(legible: list[bool], labels: list[int]) -> Reading:
    sure = torch.tensor(legible).float()
    return Reading(torch.tensor(labels), sure, torch.tensor(labels), torch.zeros(len(labels), 1))


def test_below_a_view_stands_what_is_read_and_beside_it_the_colour_of_its_curve():
    views = torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)])
    turns = [Turn("a name", ["a remark"], (9, 200, 9), views, reading([True, False], [1, 0]))] * 2
    sheet = turns_strip(turns, [["x", "y"], []])
    first, second = sheet[TOP : TOP + 94], sheet[TOP + 94 : TOP + 188]
    assert [(part == (9, 200, 9)).all(axis=2).any() for part in (first, second)] == [True, True]
    below = [part[66:90, 190:256] for part in (first, second)]
    assert [bool((part != part[0, 0]).any()) for part in below] == [True, False]  # no names, no letters
    assert not (first[66:90, 257:322] != first[66, 257]).any()  # not legible
    assert first[30, 200].tolist() == [255, 255, 255]
    assert first[30, 280].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("title", "lines", "size"),
    [
        ("VoxelGrid", ["VoxelGrid"], 15),
        ("VoxelGrid, pairing relativistic", ["VoxelGrid, pairing", "relativistic"], 15),
        ("VoxelGrid, pairing relativistic, weight 1", ["VoxelGrid, pairing", "relativistic, weight 1"], 12),
        (
            "VoxelGrid, " + 90 * "x" + ", weight 2",
            ["VoxelGrid, " + 15 * "x", 26 * "x", "..." + 13 * "x" + ", weight 2"],
            12,
        ),
    ],
)
def test_a_long_name_in_the_figure_keeps_its_end(title, lines, size):
    assert turns._title(title)[:2] == (lines, size)


def test_a_name_that_begins_with_an_underscore_stands_in_the_legend(monkeypatch):
    pytest.importorskip("matplotlib")
    named: list[str] = []

    def noted(axes: Any) -> None:
        named.extend(text.get_text() for text in axes.legend().get_texts())

    monkeypatch.setattr(learning_curves, "_add_legend", noted)
    points = np.array([[0.0, 0.0], [4.0, 0.4]])
    curves = [learning_curves.Curve(name, (9, 9, 200), [points]) for name in ("_mine", "other")]
    learning_curves.learning_curves(curves, [learning_curves.Panel("a", 1.0, 0.5)], "steps", 200, 100)
    assert [name.strip() for name in named] == ["_mine", "other"]


class Turning(Measuring):
    """Views and readings without a run."""

    def turn(self, path: Path, config: Any) -> tuple[Tensor, Reading]:
        return torch.zeros(4, 1, 8, 8), reading([True] * 4, [0] * 4)

    def class_names(self, config: Any) -> list[str]:
        return ["x", "y"]


def drawn(rows: Any) -> tuple[bytes, str]:
    return figure_of(rows, Path(), {run.name: Config() for run in RUNS}, Turning(), by_steps=False)


def test_the_figure_has_a_row_a_variant_and_the_curves_below_and_lacks_no_more_than_these(monkeypatch):
    content, missing = drawn(rows_of(TWO, RUNS))
    with Image.open(io.BytesIO(content)) as whole:
        width, height = whole.size
    assert missing == ""

    def absent(*_: Any) -> Any:
        raise ExportError("learning curves needs matplotlib: pip install it")

    monkeypatch.setattr(figure, "learning_curves", absent)
    content, missing = drawn(rows_of(TWO, RUNS))
    with Image.open(io.BytesIO(content)) as without:
        assert without.size == (width, height - figure.HEIGHT - 16)
    assert missing.startswith("without learning curves: learning curves needs matplotlib")
    assert drawn(rows_of(TWO, [Measured("run", 0, "failed")] * 2)) == (b"", "no run is complete, so there is no figure")


# ---- what runs note for it --------------------------------------------------------------------------------------
class Says(nn.Module):
    """A network that reads the first of two classes everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([9.0, 0.0, 0.0]).expand(len(images), 3), images.flatten(1)[:, :4]


class Ticking(Trainer):
    """As much of a trainer as scores ask for, ten seconds a step."""

    def __init__(self) -> None:
        self.told, self.left_out = 0.0, 0.0
        self.averaged, self.renderer, self.poses = VoxelGrid(2), AbsorptionRenderer(8), PoseOptions()

    @property
    def seconds(self) -> float:
        return self.told

    def leave_out(self, seconds: float) -> None:
        self.left_out += seconds

    def each_objective(self) -> list[Objective]:
        return []


def test_scores_come_by_training_time_which_stands_still_meanwhile(tmp_path, monkeypatch):
    def scored(*_: Any) -> ImageScore:
        time.sleep(0.01)
        return ImageScore(9, legible=0.5, clean=0.1, effective_classes=2.0, histogram={})

    monkeypatch.setattr(scores_module, "quick_score", scored)
    trainer = Ticking()
    scores = Scores(RunDirectory(tmp_path), Classifiers([Says(), Says()], ["a", "b"], "v"), "25s")
    for step in range(1, 9):
        trainer.told = 10.0 * step
        scores.after_step(trainer, StepReport(step, step / 8))
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [(record["step"], record["seconds"]) for record in records] == [(3, 30.0), (6, 60.0), (8, 80.0)]
    assert trainer.left_out >= 3 * 0.01
    scores.finish(trainer)


@pytest.mark.parametrize("every", ["10", "0s", "soon", "-3"])
def test_time_between_scores_has_its_unit(every):
    with pytest.raises(ValueError, match=rf"^scorecard.every={every}: must be "):
        ScorecardOptions(every=every)
    assert ScorecardOptions(every="10s").every == "10s"


def test_the_peak_of_memory_is_that_of_this_process(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_memory(tmp_path / "status") == 2**21
    peak, now = peak_memory(), psutil.Process().memory_info().rss
    assert peak is not None
    assert 0.5 * now < peak < 100 * now  # no less than is held, as long as nothing is given back; in bytes


def test_a_comparison_has_a_seed():
    with pytest.raises(ConfigError, match="seeds="):
        CompareOptions(volumes=["VoxelGrid"], seeds=[])
