"""Write a sculpture's surface as a mesh, and say whether it can be printed."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("mesh")
