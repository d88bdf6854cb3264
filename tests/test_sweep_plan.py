"""What a SPEC.yaml says, which runs come of it, and which of them goes next."""

import random
from pathlib import Path

import pytest
import yaml

from mnist3d.errors import ConfigError
from mnist3d.sweeps.halving import Standing, best_run, next_run
from mnist3d.sweeps.options import SweepOptions, read_options
from mnist3d.sweeps.plan import configurations, planned


def options(tmp_path: Path, **values: object) -> SweepOptions:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return read_options(tmp_path / "spec.yaml")


def test_a_grid_is_all_combinations_with_the_first_seed_before_the_next(tmp_path):
    spec = options(
        tmp_path, base={"trainer": {"views": 8}}, grid={"volume": {"resolution": [8, 16]}, "a.b": [1, 2]}, seeds=[3, 5]
    )
    runs = planned(spec)
    assert [list(run.settings.values()) for run in runs[:4]] == [[8, 1, 3], [8, 2, 3], [16, 1, 3], [16, 2, 3]]
    assert [run.settings["seed"] for run in runs] == [3] * 4 + [5] * 4
    assert runs[1].words == ["--trainer.views=8", "--volume.resolution=8", "--a.b=2", "--seed=3"]
    assert runs[1].name == "002-resolution_8-b_2-seed_3"


def test_files_come_first_so_that_single_keys_win(tmp_path):
    spec = options(tmp_path, base={"trainer.views": 8, "config": "counter"}, grid={"config": ["my.yaml", "hash_grid"]})
    assert planned(spec)[0].words == ["--config=counter", "--config=my.yaml", "--trainer.views=8", "--seed=0"]


def test_a_class_comes_before_the_options_of_a_volume_which_it_would_drop(tmp_path):
    spec = options(
        tmp_path, base={"volume.resolution": 8, "a.b": 1}, configurations=[{"c": 2, "volume": "VMGrid"}, {"c": 3}]
    )
    assert [run.words for run in planned(spec)] == [
        ["--volume=VMGrid", "--volume.resolution=8", "--a.b=1", "--c=2", "--seed=0"],
        ["--volume.resolution=8", "--a.b=1", "--c=3", "--seed=0"],
    ]
    (run,) = planned(options(tmp_path, base={"volume": {"resolution": 8, "class_path": "VMGrid"}}))
    assert run.words[:2] == ["--volume.class_path=VMGrid", "--volume.resolution=8"]


def test_values_are_typed_as_yaml_reads_them(tmp_path):
    values = {"a": None, "b": True, "c": [1, 0.5], "d": "text", "e": 1e-5}
    (run,) = planned(options(tmp_path, base=values))
    typed = [word.partition("=")[2] for word in run.words[:-1]]
    assert typed == ["null", "true", "[1, 0.5]", "text", "1e-05"]


def test_draws_are_in_range_and_always_the_same(tmp_path):
    values = {"rate": {"low": 0.001, "high": 1.0, "scale": "log"}, "views": {"low": 2, "high": 5}, "name": ["x", "y"]}
    spec = options(tmp_path, random={"count": 200, "seed": 4, "values": values})
    drawn = configurations(spec)
    assert drawn == configurations(spec)
    assert {each["views"] for each in drawn} == {2, 3, 4, 5}
    assert {each["name"] for each in drawn} == {"x", "y"}
    assert all(0.001 <= each["rate"] <= 1.0 for each in drawn)
    # Evenly on a logarithmic scale: a third below each power of ten; 200 draws, four standard deviations are .13.
    assert sum(each["rate"] < 0.01 for each in drawn) / 200 == pytest.approx(1 / 3, abs=0.13)
    other = options(tmp_path, random={"count": 200, "seed": 5, "values": values})
    assert configurations(other) != drawn


def test_numbers_that_yaml_reads_as_text_and_nested_keys_are_ranges_too(tmp_path):
    (tmp_path / "spec.yaml").write_text(
        "random: {count: 20, values: {trainer: {volume_rate: {low: 1e-3, high: 1e-1, scale: log}, views: [8, 16]}}}"
    )
    drawn = configurations(read_options(tmp_path / "spec.yaml"))
    assert all([*each] == ["trainer.volume_rate", "trainer.views"] for each in drawn)
    assert all(1e-3 <= each["trainer.volume_rate"] <= 1e-1 for each in drawn)


@pytest.mark.parametrize(("low", "high"), [(0.123456, 0.123457), (0, 0.99999), (0.99996, 1.00004), (-1e-9, 2)])
def test_rounding_leaves_no_range(tmp_path, low, high):
    spec = options(tmp_path, random={"count": 300, "values": {"a": {"low": low, "high": high}}})
    drawn = [each["a"] for each in configurations(spec)]
    assert all(isinstance(each, float) and low <= each <= high for each in drawn)
    assert len({*drawn}) > 200  # of 300; a thousand numbers or more are in each range, and 300 of these give 259


