"""The evaluation classifiers that come with the package: python benchmarks/packaged_classifiers.py [--write] [RUN ...]

Trains them on the held-out part of the default digits (a minute or two on one core) and says how far the packaged
ones, which are rounded to eight bits, agree with them: on digits, on images that are none, and on 500 views of each
run given. `--write` packs those just trained into mnist3d/evaluation/ first; then set VERSION and SHA256 of
`packaged.py` to what is printed.

The same bits on the same machine. On another the sums are rounded in another order, which hundreds of steps carry on:
with the instructions of an old processor (ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41) shares of legible and
clean views came out up to .02 away, which is what to expect; rounding to eight bits moves them by up to .006.
"""

import argparse
import hashlib
import os
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from mnist3d import load_run
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import Classifiers, load_classifiers
from mnist3d.evaluation.classifiers import CLASSIFIER_SIZE
from mnist3d.evaluation.negatives import Negatives
from mnist3d.evaluation.packaged import FILE, packed, unpacked
from mnist3d.evaluation.scores import VIEW_SEED
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.rendering.renderer import render_views

VIEWS = 500


def compared(name: str, images: Tensor, trained: Classifiers, packaged: Classifiers) -> str:
    """A line of the table."""
    one, other = trained.read(images), packaged.read(images)
    change = (one.confidence - other.confidence).abs()
    return (
        f"{name:16} {len(images):6} {float((one.label == other.label).float().mean()):11.4f} "
        f"{float(change.mean()):12.5f} {float(change.max()):14.4f}    "
        f"{float(one.legible.float().mean()):.4f} / {float(other.legible.float().mean()):.4f}    "
        f"{float(one.clean.float().mean()):.4f} / {float(other.clean.float().mean()):.4f}"
    )


def main() -> None:
    """Train, perhaps write, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run directory whose views are read too")
    parser.add_argument("--write", action="store_true", help="pack those just trained into the package first")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order
    held_out, training = (load_images(DataOptions(), CLASSIFIER_SIZE, part) for part in ("held_out", "training"))
    assert held_out.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        trained = load_classifiers(held_out.images, held_out.labels, held_out.class_names, folder)
    if options.write:
        FILE.write_bytes(packed(nn.ModuleList(trained.networks).state_dict()))
    content = FILE.read_bytes()
    print(f'{len(content):,} bytes\nVERSION = "{trained.version}"\nSHA256 = "{hashlib.sha256(content).hexdigest()}"')
    rounded = nn.ModuleList([type(network)(len(held_out.class_names) + 1) for network in trained.networks])
    rounded.load_state_dict(unpacked(content))
    packaged = Classifiers(list(rounded.eval().requires_grad_(False)), trained.class_names, trained.version)
    generator = torch.Generator().manual_seed(VIEW_SEED)
    none = Negatives(held_out.images, held_out.labels, generator).draw(1000, generator)
    sets = {"held-out digits": held_out.images, "training digits": training.images, "no digits": none}
    for path in options.runs:
        run = load_run(path)
        for law in ("euler_normal", "sphere"):
            rotations = sample_rotations(VIEWS, torch.Generator().manual_seed(VIEW_SEED), PoseOptions(law))
            sets[f"views, {law}"] = render_views(run.volume, run.renderer, rotations)
    print(
        "images            count  same label  mean change  largest change  legible before / after  clean before / after"
    )
    for name, images in sets.items():
        print(compared(name, images, trained, packaged))


if __name__ == "__main__":
    main()
