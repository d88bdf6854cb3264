"""Writes tests/data/classifiers.safetensors: classifiers with fixed weights for tests/test_scorecard.py.

    python tests/make_data.py

The one training whose result the tests read, so that what a network happens to learn on a machine decides
no test. The file is the run's own two classifiers, trained on the 5,000 digits' held-out part with the steps of a real
run, on one core, and rounded to float16: about 900 KB. Run it again
when an architecture of `mnist3d/evaluation/classifiers.py` changes; then look at the margins of the tests that read it.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import load_classifiers

CLASSIFIERS = Path(__file__).parent / "data" / "classifiers.safetensors"


def main() -> None:
    """Train the classifiers and write their weights."""
    torch.set_num_threads(1)  # sums in one order
    held_out = load_images(DataOptions(), 28, "held_out")
    with tempfile.TemporaryDirectory() as folder:
        classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names, folder)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in nn.ModuleList(classifiers.networks).state_dict().items()
    }
    CLASSIFIERS.parent.mkdir(exist_ok=True)
    save_file(weights, CLASSIFIERS)
    print(f"wrote {CLASSIFIERS.name}: {CLASSIFIERS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
