"""Exact resumes: a run that is stopped and resumed ends with the same bits as one that is not.

    python tests/faults/resumes.py                    64 runs over all presets and volumes, some minutes of one core
    python tests/faults/resumes.py --seed 1 --only 17

Linux only. Each case is a preset, a volume, a length and the steps at which it is stopped; it is run through, then run
once more with the stops, each time in a process of its own. Compared are the weights in `volume.safetensors`, and every
tensor of `resume.pt`: weights, averages, optimisers, generators, what objectives remember.
"""

import json
import random
import sys
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from verdicts import arguments_of
from watched import Case, in_fork, run_forked, scratch_folder

TINY = ["--trainer.max_minutes=null", "--trainer.views=4", "--renderer.image_size=12", "--data.limit=60"]
TINY += ["--targets.views_per_step=12", "--scorecard.every=0", "--viewer.enabled=false"]
VOLUMES: dict[str, list[str]] = {
    "the preset's": [],
    "VoxelGrid": ["--volume=VoxelGrid", "--volume.resolution=16", "--volume.grow_at=[0.4]"],
    "VoxelGrid, no growth": ["--volume=VoxelGrid", "--volume.resolution=[10, 12, 14]", "--volume.grow_at=[]"],
    "HashGrid": [
        "--volume=HashGrid",
        "--volume.num_levels=3",
        "--volume.levels_at=[3]",
        "--volume.implementation=torch",
    ],
    "HashGrid, baked": ["--volume=HashGrid", "--volume.bake_resolution=16", "--volume.grow_at=[0.5]"],
    "VMGrid": ["--volume=VMGrid", "--volume.resolution=14", "--volume.components=3"],
    "TriPlane": ["--volume=TriPlane", "--volume.resolution=10", "--volume.channels=4"],
    "TriPlane, baked": ["--volume=TriPlane", "--volume.bake_resolution=16", "--volume.grow_at=[0.5]"],
    "FourierMLP": ["--volume=FourierMLP", "--volume.hidden_dim=16"],
    "FourierMLP, sine, baked": ["--volume=FourierMLP", "--volume.activation=sine", "--volume.bake_resolution=16"],
}
SMALL = {  # of the presets that have a volume of their own
    "VoxelGrid": ["--volume.resolution=16"],
    "HashGrid": ["--volume.log2_hashmap_size=8"],
    "VMGrid": ["--volume.resolution=14"],
    "TriPlane": ["--volume.resolution=10"],
    "FourierMLP": ["--volume.hidden_dim=16"],
    "SparseGrid": ["--volume.resolution=32"],
}
FROM_DISK = {"drawings": "drawings", "fashion": "idx"}  # presets whose images lie in a folder


@dataclass
class Resumed:
    """One case.

    Args:
        preset, volume: of `mnist3d presets`, of `VOLUMES`.
        stops: steps of each session but the last.
        arguments: of `train`, without its folder.
        again: of `train --resume`, what a user must say again.
    """

    preset: str
    volume: str
    stops: list[int]
    arguments: list[str]
    again: list[str]


def main() -> int:
    """The exit code."""
    options = arguments_of(__doc__, count=64)
    with scratch_folder("resumes-") as scratch:
        in_fork(partial(_images, scratch))
        failed, chosen = 0, range(options.count) if options.only is None else [options.only]
        rows = []
        for number in chosen:
            case = make_case(options.seed, scratch, number)
            wrong = differences(case, scratch / f"case{number}")
            failed += bool(wrong)
            rows.append({"number": number, **vars(case), "differences": wrong})
            state = "FAILED" if wrong else "same"
            print(
                f"{number:4} {case.preset:14} {case.volume:22} stops {case.stops} {state}",
                *wrong,
                sep="\n    ",
                flush=True,
            )
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1))
        print(f"{len(rows)} runs stopped and resumed, seed {options.seed}: {failed} ended with other bits")
    return 1 if failed else 0


def make_case(seed: int, scratch: Path, number: int) -> Resumed:
    """The case of a number: presets and volumes come in turn, all else is drawn."""
    from mnist3d.cli.parser import parse_command_line
    from mnist3d.cli.presets import preset_names

    draw = random.Random(f"{seed}/{number}")
    presets = preset_names()
    preset, volume = presets[number % len(presets)], list(VOLUMES)[number // len(presets) % len(VOLUMES)]
    path = [f"--data.path={scratch / FROM_DISK[preset]}"] if preset in FROM_DISK else []
    arguments = [f"--config={preset}", *TINY, *path, *VOLUMES[volume]]
    if volume == "the preset's":
        name = parse_command_line(arguments).config.volume["class_path"].rpartition(".")[2]
        arguments += SMALL[name]
    steps = draw.randint(5, 14)
    stops, left = [], steps
    for _ in range(draw.choice([1, 1, 2])):
        if left > 1:
            stops.append(draw.randint(1, left - 1))
            left -= stops[-1]
    arguments += [f"--trainer.max_steps={steps}", f"--seed={draw.randrange(1000)}"]
    return Resumed(preset, volume, stops, arguments, path)


def differences(case: Resumed, folder: Path) -> list[str]:
    """What the resumed run has other than the one that went through; nothing where all is well."""
    folder.mkdir()
    sessions = [["train", *case.arguments, "--run_dir=whole"]]
    first, *later = [*(f"--trainer.stop_after={steps}" for steps in case.stops), "--trainer.stop_after=null"]
    sessions.append(["train", *case.arguments, "--run_dir=parts", first])
    sessions += [["train", "--resume=parts", *case.again, stop] for stop in later]
    for session in sessions:
        run = Case(0, "session", "mnist3d", session, folder, undisturbed=True)
        outcome = run_forked(run)
        if outcome.code != 0:
            return [f"{run.line()}: exit code {outcome.code} {outcome.ended}: {outcome.stderr.strip()[-300:]}"]
    wrong = []
    for name, read in (("volume.safetensors", weights), ("resume.pt", tensors)):
        whole, parts = read(folder / "whole" / name), read(folder / "parts" / name)
        wrong += [f"{name}: {key} differs" for key in whole.keys() | parts.keys() if whole.get(key) != parts.get(key)]
    return sorted(wrong)


def weights(path: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a safetensors file, without the reader under test."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__")
    found = {
        name: content[begin + each["data_offsets"][0] : begin + each["data_offsets"][1]]
        for name, each in header.items()
    }
    if not found or not any(any(each) for each in found.values()):
        raise ValueError(f"{path}: holds nothing")
    return found


def tensors(path: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a checkpoint; the step, the seconds and other plain values are not among them."""
    with zipfile.ZipFile(path) as archive:
        found = {name.partition("/")[2]: archive.read(name) for name in archive.namelist() if "/data/" in name}
    if not found:
        raise ValueError(f"{path}: holds nothing")
    return found


def _images(folder: Path) -> None:
    """Drawings and an idx set."""
    import struct

    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    (folder / "idx").mkdir()
    (folder / "drawings").mkdir()
    images = np.zeros((40, 20, 20), np.uint8)
    images[:, 6:14, 6:14] = generator.integers(0, 256, (40, 8, 8))
    for part in ("train", "t10k"):
        head, labels = struct.pack(">HBBIII", 0, 8, 3, 40, 20, 20), bytes(number % 10 for number in range(40))
        (folder / "idx" / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / "idx" / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 40) + labels)
    for number in range(8):
        Image.fromarray(images[number]).save(folder / "drawings" / f"{number}.png")


if __name__ == "__main__":
    sys.exit(main())
