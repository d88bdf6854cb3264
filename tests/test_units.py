"""What a person types or reads as an angle is in degrees: every flag and every key of a file, and what each does.

What `orbit --elevation` does is in `test_command_line.py`.
"""

import math
import re

import torch

from mnist3d.cli import orbit, view
from mnist3d.cli.flags import documented
from mnist3d.data.augment import tilted
from mnist3d.export.paths import camera_path
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.runs.config import SECTIONS, Config
from mnist3d.runs.validation import options_of
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import OWN_VOLUMES

# Every key and flag that is an angle or holds some, and what its help must call it.
ANGLES = {
    "targets.views": "in degrees",
    "targets.rings": "in degrees",
    "targets.jitter": "degrees",
    "trainer.max_tilt": "in degrees",
    "orbit --path": "in degrees",
    "orbit --elevation": "degrees",
}
ANGULAR = re.compile(r"azimuth|elevation|\broll\b|\btilt|\bangle|degree|rotation|\brad\b|radian", re.IGNORECASE)
NO_ANGLE_TYPED = {"poses.name", "poses.sphere_share", "orbit --seed"}  # choices and shares that speak of directions


def meanings():
    """The help of every key of a run and of every flag of the commands that turn something."""
    owners = {**SECTIONS, "": Config, **{f"volume {name}": volume for name, volume in OWN_VOLUMES.items()}}
    found = {
        f"{section}.{name}": documented(owner, name) for section, owner in owners.items() for name in options_of(owner)
    }
    for command in (orbit, view):
        for action in command.build_parser()._actions:
            name = command.__name__.rpartition(".")[2]
            found[f"{name} {[*action.option_strings, action.dest][0]}"] = action.help or ""
    return found


def test_every_angle_that_is_typed_is_documented_in_degrees():
    found = meanings()
    for key, words in ANGLES.items():
        assert words in found[key], key
    for key, meaning in found.items():
        assert not re.search(r"\brad\b|radian", meaning), key
        if ANGULAR.search(meaning):
            assert key in ANGLES or key in NO_ANGLE_TYPED, f"{key}: an angle? then it belongs into the table"


def targets_of(options: TargetOptions) -> Targets:
    listed = options.listed()
    angles = torch.tensor([(each.azimuth, each.elevation) for each in listed]).deg2rad()
    return Targets(angles[:, 0], angles[:, 1], torch.zeros(len(listed), 1, 8, 8), options)


def looks(rotation: torch.Tensor, azimuth: float, elevation: float, roll: float = 0.0) -> None:
    """That a rotation is the one of these angles, which are degrees; by `euler_matrix`, whose angles are radians."""
    wanted = euler_matrix([math.radians(elevation), math.radians(azimuth), math.radians(roll)])
    torch.testing.assert_close(rotation, wanted, rtol=0, atol=1e-5)  # float32, through sines of angles up to a turn


def test_keyframes_are_degrees(tmp_path):
    (tmp_path / "k.yaml").write_text("- {azimuth: 90, elevation: 10, roll: 5}\n- {azimuth: -30}\n", encoding="utf-8")
    path = camera_path(str(tmp_path / "k.yaml"), 2)
    looks(path[0], 90.0, 10.0, 5.0)
    looks(path[1], -30.0, 0.0)


def test_targets_are_degrees():
    views = targets_of(TargetOptions(views=[{"azimuth": 36, "elevation": -20, "digit": 1}]))
    looks(views.rotations[0], 36.0, -20.0)
    ring = targets_of(TargetOptions(rings=[{"azimuth": 10, "elevation": 5, "text": "ABC"}]))
    for k in range(3):
        looks(ring.rotations[k], 10.0 + 120.0 * k, 5.0)


def test_the_jitter_of_targets_is_degrees():
    options = TargetOptions(views=[{"digit": 1}], jitter=10.0, views_per_step=400)
    rotations, _, _ = targets_of(options).draw(torch.Generator().manual_seed(0))
    azimuth = torch.atan2(rotations[:, 0, 2], rotations[:, 0, 0]).rad2deg().abs()
    # the largest of 400 even draws misses the end by 10 / 400 on average; by a tenth once in 10^17
    assert 9.0 < float(azimuth.max()) <= 10.0 + 1e-3


def test_the_tilt_of_real_images_is_degrees():
    """A square that is turned by up to 60 degrees keeps at least half of its width: cos 60 = 1/2."""
    images = torch.zeros(200, 1, 32, 32)
    images[:, :, 8:24, 8:24] = 1.0
    flat = 256.0
    turned = tilted(images, TrainerOptions(max_tilt=60.0).max_tilt, torch.Generator().manual_seed(0)).sum(dim=(1, 2, 3))
    narrowest = math.cos(math.radians(60.0)) * math.cos(math.radians(30.0))  # azimuth, and half of it in elevation
    assert narrowest * flat * 0.98 < float(turned.min()) < 0.7 * flat  # 2 %: bilinear edges
    assert torch.equal(tilted(images, 0.0, torch.Generator().manual_seed(0)).round(), images)
