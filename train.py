"""Sculpt a volume: python train.py [--config NAME] [--KEY VALUE ...]; --help lists every key."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("train")