@pytest.mark.parametrize("low", [1.00001, 1])
def test_of_a_wide_range_draws_have_four_digits_or_are_its_end(tmp_path, low):
    high = 1.112  # below 1.0005 four digits are 1.000, which is out of range or its end: one draw in 230
    spec = options(tmp_path, random={"count": 3000, "values": {"a": {"low": low, "high": high}}})
    drawn = [each["a"] for each in configurations(spec)]
    assert all(each == low or each == float(f"{each:.4g}") for each in drawn)
    assert low in drawn
    assert all(isinstance(each, float) and low <= each <= high for each in drawn)


def test_names_are_different_and_short_and_every_file_system_takes_them(tmp_path):
    spec = options(tmp_path, configurations=[{"data.path": "a/b:c*" + 99 * "x"}, {"x.rate": 0.1 + 0.2}], seeds=2)
    names = [run.name for run in planned(spec)]
    assert names[1] == "002-rate_0.3-seed_0"
    assert len({*names}) == 4
    assert all(len(name) < 70 and set("/:*\\ ").isdisjoint(name) for name in names)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sedes": 3}, "sedes: no such key, did you mean seeds?"),
        ({"seeds": 0}, "seeds=0: must be a number in [1, 10000], or a list of different seeds in [0, 2^63 - 1]"),
        ({"seeds": [2**63]}, "seeds=[9223372036854775808]: must be"),
        ({"seeds": [-1]}, "seeds=[-1]: must be"),
        ({"seeds": [1, 1]}, "seeds=[1, 1]: must be"),
        ({"seeds": "x"}, "seeds=x: must be a whole number or a list of whole numbers"),
        ({"grid": {"a": 3}}, "grid.a=3: must be a list"),
        ({"grid": {"a": []}}, "grid.a=[]: must be a list of one value or more"),
        ({"grid": {"a": [1]}, "configurations": [{"b": 1}]}, "grid and configurations: only one of"),
        ({"random": {"count": 3}}, "random.values: is missing"),
        ({"random": {"values": {"a": [1]}}}, "random.count: is missing"),
        ({"random": {"count": 3, "values": {"a": 1}}}, "random.values.a=1: must be a list"),
        ({"random": {"count": 3, "values": {"a": {"low": 2, "high": 1}}}}, "must be a list of values, or {low: NUMBER"),
        (
            {"random": {"count": 3, "values": {"a": {"low": True, "high": 2}}}},
            "must be a list of values, or {low: NUMBER",
        ),
        ({"random": {"count": 3, "values": {"a": {"low": 0, "high": 1, "scale": "log"}}}}, "log where low > 0"),
        ({"random": {"count": 3, "values": {"a": {"low": "1e-3", "high": "x"}}}}, "random.values.a={'low': '1e-3',"),
        ({"random": {"count": 3, "values": {"a": {"low": -1e308, "high": 1e308}}}}, "must be a list of values, or"),
        ({"random": {"count": -1}}, "random.count=-1: must be in [0, 10000]"),
        ({"halving": {"rungs": [0.5, 0.2]}}, "halving.rungs=[0.5, 0.2]: must be ascending, each"),
        ({"halving": {"rungs": [1.0]}}, "must be ascending, each progress in (0, 1)"),
        ({"halving": {"eta": 1}}, "halving.eta=1: must be >= 1.5"),
        ({"halving": {"rungs": [0.5]}, "score": "none"}, "score=none: halving.rungs compares runs"),
        ({"keep": "best", "score": "none"}, "score=none: keep=best compares runs"),
        ({"keep": "bst"}, "keep=bst: must be one of all, best; did you mean best?"),
        ({"score": "lgible"}, "did you mean legible?"),
        ({"cores": 0}, "cores=0: must be >= 1"),
        ({"gpus": 1.5}, "gpus=1.5: must be whole, or in [0.0001, 1)"),
        ({"gpus": 1e-9}, "gpus=1e-09: must be whole, or in [0.0001, 1)"),
        ({"at_once": 0}, "at_once=0: must be in [1, 10000]"),
        ({"at_once": 10**9}, "at_once=1e+09: must be in [1, 10000]"),
        ({"minutes": 0}, "minutes=0: must be finite and > 0"),
        ({"base": {"seed": 3}}, "base.seed: the sweep sets it, by seeds; leave it out"),
        ({"grid": {"trainer.stop_after": [3]}}, "grid.trainer.stop_after: the sweep sets it, by halving.rungs"),
        ({"base": {"run_dir=elsewhere": 1}}, "base.run_dir=elsewhere: no such key; one has letters, digits, _ and"),
        ({"grid": {"a.b": [1], "a": {"b": [2]}}}, "grid.a.b: is given twice, dotted and nested; leave one out"),
        ({"grid": {"a": [3, 0.5, 3]}}, "grid.a: 3 is given 2 times, for equal runs; leave it once"),
        ({"configurations": [{"viewer": {"enabled": True}}]}, "configurations.viewer.enabled: the sweep sets it"),
        ({"grid": {key: list(range(100)) for key in "abc"}}, "grid: 1,000,000 runs; must be 10,000 at most"),
        ({"seeds": 10**15}, "seeds=1000000000000000: must be"),
        ([1], "spec.yaml: is empty or no mapping"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path, values, words):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ConfigError) as raised:
        planned(read_options(file))
    assert words in str(raised.value)
    of_the_plan = ("sets it", "10,000", "equal runs", "no such key; one has")
    assert str(raised.value).startswith(f"{file}: ") or any(each in words for each in of_the_plan)


