"""The vote on a view's class: closed forms, what it does to a map of classes, its memory."""

import math

import pytest
import torch

from mnist3d import class_vote
from mnist3d.class_vote import ClassVote
from mnist3d.poses import PoseOptions, sample_rotations, upright_matrix


def at(*degrees: float) -> torch.Tensor:
    azimuth = torch.tensor(degrees).deg2rad()
    return upright_matrix(azimuth, torch.zeros_like(azimuth))


def sure(*classes: int, of: int = 3) -> torch.Tensor:
    return 20.0 * torch.eye(of)[list(classes)]


def test_without_a_neighbourhood_each_view_decides_alone_and_nothing_is_remembered() -> None:
    vote = ClassVote(3, 0.0, 5.0)
    assert vote(at(0, 1, 2, 3), sure(0, 0, 0, 2)).tolist() == [0, 0, 0, 2]
    assert vote.rotations.numel() == vote.probabilities.numel() == int(vote.seen) == 0


def test_one_among_others_goes_with_them_and_one_far_away_does_not() -> None:
    vote = ClassVote(3, math.radians(10), 0.0)
    assert vote(at(-4, -2, 0, 2, 4), sure(0, 0, 1, 0, 0)).tolist() == [0] * 5
    assert vote(at(90), sure(1)).tolist() == [1]
    # beside the five, a few steps later, it is outvoted
    assert vote(at(1), sure(1)).tolist() == [0]


def test_its_weights_are_a_gaussian_of_the_angle() -> None:
    width, angle = math.radians(10), math.radians(12)
    # two votes 12 degrees off against one's own p: 2 w against 1, w = exp((cos - 1) / width^2)
    w = math.exp((math.cos(angle) - 1.0) / width**2)
    assert w == pytest.approx(math.exp(-0.5 * (angle / width) ** 2), rel=0.01)
    assert 0.9 < 2 * w < 1.0
    others, own = at(-12, 12), at(0)
    assert ClassVote(3, width, 0.0)(torch.cat([others, own]), sure(0, 0, 1)).tolist()[2] == 1
    assert ClassVote(3, 1.1 * width, 0.0)(torch.cat([others, own]), sure(0, 0, 1)).tolist()[2] == 0


def test_the_camera_s_roll_counts_as_an_angle() -> None:
    vote = ClassVote(2, 0.2, 0.0)
    turned = torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])[None]
    vote(at(0, 0, 0), sure(0, 0, 0, of=2))
    assert vote(turned, sure(1, of=2)).tolist() == [1]  # the same line of sight, upside down


def test_a_frequent_class_needs_a_larger_majority() -> None:
    # far away nine views are of class 0, one of class 1, so class 0 is dearer by 9 ^ balance
    crowd, crowded = at(*torch.linspace(80, 280, 10).tolist()), sure(*[0] * 9, 1)
    probable = torch.tensor([[0.75, 0.25]]).log()
    chosen = []
    for balance in (0.0, 0.4, 0.6):
        vote = ClassVote(2, 0.1, balance)
        vote(crowd, crowded[:, :2])
        chosen.append(vote(at(0), probable).item())
    # odds of 3 against 9^.4 = 2.4 and 9^.6 = 3.7 (the view itself moves the shares a little)
    assert chosen == [0, 0, 1]


def test_small_regions_close_and_large_ones_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    poses = sample_rotations(2000, generator, PoseOptions(name="ring", elevation_spread=0.3))
    axis = poses[:, 2]  # the line of sight
    far = [(axis @ centre).clamp(-1, 1).acos() for centre in (torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, -1]))]
    label = torch.zeros(2000, dtype=torch.long)
    label[far[0] < 0.08], label[far[1] < 0.8] = 1, 2
    chosen = ClassVote(3, 0.2, 0.0)(poses, sure(*label.tolist()))
    assert (label == 1).sum() > 3
    assert not (chosen == 1).any()
    assert ((chosen == 2) == (label == 2)).float().mean() > 0.97


def test_the_memory_keeps_the_newest(monkeypatch) -> None:
    monkeypatch.setattr(class_vote, "MEMORY", 5)
    vote = ClassVote(3, 0.1, 0.0)
    for start in range(0, 12, 4):
        vote(at(*(start + k for k in range(4))), sure(*((start + k) % 3 for k in range(4))))
    kept = {round(math.degrees(math.atan2(row[2], row[0]))) for row in vote.rotations}
    assert kept == {7, 8, 9, 10, 11}
    vote(at(*range(20, 28)), sure(*[0] * 8))  # more at once than it holds
    assert {round(math.degrees(math.atan2(row[2], row[0]))) for row in vote.rotations} == {23, 24, 25, 26, 27}


def test_its_state_is_all_it_knows() -> None:
    vote, other = ClassVote(3, 0.2, 0.5), ClassVote(3, 0.2, 0.5)
    vote(at(-2, 0, 2), sure(0, 0, 0))
    other.load_state_dict(vote.state_dict())
    assert vote(at(1), sure(1)).tolist() == other(at(1), sure(1)).tolist() == [0]
    assert ClassVote(3, 0.2, 0.5)(at(1), sure(1)).tolist() == [1]


def test_a_state_from_before_or_of_another_width_leaves_an_empty_memory() -> None:
    kept = ClassVote(3, 0.2, 0.5)
    kept(at(-2, 0, 2), sure(0, 0, 0))
    for state in ({}, ClassVote(3, 0.0, 0.5).state_dict()):
        vote = ClassVote(3, 0.2, 0.5)
        vote(at(-2, 0, 2), sure(2, 2, 2))
        vote.load_state_dict(state)
        assert int(vote.seen) == 0
        assert vote(at(1), sure(1)).tolist() == [1]
    none = ClassVote(3, 0.0, 0.5)
    none.load_state_dict(kept.state_dict())
    assert none(at(0), sure(2)).tolist() == [2]


def test_no_views_no_classes() -> None:
    assert ClassVote(3, 0.2, 0.5)(torch.zeros(0, 3, 3), torch.zeros(0, 3)).tolist() == []
