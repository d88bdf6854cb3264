"""Figures of a step: tensors become numbers, in one reading, and each keeps its kind."""

import json

import pytest
import torch

from benchmarks.far_device import NAME, far_device
from mnist3d.training.report import as_numbers


def test_tensors_become_numbers_of_their_own_kind_in_the_same_order():
    third = torch.tensor(1.0) / 3.0
    figures = {
        "loss": third,
        "steps": 7,
        "shares": torch.tensor([0.25, 0.75], dtype=torch.float64),
        "none": torch.zeros(0),
        "single": torch.tensor([0.5]),
        "listed": [0.5, 0.5],
        "seen": torch.tensor(2**53 - 1),
        "counts": torch.tensor([2**40 + 1, -3]),
        "dead": torch.tensor(True),
        "coarse": torch.tensor(0.1, dtype=torch.bfloat16),
        "lost": torch.tensor(float("nan")),
    }
    numbers = as_numbers(figures)
    assert list(numbers) == list(figures)
    assert numbers["loss"] == third.item()
    assert numbers["steps"] == 7
    assert numbers["shares"] == [0.25, 0.75]
    assert numbers["none"] == []
    assert numbers["single"] == [0.5]
    assert numbers["seen"] == 2**53 - 1
    assert numbers["counts"] == [2**40 + 1, -3]
    assert [type(each) for each in numbers["counts"]] == [int, int]
    assert numbers["dead"] is True
    assert numbers["coarse"] == torch.tensor(0.1, dtype=torch.bfloat16).item()
    assert numbers.pop("lost") != 0.0
    json.dumps(numbers)
    assert as_numbers({}) == {}


def test_all_tensors_of_a_device_are_read_at_once():
    with far_device() as device:
        figures = {"a": torch.ones((), device=NAME), "b": torch.arange(3, device=NAME), "c": torch.ones(2)}
        device.clear()
        assert as_numbers(figures) == {"a": 1.0, "b": [0, 1, 2], "c": [1.0, 1.0]}
        assert sum(device.waits.values()) == 1


@pytest.mark.parametrize("wrong", [[torch.zeros(())], (0.5, torch.zeros(()))])
def test_a_list_of_tensors_is_named_before_it_reaches_a_file(wrong):
    with pytest.raises(ValueError, match=r"metric size is a list of tensors: .*torch.stack"):
        as_numbers({"size": wrong})


@pytest.mark.parametrize("wrong", [torch.zeros(2, 2), torch.zeros(2, dtype=torch.complex64)])
def test_what_is_no_row_of_real_numbers_is_named(wrong):
    with pytest.raises(ValueError, match=r"metric size is a tensor of .*: it must be one real number or a row of them"):
        as_numbers({"size": wrong})
