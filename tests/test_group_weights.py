"""Weights of groups that are behind, against figures computed by hand."""

import pytest
import torch

from mnist3d.training.objectives.group_weights import MEMORY, GroupWeights

WANTED = torch.full((3, 1, 4, 4), 0.5)


def test_a_group_that_is_behind_weighs_more():
    weights = GroupWeights(2, focus=2.0)
    group = torch.tensor([0, 1, 1])
    difference = torch.tensor([0.1, 0.3, 0.3])
    for _ in range(500):
        weights(group, difference, WANTED)
    found = weights(group, difference, WANTED)
    # relative to a mean brightness of .5 the groups are .2 and .6 away, .4 on average
    torch.testing.assert_close(weights.gaps, torch.tensor([0.2, 0.6]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found, torch.tensor([0.25, 2.25, 2.25]), atol=0.02, rtol=0)
    assert not found.requires_grad


def test_two_images_of_a_group_count_as_two_and_none_leave_it_alone():
    weights = GroupWeights(3, focus=1.0)
    weights(torch.tensor([0, 2, 2]), torch.zeros(3), WANTED)
    assert weights.gaps.tolist() == pytest.approx([MEMORY, 1.0, MEMORY**2])


def test_without_focus_all_weigh_alike_and_nothing_is_remembered():
    weights = GroupWeights(2, focus=0.0)
    assert weights(torch.tensor([0, 1, 1]), torch.tensor([0.1, 0.9, 0.9]), WANTED).tolist() == [1.0, 1.0, 1.0]
    assert weights.gaps.tolist() == [1.0, 1.0]


def test_groups_that_are_there_leave_no_division_by_zero():
    weights = GroupWeights(2, focus=4.0)
    weights.gaps.zero_()
    assert weights(torch.tensor([0, 1, 1]), torch.zeros(3), torch.zeros(3, 1, 4, 4)).tolist() == [1.0, 1.0, 1.0]
