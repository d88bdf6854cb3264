"""How many targets a volume can hold: share of right views against their number.

    python benchmarks/targets.py --output targets.json
    python benchmarks/targets.py --counts 10 --subject digits --seeds 0 1 2 --output counter.json

Up to twelve targets stand on one ring, up to 24 on two, up to 36 on three. Each run is alone (no discriminator) and
as long in steps as the others, so that the share compares. Fresh views within 8 degrees of each target, in azimuth
and in elevation, are then read:

* by comparison: of all images asked for, is the asked one the most similar (cosine of the blurred images)?
  `right` is the share, `similarity` the mean cosine to the asked one.
* digits also by the scorecard's two classifiers, trained on images that the targets are not taken from:
  `classified_right` both above .5 on the asked digit, `classified_clean` both above .9.

Written: one JSON with metadata and a record a run; printed: the table.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.images import load_images
from mnist3d.data.registration import blur
from mnist3d.geometry.rotations import upright_matrix
from mnist3d.rendering.pictures import contact_sheet
from mnist3d.rendering.renderer import render_views
from mnist3d.runs.building import build_trainer
from mnist3d.runs.config import Config
from mnist3d.training.objectives.targets import Targets

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
ELEVATIONS = {1: [0.0], 2: [-22.0, 22.0], 3: [-38.0, 0.0, 38.0]}
PER_RING = 12
SPREAD = 8.0  # degrees
VIEWS_PER_TARGET = 40
VIEW_SEED = 4711  # of the views that are read, never those of a training


def rings(count: int, subject: str) -> list[dict[str, Any]]:
    """Targets spread evenly over as few rings as hold them, every ring turned by half a step."""
    number = math.ceil(count / PER_RING)
    each = math.ceil(count / number)
    found = []
    for ring, elevation in enumerate(ELEVATIONS[number]):
        members = range(ring * each, min((ring + 1) * each, count))
        named = {"digits": [m % 10 for m in members]} if subject == "digits" else {"text": LETTERS[members[0] :][:each]}
        found.append({"elevation": elevation, "azimuth": 180.0 / each * ring, **named})
    return found


def views_near(targets: Targets) -> tuple[Tensor, Tensor]:
    """Rotations within `SPREAD` of the targets, and each one's target."""
    generator = torch.Generator().manual_seed(VIEW_SEED)
    target = torch.arange(len(targets.azimuth)).repeat_interleave(VIEWS_PER_TARGET)
    offset = math.radians(SPREAD) * (2.0 * torch.rand(2, len(target), generator=generator) - 1.0)
    return upright_matrix(targets.azimuth[target] + offset[0], targets.elevation[target] + offset[1]), target


def shares(good: Tensor, target: Tensor) -> tuple[float, float]:
    """Of all views, and of the worst target's."""
    each = torch.stack([good[target == k].float().mean() for k in target.unique()])
    return round(good.float().mean().item(), 4), round(each.min().item(), 4)


def compared(views: Tensor, target: Tensor, images: Tensor) -> dict[str, float]:
    """Whether the asked image is the most similar of all images asked for."""
    distinct, which = torch.unique(images.flatten(1), dim=0, return_inverse=True)
    asked = distinct.reshape(-1, *images.shape[1:])
    similarity = F.normalize(blur(views).flatten(1), dim=1) @ F.normalize(blur(asked).flatten(1), dim=1).mT
    right, worst = shares(similarity.argmax(dim=1) == which[target], target)
    mean = similarity[torch.arange(len(target)), which[target]].mean().item()
    return {"right": right, "worst": worst, "similarity": round(mean, 4)}


def classified(views: Tensor, target: Tensor, digits: list[int], config: Config) -> dict[str, float]:
    """What the scorecard's classifiers read."""
    from mnist3d.evaluation import load_classifiers  # pyright: ignore[reportMissingImports]

    held_out = load_images(config.data, config.renderer.image_size, "held_out")
    classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
    reading = classifiers.read(views)
    agrees = reading.label == torch.tensor(digits)[target]
    right, worst = shares(agrees & (reading.confidence > 0.5), target)
    clean, _ = shares(agrees & (reading.confidence > 0.9), target)
    return {"classified_right": right, "classified_worst": worst, "classified_clean": clean}


def measure(count: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run and what is read in its views."""
    asked = rings(count, options.subject)
    arguments = ["--config", str(Path(__file__).parent.parent / "configs" / "counter.yaml"), "--seed", str(seed)]
    arguments += ["--trainer.max_steps", str(options.steps), "--trainer.max_minutes", "null"]
    trainer = build_trainer(
        parse_command_line([*arguments, "--targets.rings", json.dumps(asked), *options.more]).config
    )
    began = time.monotonic(), time.process_time()
    trainer.run()
    seconds, cpu_seconds = time.monotonic() - began[0], time.process_time() - began[1]
    targets = trainer.objectives["targets"]
    assert isinstance(targets, Targets)
    rotations, target = views_near(targets)
    views, wanted = render_views(trainer.averaged, trainer.renderer, rotations), targets.images.cpu()
    record = {"targets": count, "rings": len(asked), "seed": seed, "steps": trainer.steps_done}
    record |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
    record |= compared(views, target, wanted)
    if options.subject == "digits" and not options.without_classifiers:
        digits = [digit for ring in asked for digit in ring["digits"]]
        record |= classified(views, target, digits, parse_command_line(arguments).config)
    if options.pictures is not None:
        import imageio.v3 as iio

        seen = render_views(trainer.averaged, trainer.renderer, targets.rotations)
        options.pictures.mkdir(parents=True, exist_ok=True)
        path = options.pictures / f"{options.subject}_{count}_{seed}.png"
        iio.imwrite(path, contact_sheet(torch.cat([wanted, seen]), columns=count if count <= PER_RING else PER_RING))
    return record


def main() -> None:
    """Measure every setting; a line a run as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[6, 10, 16, 24, 36], help="numbers of targets, to 36")
    parser.add_argument("--subject", choices=("letters", "digits"), default="letters")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--without_classifiers", action="store_true", help="digits: compare only, train no classifiers")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--pictures", type=Path, help="folder for sheets of asked and shown views")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of train.py, last of all")
    options = parser.parse_args()
    runs = []
    for count in options.counts:
        for seed in options.seeds:
            runs.append(measure(count, seed, options))
            print("  ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
    if options.output is not None:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        about = {**machine, "threads": torch.get_num_threads(), "torch": torch.__version__, "python": sys.version}
        about["command"] = " ".join(sys.argv)
        options.output.write_text(json.dumps({"metadata": about, "runs": runs}, indent=1) + "\n")
        print(options.output)


if __name__ == "__main__":
    main()
