"""Sculpt a volume: python train.py [--config configs/NAME.yaml] [--KEY VALUE ...]; --help lists every key."""

from mnist3d.session import train_command

if __name__ == "__main__":
    train_command()