def test_what_is_written_is_read_as_the_same_sweep(tmp_path):
    spec = options(tmp_path, base={"config": "counter"}, grid={"a": [1e-5, None]}, seeds=3, minutes=5)
    (tmp_path / "again.yaml").write_text(spec.to_yaml())
    again = read_options(tmp_path / "again.yaml")
    assert again == spec
    assert planned(again) == planned(spec)
    again.minutes, again.cores, again.keep = 7.0, 2, "best"
    assert again.differing(spec) == []
    again.grid = {"a": [1]}
    assert again.differing(spec) == ["grid"]


def simulated(count: int, places: int, rungs: int, eta: float, seed: int) -> tuple[list[Standing], list[float]]:
    """Runs of a fixed quality each, whose sessions end in any order."""
    generator = random.Random(seed)
    runs, quality, running = [Standing() for _ in range(count)], [generator.random() for _ in range(count)], []
    while True:
        while len(running) < places and (chosen := next_run(runs, rungs, eta)) is not None:
            assert runs[chosen].state in ("waiting", "paused")
            runs[chosen].state = "running"
            running.append(chosen)
        if not running:
            return runs, quality
        ended = running.pop(generator.randrange(len(running)))
        runs[ended].scores.append(quality[ended])
        runs[ended].state = "done" if len(runs[ended].scores) > rungs else "paused"


@pytest.mark.parametrize("count", [1, 2, 3, 9, 27])
@pytest.mark.parametrize("rungs", [0, 1, 3])
@pytest.mark.parametrize("eta", [2.0, 3.0, 4.0])
def test_the_best_always_comes_to_its_end(count, rungs, eta):
    for places in (1, 4):
        runs, quality = simulated(count, places, rungs, eta, seed=count)
        best = best_run(runs)
        assert best is not None
        assert quality[best] == max(quality)
        assert {run.state for run in runs} <= {"done", "paused"}
        assert rungs > 0 or all(run.state == "done" for run in runs)


def test_halving_saves_most_of_the_work():
    runs, _ = simulated(27, 1, 2, 3.0, seed=0)
    passed = [sum(len(run.scores) > rung for run in runs) for rung in range(3)]
    assert passed[0] == 27
    assert 9 <= passed[1] <= 13  # a third, and some that were among the best of the first ones
    assert 1 <= passed[2] <= 5


def test_who_goes_next():
    def standing(state, *scores):
        return Standing(state, list(scores))

    paused = [standing("paused", 0.1), standing("paused", 0.3), standing("paused", 0.2)]
    assert next_run(paused, 1, 3.0) == 1  # nobody is to come: the best goes on
    assert next_run([*paused, standing("waiting")], 1, 3.0) == 1  # already one of three
    assert next_run([*paused[:2], standing("waiting")], 1, 3.0) == 2  # the best of two may not be one of a third
    assert next_run([*paused, standing("waiting", 0.0)], 1, 3.0) == 3  # interrupted after it was promoted
    assert next_run([standing("paused", 0.1), standing("running"), standing("failed")], 1, 3.0) is None
    assert next_run([standing("paused", 0.1), standing("failed")], 1, 3.0) == 0
    assert next_run([standing("paused", None), standing("paused", 0.0)], 1, 2.0) == 1  # without a score: last
    upper = [standing("paused", 0.7, 0.7), standing("paused", 0.9), standing("running", 0.8, 0.6)]
    assert next_run(upper, 2, 2.0) == 0  # the higher rung first
    assert next_run([upper[0], upper[1], standing("failed")], 2, 2.0) == 1  # one may still come to the higher rung
    assert next_run([standing("done", 0.9), standing("paused", 0.8)], 1, 2.0) is None
