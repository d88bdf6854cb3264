"""Hostile files: whatever a file holds, the command that reads it ends as one line and exit code 2, or works.

    python tests/faults/files.py                     300 of them, some minutes of one core
    python tests/faults/files.py --seed 1 --only 17  one of them, and what the command says

Linux only. For each place where a command reads somebody's file, a valid one is damaged: bytes, lengths, numbers in
its header, what an archive holds; or it is exchanged for a bomb, another kind of file, a pipe or a link.
"""

import gzip
import random
import shutil
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hostile import KINDS, damage
from verdicts import arguments_of, judge
from watched import Case, in_fork, prepared, removed, scratch_folder

TINY = ["--trainer.views=4", "--volume.resolution=8", "--renderer.image_size=12", "--scorecard.every=0"]
TINY += ["--viewer.enabled=false", "--trainer.max_steps=2"]
TOOLS = {  # of a run, or of a volume file
    "view": ["--snapshot", "views.png"],
    "orbit": ["--output", "strip.png", "--frames", "2", "--size", "16"],
    "voxels": ["--output", "voxels.npz"],
    "mesh": ["--output", "mesh.stl", "--level", "0.02"],
    "points": ["--output", "points.ply", "--count", "50"],
    "page": ["--output", "page.html"],
    "plot": ["--output", "run.png"],
}
RESUMED = ["train", "--resume", "run", "--trainer.max_steps", "4", "--viewer.enabled", "false"]
NEW = ["--run_dir", "new"]
READS: dict[str, list[list[str]]] = {  # a file, and commands that read it; TOOL stands for each of them
    "run/config.yaml": [["TOOL", "run"], RESUMED],
    "run/volume.safetensors": [["TOOL", "run"], ["TOOL", "run/volume.safetensors"], RESUMED],
    "run/resume.pt": [RESUMED],
    "run/stats.jsonl": [["plot", "run", "--output", "run.png"], RESUMED],
    "hash_run/volume.safetensors": [["TOOL", "hash_run"]],
    "volume.pt": [["TOOL", "volume.pt"]],
    "mine.yaml": [["train", "--config", "mine.yaml", *NEW], ["train", "--config", "mine.yaml", "--print_config"]],
    "keyframes.yaml": [["orbit", "run", *TOOLS["orbit"], "--path", "keyframes.yaml"]],
    "heart.png": [["train", *TINY, "--targets.views", "[{image: heart.png}]", "--adversarial.weight", "0", *NEW]],
}
PICTURES = [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp"]
READS |= {
    f"pictures/picture{suffix}": [["train", *TINY, "--data.name=images", "--data.path=pictures", *NEW]]
    for suffix in PICTURES
}
READS |= {
    f"{folder}/train-{name}-ubyte{end}": [["train", *TINY, "--data.name=idx", f"--data.path={folder}", *NEW]]
    for folder, end in (("idx", ""), ("idx_gz", ".gz"))
    for name in ("images-idx3", "labels-idx1")
}
WRITTEN = [".npz", ".nrrd", ".nii.gz", ".mrc", ".vti", ".vdb"]  # by mnist3d; the others are made from arrays
MADE = [".npy", ".nhdr", ".nii", ".hdr", ".img", ".mrc.gz", ".map", ".ccp4"]
READS |= {
    f"voxels{suffix}": [["train", *TINY, "--start_from", f"voxels{suffix}", *NEW]] for suffix in [*WRITTEN, *MADE]
}
FOUND = ["--steps", "2", "--viewer.enabled", "false", "--output"]
READS |= {
    f"stack{suffix}": [["reconstruct", f"stack{suffix}", "--poses", "stack.star", *FOUND, "new"]]
    for suffix in (".mrcs", ".npy", ".tif")
}
READS |= {
    f"stack{suffix}": [["reconstruct", "stack.mrcs", "--poses", f"stack{suffix}", *FOUND, "new"]]
    for suffix in (".csv", ".star")
}
BEGUN = ["reconstruct", "stack.mrcs", "--start", "voxels.npz", *FOUND, "found"]
STATE = "found/state.safetensors"
READS |= {"half.mrc": [["fsc", "half.mrc", "voxels.npz"]], STATE: [[*BEGUN, "--resume"]]}


def main() -> int:
    """The exit code."""
    options = arguments_of(__doc__)
    with scratch_folder("files-") as scratch:
        valid = scratch / "valid"
        valid.mkdir()
        prepare(valid)
        if options.count >= len(READS):  # a short pass is to be short
            prepared(valid, "mnist3d", *BEGUN)
            prove(scratch)
        else:
            del READS[STATE]
        others = {name: (valid / name).read_bytes() for name in READS}
        return judge(options, options.count, partial(make_case, options.seed, scratch, others), scratch)


def prepare(folder: Path) -> None:
    """A valid file of each kind."""
    import numpy as np
    from PIL import Image

    train = [word for word in TINY if "max_steps" not in word]
    prepared(folder, "train.py", *train, "--trainer.max_steps=2", "--run_dir", "run")
    small = ["--volume.num_levels=2", "--volume.hidden_dim=8", "--volume.log2_hashmap_size=6"]
    others = [word for word in TINY if not word.startswith("--volume")]
    prepared(folder, "train.py", *others, "--volume=HashGrid", *small, "--run_dir", "hash_run")
    # Once before what is measured: in a fresh clone the kernels are compiled now.
    prepared(folder, "inference.py", "run", "--snapshot", "views.png")
    prepared(folder, "tools/export_mesh.py", "run", "--output", "mesh.stl", "--level", "0.02")
    generator = np.random.default_rng(0)
    grid = generator.random((8, 8, 8), np.float32)
    in_fork(partial(_voxel_files, folder, grid))
    in_fork(partial(_torch_volume, folder / "volume.pt"))
    picture = generator.integers(0, 256, (24, 24), np.uint8)
    picture[:4] = 0
    Image.fromarray(picture).save(folder / "heart.png")
    (folder / "pictures").mkdir()
    for suffix in PICTURES:
        Image.fromarray(picture).save(folder / "pictures" / f"picture{suffix}")
    for number in range(4):
        Image.fromarray(255 - picture).save(folder / "pictures" / f"other{number}.png")
    for name, end, pack in (("idx", "", bytes), ("idx_gz", ".gz", gzip.compress)):
        (folder / name).mkdir()
        images = struct.pack(">HBBIII", 0, 8, 3, 20, 12, 12) + generator.integers(0, 256, 20 * 144, np.uint8).tobytes()
        labels = struct.pack(">HBBI", 0, 8, 1, 20) + bytes(number % 4 for number in range(20))
        (folder / name / f"train-images-idx3-ubyte{end}").write_bytes(pack(images))
        (folder / name / f"train-labels-idx1-ubyte{end}").write_bytes(pack(labels))
    prepared(folder, "mnist3d", "project", "run", "--views", "12", "--size", "8", "--output", "stack.mrcs")
    in_fork(partial(_stacks, folder))
    lines = "".join(f"{word[2:].partition('=')[0]}: {word.partition('=')[2]}\n" for word in TINY)
    more = "targets:\n  views:\n    - {azimuth: 10, elevation: 5, digit: 3}\n    - {text: A}\nseed: 3\n"
    (folder / "mine.yaml").write_text(lines + more)
    (folder / "keyframes.yaml").write_text(
        "- {azimuth: 0}\n- {azimuth: 120, elevation: 20}\n- {azimuth: 240, roll: 10}\n"
    )


def prove(scratch: Path) -> None:
    """That each file is read as it is: else a refusal of a damaged one would say nothing."""
    for name in READS:
        for number, (command, *arguments) in enumerate(READS[name]):
            folder = scratch / "proof"
            shutil.copytree(scratch / "valid", folder)
            tool = list(TOOLS)[number] if command == "TOOL" else command
            prepared(folder, "mnist3d", tool, *arguments, *(TOOLS[tool] if command == "TOOL" else []))
            removed(folder)


def _voxel_files(folder: Path, grid: Any) -> None:
    """Some as mnist3d writes them, the others as their libraries do."""
    import mrcfile
    import nibabel
    import nrrd
    import numpy as np

    from mnist3d.export import export_voxels
    from mnist3d.volumes import VoxelGrid

    for suffix in WRITTEN:
        export_voxels(VoxelGrid(8), folder / f"voxels{suffix}")
    for path in folder.glob("*_absorbance.*"):
        path.unlink()  # read beside each, and not what is damaged here
    np.save(folder / "voxels.npy", grid)
    nrrd.write(str(folder / "voxels.nhdr"), grid, detached_header=True)
    nibabel.save(nibabel.Nifti1Image(grid, np.eye(4)), folder / "voxels.nii")  # type: ignore[attr-defined]
    nibabel.save(nibabel.Nifti1Pair(grid, np.eye(4)), folder / "voxels.img")  # type: ignore[attr-defined]
    for suffix, packed in ((".mrc.gz", "gzip"), (".map", None), (".ccp4", None)):
        with mrcfile.new(folder / f"voxels{suffix}", compression=packed) as file:
            file.set_data(grid)


def _stacks(folder: Path) -> None:
    """The same images in other files, and a volume of any sign."""
    import mrcfile
    import numpy as np
    import tifffile

    images = np.asarray(mrcfile.read(folder / "stack.mrcs"))
    np.save(folder / "stack.npy", images)
    tifffile.imwrite(folder / "stack.tif", images)
    with mrcfile.new(folder / "half.mrc") as file:
        file.set_data(images[:8] - images.mean())


def _torch_volume(path: Path) -> None:
    """As the first 3DMNIST wrote it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn((8, 8, 8, 1), generator=generator) for name in ("absorbance", "attenuation")}
    torch.save(values, path)


def make_case(seed: int, scratch: Path, others: dict[str, bytes], number: int) -> Case:
    """The case of a number, always the same, in a new folder.

    Args:
        seed: of all cases.
        scratch: holds the valid files.
        others: the contents of all valid files.
        number: of the case; all places come in turn.
    """
    draw = random.Random(f"{seed}/{number}")
    folder = scratch / f"case{number}"
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(scratch / "valid", folder)
    name = list(READS)[number % len(READS)]
    kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
    command, *arguments = draw.choice(READS[name])
    if command == "TOOL":
        command = draw.choice(list(TOOLS))
        arguments = [*arguments, *TOOLS[command]]
    what = f"{name}: {damage(draw, folder / name, kind, others)}"
    return Case(number, _row(name), "mnist3d", [command, *arguments], folder, what, long=True, small=True)


def _row(name: str) -> str:
    """The row of the table that a file belongs to."""
    if name.startswith("voxels"):
        return name.removeprefix("voxels")
    return name.removeprefix("idx_gz/").removeprefix("idx/").removeprefix("pictures/")


if __name__ == "__main__":
    sys.exit(main())
