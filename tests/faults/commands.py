"""Bad command lines: each must end as one line on stderr and exit code 2, or be a good one after all.

    python tests/faults/commands.py                     300 of them, some minutes of one core
    python tests/faults/commands.py --seed 1 --only 17  one of them, and what it says

Linux only. Valid command lines of every command, and of every program of a clone, are made wrong: flags and values that
do not exist, that are missing, too large, no numbers, no text, not YAML, no files; flags given twice or against each
other.
"""

import math
import os
import random
import shutil
import socket
import string
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from command_words import (
    CLASSES,
    CONTRADICTIONS,
    LARGE,
    NO_NUMBERS,
    NO_YAML,
    PATHS,
    SMALL,
    TEXTS,
    WRONG_TYPES,
)
from verdicts import arguments_of, judge
from watched import ROOT, Case, in_fork, prepared, scratch_folder

TINY = {
    "trainer.views": "4",
    "trainer.max_steps": "3",
    "volume.resolution": "8",
    "renderer.image_size": "12",
    "scorecard.every": "0",
    "viewer.enabled": "false",
}
NO_PAGE = ["--viewer.enabled", "false"]
HASHED = ["--volume", "HashGrid", "--volume.bake_resolution", "8", "--volume.num_levels", "2"]
VALID = {  # what each command is asked for, before it is made wrong; RUN is a finished run
    "train": [word for key, value in TINY.items() for word in (f"--{key}", value)] + ["--run_dir", "new"],
    "view": ["RUN", "--snapshot", "views.png", "--port", "0", "--host", "127.0.0.1"],
    "orbit": ["RUN", "--output", "orbit.png", "--frames", "3", "--size", "16", "--path", "tilt", "--seed", "1"],
    "voxels": ["RUN", "--output", "voxels.npz", "--resolution", "8", "--voxel_size_mm", "0.5"],
    "mesh": ["RUN", "--output", "mesh.stl", "--resolution", "8", "--level", "0.02", "--size_mm", "20"],
    "points": ["RUN", "--output", "points.ply", "--count", "50", "--min_distance_mm", "0.5", "--size_mm", "20"],
    "page": ["RUN", "--output", "page.html", "--resolution", "8", "--title", "A page"],
    "plot": ["RUN", "--output", "run.png"],
    "score": ["RUN", "--views", "2", "--output", "scores"],
    "presets": ["letters"],
    "project": ["RUN", "--output", "images.mrcs", "--views", "3", "--size", "8", "--snr", "1", "--max_shift", "1"],
    "reconstruct": ["stack.mrcs", "--poses", "stack.csv", "--output", "found", "--steps", "2", *NO_PAGE, *HASHED],
    "fsc": ["RUN", "voxels.npz", "--output", "curve.csv", "--pixel_size", "1.2"],
}
SHARE = {"train": 10, "view": 3, "orbit": 4, "voxels": 3, "mesh": 3, "points": 2, "page": 2, "plot": 2}
SHARE |= {"score": 1, "presets": 1, "project": 2, "reconstruct": 4, "fsc": 2}
MAKES_LONG = ("huge number", "contradiction", "flags twice", "any key, any value")


def main() -> int:
    """The exit code."""
    options = arguments_of(__doc__)
    with scratch_folder("commands-") as scratch:
        prepare(scratch)
        return judge(options, options.count, partial(make_case, options.seed, scratch), scratch)


def prepare(scratch: Path) -> None:
    """A finished run and trained classifiers, which no case changes."""
    tiny = [f"--{key}={value}" for key, value in TINY.items() if key != "trainer.max_steps"]
    prepared(scratch, "train.py", *tiny, "--trainer.max_steps", "3", "--run_dir", scratch / "run")
    prepared(scratch, "tools/export_voxels.py", scratch / "run", "--output", scratch / "voxels.npz")
    images = ["--views", "12", "--size", "8", "--output", scratch / "stack.mrcs"]
    prepared(scratch, "mnist3d", "project", scratch / "run", *images)
    in_fork(_trained_classifiers)


