"""A deterministic run: torch's settings hold in a step and no longer, and one line says what they cannot hold."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.images import ImageSet
from mnist3d.errors import ConfigError
from mnist3d.kernels.absorption import sampling
from mnist3d.kernels.absorption.sampling import sample_grid, sample_in_order
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import build_trainer
from mnist3d.runs.config import Config
from mnist3d.runs.determinism import what_stays_open
from mnist3d.runs.memory import training_memory
from mnist3d.training.objectives.base import Objective
from mnist3d.training.options import TrainerOptions
from mnist3d.training.step_settings import CUBLAS, prepare_cublas
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.voxel_grid import VoxelGrid

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OFF, WARN, ERROR = 0, 1, 2  # of torch's debug mode
STEPS = ["--trainer.max_steps", "9"]


class Asks(Objective):
    """Calls a function in each step."""

    name = "asks"

    def __init__(self, ask: Any) -> None:
        super().__init__()
        self.ask = ask

    def loss(self, batch: Any) -> Tensor | None:
        return self.ask(batch)


def trainer(ask: Any, deterministic: bool = True) -> Trainer:
    torch.manual_seed(0)
    images, options = ImageSet(torch.zeros(4, 1, 8, 8), None, []), TrainerOptions(max_steps=9, views=2)
    return Trainer(
        VoxelGrid(6),
        AbsorptionRenderer(8, impl="reference"),
        images,
        [Asks(ask)],
        options=options,
        deterministic=deterministic,
    )


def settings() -> tuple[int, bool]:
    return torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark


# ---- the settings


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_settings_hold_in_a_step_and_are_the_callers_afterwards(deterministic: bool, monkeypatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    one = trainer(lambda _: seen.append(settings()), deterministic)
    one.step()  # a first step imports libraries that set filters of their own
    filters = list(warnings.filters)
    one.step()
    assert seen == 2 * [(WARN, False) if deterministic else (OFF, True)]
    assert settings() == (OFF, True)
    assert warnings.filters == filters


def test_after_an_error_in_mid_step_they_are_the_callers_too() -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("in mid-step")

    shown = warnings.showwarning
    with pytest.raises(RuntimeError, match="in mid-step"):
        trainer(fail).step()
    assert settings() == (OFF, False)
    assert warnings.showwarning is shown


def test_a_caller_who_asks_for_errors_gets_them() -> None:
    torch.set_deterministic_debug_mode(ERROR)
    try:
        with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
            trainer(lambda _: put()).step()
        assert torch.get_deterministic_debug_mode() == ERROR
    finally:
        torch.set_deterministic_debug_mode(OFF)


def test_on_a_cpu_it_changes_no_bit() -> None:
    def brightness(batch: Any) -> Tensor:
        return batch.views.mean()

    volumes = []
    for deterministic in (True, False):
        one = trainer(brightness, deterministic)
        for _ in range(2):
            one.step()
        volumes.append(one.volume.dense())
    assert torch.equal(*volumes)


def test_cublas_is_told_before_a_gpu_starts_and_keeps_what_the_user_says(monkeypatch) -> None:
    monkeypatch.setenv(CUBLAS, "")  # so that it is restored
    del os.environ[CUBLAS]
    prepare_cublas(CPU)
    assert CUBLAS not in os.environ
    prepare_cublas(CUDA)
    assert os.environ[CUBLAS] == ":4096:8"
    os.environ[CUBLAS] = ":16:8"
    prepare_cublas(CUDA)
    assert os.environ[CUBLAS] == ":16:8"


# ---- what torch cannot do in one order


def put() -> None:
    """On a CPU too torch has one way only, and says so."""
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1), accumulate=False)


def test_what_torch_has_no_other_way_for_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    def ask(_: Any) -> None:
        put()
        put()
        if one.steps_done == 2:
            warnings.warn("this operation is not deterministic because it uses CuBLAS and you have ...", stacklevel=1)

    one = trainer(ask)
    for _ in range(4):
        one.step()
    said = "deterministic: two runs may differ all the same, torch adds in any order in "
    assert [record.getMessage() for record in caplog.records] == [
        said + "put_",
        said + "products of matrices (set CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_other_warnings_are_shown_once() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        one = trainer(lambda _: warnings.warn("something else", stacklevel=1))
        for _ in range(3):
            one.step()
    assert [str(each.message) for each in shown] == ["something else"]


# ---- the renderer's other way


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (2, 1, 3, 1)])
def test_the_sum_in_one_order_is_grid_sample(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.rand(shape, dtype=torch.float64, generator=generator).requires_grad_()
    places = torch.rand(3, 6, 5, 4, 3, dtype=torch.float64, generator=generator).mul(2.6).sub(1.3).requires_grad_()
    expected, found = sample_grid(grid, places), sample_in_order(grid, places)
    torch.testing.assert_close(found, expected)  # float64's own tolerance: the same sums in another order
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    wanted, got = (torch.autograd.grad((each * upstream).sum(), (grid, places)) for each in (expected, found))
    torch.testing.assert_close(got, wanted)


def test_a_place_that_is_no_number_reads_nothing_from_outside() -> None:
    places = torch.tensor([[[torch.nan, 0.0, torch.inf]]])
    assert sample_in_order(torch.ones(2, 3, 3, 3), places).isnan().all()


def test_it_is_taken_where_torch_adds_in_any_order_and_one_is_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(sampling, "sample_in_order", lambda *_: torch.zeros(1, 2, 1, 1, 1))
    grid, places = torch.ones(2, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3)
    seen: list[float] = []

    def ask(_: Any) -> None:
        seen.append(sample_grid(grid, places).sum().item())

    for kinds in ((), ("cpu",)):
        monkeypatch.setattr(sampling, "IN_ANY_ORDER", frozenset(kinds))
        for deterministic in (False, True):
            trainer(ask, deterministic).step()
    assert seen == [2.0, 2.0, 2.0, 0.0]


def test_its_memory_is_asked_for() -> None:
    plain, in_order = (
        sum(training_memory(Config(deterministic=deterministic), CUDA).values()) for deterministic in (False, True)
    )
    assert in_order > plain


# ---- the option


@pytest.mark.parametrize(
    ("flags", "device", "said"),
    [
        ([], CPU, "deterministic: on cpu two runs are the same to the bit, with the same number of threads"),
        ([], CUDA, "deterministic: on cuda two runs are the same to the bit, as far as torch knows"),
        (
            ["--renderer.impl", "triton"],
            CUDA,
            "deterministic: on cuda two runs may still differ in the gradient of renderer.impl=triton (auto takes "
            "another)",
        ),
        (
            ["--trainer.max_minutes", "1"],
            CPU,
            "deterministic: on cpu two runs may still differ in the number of steps (give trainer.max_steps instead of "
            "minutes)",
        ),
    ],
)
def test_the_line_at_the_start_says_what_stays_open(flags: list[str], device: torch.device, said: str):
    assert what_stays_open(parse_command_line([*STEPS, *flags]).config, device) == said


def test_tinycudanns_gradient_is_named() -> None:
    volume = {"class_path": "mnist3d.volumes.HashGrid", "init_args": {"implementation": "tinycudann"}}
    config = Config(volume=volume, trainer=TrainerOptions(max_steps=9))
    assert "the gradient of volume.implementation=tinycudann" in what_stays_open(config, CUDA)


@pytest.mark.parametrize("flags", [["--deterministic"], ["--deterministic", "true"], ["--deterministic=true"]])
def test_the_option_reaches_the_trainer_and_the_first_lines(flags: list[str]) -> None:
    remarks: list[str] = []
    tiny = [*STEPS, "--device", "cpu", "--volume.resolution", "8", "--data.limit", "200", "--nearest_image.weight", "0"]
    trainer = build_trainer(parse_command_line([*flags, *tiny]).config, remarks=remarks)
    assert trainer._one_order.asked
    assert [line for line in remarks if line.startswith("deterministic: on cpu ")]


def test_a_value_that_is_none_is_refused_and_so_is_another_one_on_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deterministic=maybe: must be true or false"):
        parse_command_line(["--deterministic", "maybe"])
    (tmp_path / "config.yaml").write_text(parse_command_line([*STEPS, "--deterministic"]).config.to_yaml())
    (tmp_path / "resume.pt").touch()
    resumed = ["--resume", str(tmp_path)]
    assert parse_command_line(resumed).config.deterministic
    with pytest.raises(ConfigError, match="deterministic=false: a resumed run keeps its deterministic=true"):
        parse_command_line([*resumed, "--deterministic", "false"])
