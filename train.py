"""Sculpt a volume: python train.py [--config configs/NAME.yaml] [--KEY VALUE ...]; --help lists every key."""

import os

# Before torch is imported: waiting OpenMP threads sleep instead of spinning, which costs nothing on a free machine
# and saves a factor of ten on one that does something else as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mnist3d.cli.train import train_command

if __name__ == "__main__":
    train_command()