def _trained_classifiers() -> None:
    """Those of the tests into the cache: to train them would take a minute of each case that scores."""
    from mnist3d.data.images import load_images
    from mnist3d.data.options import DataOptions
    from mnist3d.evaluation import classifiers

    held_out = load_images(DataOptions(), int(TINY["renderer.image_size"]), "held_out")
    wanted = classifiers.prepare(held_out.images, held_out.labels, held_out.class_names, None, classifiers.STEPS)
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "data" / "classifiers.safetensors", wanted.path)


def make_case(seed: int, scratch: Path, number: int) -> Case:
    """The case of a number, always the same, in a new folder with files that are none.

    Args:
        seed: of all cases.
        scratch: holds the run that they start from.
        number: of the case.
    """
    from mnist3d.cli.program import COMMANDS
    from mnist3d.invocation import PROGRAMS

    draw = random.Random(f"{seed}/{number}")
    folder = make_folder(scratch, number)
    if number % 4 == 3:  # each of them in turn
        command, wrong = CONTRADICTIONS[number // 4 % len(CONTRADICTIONS)]
        base = VALID[command][: VALID[command].index("--run_dir")] if command == "train" and "RUN" not in wrong else []
        kind, arguments = "contradiction", [*base, *wrong]
        if command == "train" and "RUN" not in wrong:
            arguments += ["--run_dir", "new"]
    else:
        command = draw.choices(list(SHARE), list(SHARE.values()))[0]
        kind = draw.choices(list(MUTATIONS), [4 if mutate is any_key else 1 for mutate in MUTATIONS.values()])[0]
        mutate = MUTATIONS[kind]
        arguments = mutate(draw, command, list(VALID[command]))
    arguments = ["run" if word == "RUN" else word for word in arguments]
    arguments = [word[:110_000].replace("\0", "") for word in arguments]  # more, and no process gets
    program = PROGRAMS[command] if command in PROGRAMS and draw.random() < 0.4 else "mnist3d"
    if program == "mnist3d":
        name = typo(draw, command) if kind == "typing error" and draw.random() < 0.2 else command
        arguments = [name, *arguments]
        kind = kind if name in COMMANDS else "no such command"
    long = kind in MAKES_LONG or command == "score"
    return Case(number, kind, program, arguments, folder, long=long)


def make_folder(scratch: Path, number: int) -> Path:
    """A folder that holds a run, and all that is no file."""
    folder = scratch / f"case{number}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    shutil.copytree(scratch / "run", folder / "run")
    for name in ("voxels.npz", "stack.mrcs", "stack.csv", "stack.star"):
        shutil.copy(scratch / name, folder)
    (folder / "folder").mkdir()
    (folder / "folder.yaml").mkdir()
    (folder / "folder.png").mkdir()
    for name in ("pipe", "pipe.yaml"):
        os.mkfifo(folder / name)
    with socket.socket(socket.AF_UNIX) as end:
        before = os.getcwd()
        os.chdir(folder)  # the path of a socket must be short
        end.bind("socket")
        os.chdir(before)
    (folder / "file").write_text("text")
    (folder / "empty.yaml").touch()
    (folder / "binary.yaml").write_bytes(bytes(range(256)) * 8)
    (folder / "latin1.yaml").write_bytes("seed: 1 # häßlich".encode("latin-1"))
    for name, target in (
        ("loop.yaml", "loop.yaml"),
        ("dangling.yaml", "nowhere"),
        ("to_pipe.yaml", "pipe"),
        ("to_zero.yaml", "/dev/zero"),
    ):
        (folder / name).symlink_to(target)
    return folder


def flags(command: str) -> list[str]:
    """Every flag of a command, those of all volumes too."""
    from importlib import import_module

    from mnist3d.cli.flags import full_parser
    from mnist3d.volumes import OWN_VOLUMES, VoxelGrid

    module = import_module(f"mnist3d.cli.{command}")
    train = command == "train"
    parser = full_parser(VoxelGrid, [], passed_over=[*OWN_VOLUMES.values()]) if train else module.build_parser()
    found = {text for action in parser._actions for text in action.option_strings if text.startswith("--")}
    return sorted(found - {"--help"}) or ["--help"]


def values_of(words: list[str]) -> list[int]:
    """Where the values of flags stand, and the arguments without a flag."""
    return [place for place, word in enumerate(words) if not word.startswith("--")]


def unknown_flag(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A flag of no command."""
    name = "".join(draw.choices(string.ascii_lowercase + "._-", k=draw.randint(1, 12)))
    words[draw.randint(0, len(words)) :] = draw.choice(
        [[f"--{name}"], [f"--{name}=1"], [f"--{name}", "1"], [f"-{name}"]]
    )
    return words


def typing_error(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A flag or a word with a letter less, more or exchanged."""
    place = draw.randrange(len(words))
    words[place] = typo(draw, words[place])
    return words


def typo(draw: random.Random, word: str) -> str:
    """A word typed wrongly."""
    place = draw.randrange(max(1, len(word)))
    rest = draw.choice(
        [word[place + 1 :], draw.choice(string.ascii_letters) + word[place:], word[place : place + 1] * 2]
    )
    return word[:place] + rest


def missing_value(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A flag without what belongs to it, or no arguments."""
    if draw.random() < 0.1:
        return []
    del words[draw.choice(values_of(words))]
    return words


def another_value(pool: list[str], draw: random.Random, command: str, words: list[str]) -> list[str]:
    """One of the values is another."""
    place, value = draw.choice(values_of(words)), draw.choice(pool)
    previous = words[place - 1] if place else ""
    if previous.startswith("--") and draw.random() < 0.5:
        words[place - 1 : place + 1] = [f"{previous}={value}"]
    else:
        words[place] = value
    return words


def any_key(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A flag that exists, with any of all values."""
    pool = draw.choice([LARGE, NO_NUMBERS, WRONG_TYPES, SMALL, NO_YAML, TEXTS, PATHS, CLASSES])
    flag, value = draw.choice(flags(command)), draw.choice(pool)
    return [*words, *draw.choice([[f"{flag}={value}"], [flag, value]])]


def long_value(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A value of 100,000 letters."""
    piece = draw.choice(["x", "9", "[", "a.", "ä", "0,", "{a: 1},", "../", "-", " "])
    flag = draw.choice(flags(command))
    return [*words, f"{flag}={piece * math.ceil(100_000 / len(piece.encode()))}"]


def twice(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A flag once more, with another value."""
    again = [place for place, word in enumerate(words) if word.startswith("--")]
    if not again:
        return [*words, *words]
    place = draw.choice(again)
    value = draw.choice(draw.choice([LARGE, NO_NUMBERS, WRONG_TYPES, SMALL, TEXTS]))
    return [*words, words[place], value, *draw.choice([[], words[place : place + 2]])]


def shuffled(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """The same words in another order."""
    draw.shuffle(words)
    return words


def yaml_section(draw: random.Random, command: str, words: list[str]) -> list[str]:
    """A whole section of the configuration given at once."""
    if command != "train":
        return any_key(draw, command, words)
    section = draw.choice(["trainer", "data", "targets", "viewer", "renderer", "volume", "objectives", "discriminator"])
    pool = draw.choice([NO_YAML, WRONG_TYPES, [f"{{{key}: {value}}}" for key in ("views", "name") for value in TEXTS]])
    return [*words, f"--{section}", draw.choice(pool)]


Mutation = Callable[[random.Random, str, list[str]], list[str]]
MUTATIONS: dict[str, Mutation] = {
    "unknown flag": unknown_flag,
    "typing error": typing_error,
    "missing value": missing_value,
    "wrong type": partial(another_value, WRONG_TYPES),
    "out of range": partial(another_value, SMALL),
    "huge number": partial(another_value, LARGE),
    "no number": partial(another_value, NO_NUMBERS),
    "no YAML": partial(another_value, NO_YAML),
    "odd text": partial(another_value, TEXTS),
    "no such file": partial(another_value, PATHS),
    "no such class": lambda draw, command, words: [*words, "--volume", draw.choice(CLASSES)],
    "any key, any value": any_key,
    "100,000 letters": long_value,
    "flags twice": twice,
    "words in another order": shuffled,
    "a whole section": yaml_section,
}

if __name__ == "__main__":
    sys.exit(main())
