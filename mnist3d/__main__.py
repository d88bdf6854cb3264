"""`python -m mnist3d`, the same as the command `mnist3d`."""

from .cli.program import mnist3d_command

if __name__ == "__main__":
    mnist3d_command()
