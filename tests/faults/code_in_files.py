"""Code hidden in files: none of it runs, whatever the file is called and whoever reads it.

    python tests/faults/code_in_files.py

Linux only. Each file holds something that would write a file named `harmed` where a reader runs what it reads: pickles
in every archive that can carry one, YAML tags, class paths, entities of XML. The command that reads it must end as one
line and exit code 2, or read what is harmless in it, and leave no `harmed`.
"""

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from files import NEW, RESUMED, TINY, TOOLS
from verdicts import arguments_of, judge
from watched import Case, in_fork, prepared, scratch_folder

HARM = "touch harmed"
TAGS = [
    f"!!python/object/apply:os.system ['{HARM}']",
    f"!!python/object/new:os.system ['{HARM}']",
    "!!python/object/apply:builtins.eval [\"open('harmed', 'w')\"]",
    "!!python/module:harmful",
    "!!python/name:harmful.run ''",
    "!!python/object:harmful.Harm {}",
]
ENTITY = '<?xml version="1.0"?><!DOCTYPE VTKFile [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
PYTHON = "open('harmed', 'w').close()\nclass Harm:\n    pass\nrun = Harm\n"


class Harm:
    """Writes the file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (HARM,)


Writer = Callable[[Path], list[str]]


def main() -> int:
    """The exit code."""
    options = arguments_of(__doc__, count=len(CASES))
    with scratch_folder("code-") as scratch:
        valid = scratch / "valid"
        valid.mkdir()
        prepared(valid, "train.py", *TINY, "--run_dir", "run")
        # a module of that name can be imported from the working folder, so what imports it is seen
        (valid / "harmful.py").write_text(PYTHON)
        os.environ["PYTHONPATH"] = os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])
        sys.path.insert(0, "")
        proved(scratch)
        count = min(options.count, len(CASES))
        return judge(options, count, lambda number: make_case(scratch, number * len(CASES) // count), scratch, harmed)


def proved(scratch: Path) -> None:
    """That the pickle and the module do harm where they are let: else nothing here could fail."""
    folder = scratch / "proof"
    folder.mkdir()
    (folder / "harmful.py").write_text(PYTHON)

    def unpickle() -> None:
        os.chdir(folder)
        pickle.loads(pickle.dumps(Harm()))

    def import_it() -> None:
        os.chdir(folder)
        __import__("harmful")

    for way in (unpickle, import_it):
        in_fork(way)
        (folder / "harmed").unlink()


def harmed(case: Case) -> list[str]:
    """What the case did that it must not."""
    return ["code ran"] if (case.folder / "harmed").exists() else []


def make_case(scratch: Path, number: int) -> Case:
    """The case of a number, in a new folder."""
    name, write = list(CASES.items())[number]
    folder = scratch / f"case{number}"
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(scratch / "valid", folder)

    def written() -> None:
        os.chdir(folder)
        (folder / "arguments").write_text(json.dumps(write(folder)))

    in_fork(written)  # some are written with torch
    arguments = json.loads((folder / "arguments").read_text())
    return Case(number, name.partition(":")[0], "mnist3d", arguments, folder, name, small=True)


def start(name: str) -> list[str]:
    """The command that starts from a voxel file."""
    return ["train", *TINY, "--start_from", name, *NEW]


def torch_archive(
    name: str, command: list[str], folder: Path, *, legacy: bool = False, inside: bool = False
) -> list[str]:
    """`torch.save` of the harm, alone or beside tensors."""
    import torch

    tensors = {"attenuation": torch.zeros(4, 4, 4, 1), "absorbance": torch.zeros(4, 4, 4, 1)}
    content = {**tensors, "volume": Harm(), "steps_done": 1} if inside else Harm()
    torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)
    return command


def bare_pickle(name: str, command: list[str], folder: Path) -> list[str]:
    """A pickle under a name that promises something else."""
    (folder / name).write_bytes(pickle.dumps(Harm()))
    return command


def object_array(name: str, folder: Path) -> list[str]:
    """NumPy's files of Python objects, which are pickles."""
    import numpy as np

    array = np.empty((2, 2, 2), object)
    array[:] = Harm()
    if name.endswith(".npz"):
        np.savez(folder / name, attenuation=array)
    else:
        np.save(folder / name, array, allow_pickle=True)
    return start(name)


def pickle_in_npz(folder: Path) -> list[str]:
    """A member that is a pickle and no array."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("attenuation.npy", pickle.dumps(Harm()))
    (folder / "x.npz").write_bytes(buffer.getvalue())
    return start("x.npz")


def yaml(name: str, text: str, command: list[str], folder: Path) -> list[str]:
    """A YAML file with one more line."""
    path = folder / name
    path.write_text((path.read_text() if path.exists() else "") + text + "\n")
    return command


def class_in_config(key: str, command: list[str], folder: Path) -> list[str]:
    """A run whose configuration names a class of somebody else's."""
    import yaml as parser

    path = folder / "run" / "config.yaml"
    values = parser.safe_load(path.read_text())
    values[key] = {"class_path": "harmful.Harm", "init_args": {}}
    if key == "objectives":
        values[key] = [values[key]]
    path.write_text(parser.safe_dump(values))
    return command


def class_in_volume(class_path: str, command: list[str], folder: Path) -> list[str]:
    """A volume file whose metadata names it."""
    path = folder / "run" / "volume.safetensors"
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = content[8:begin].replace(b"mnist3d.volumes.VoxelGrid", class_path.encode())
    if class_path.encode() not in header:
        raise ValueError("the metadata has another form than this script knows")
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[begin:])
    return command


def xml_entity(folder: Path) -> list[str]:
    """A .vti that asks its reader for another file."""
    from mnist3d.export import export_voxels
    from mnist3d.volumes import VoxelGrid

    export_voxels(VoxelGrid(4), folder / "x.vti")
    content = (folder / "x.vti").read_bytes()
    body = content[content.index(b"<VTKFile") :].replace(b"attenuation", b"&x;", 1)
    (folder / "x.vti").write_bytes(ENTITY.encode() + body)
    return start("x.vti")


def of_tool(name: str, *given: str) -> list[str]:
    """A tool and what it opens."""
    return [name, *given, *TOOLS[name]]


VIEW, ORBIT, VOLUME_PT = of_tool("view", "run"), of_tool("orbit", "run"), of_tool("view", "volume.pt")
CASES: dict[str, Writer] = {
    "pickle: resume.pt": partial(torch_archive, "run/resume.pt", RESUMED),
    "pickle: resume.pt, beside tensors": partial(torch_archive, "run/resume.pt", RESUMED, inside=True),
    "pickle: resume.pt, torch's older form": partial(torch_archive, "run/resume.pt", RESUMED, legacy=True),
    "pickle: resume.pt, no archive": partial(bare_pickle, "run/resume.pt", RESUMED),
    "pickle: volume.pt": partial(torch_archive, "volume.pt", VOLUME_PT),
    "pickle: volume.pt, beside tensors": partial(torch_archive, "volume.pt", VOLUME_PT, inside=True),
    "pickle: volume.pt, torch's older form": partial(torch_archive, "volume.pt", VOLUME_PT, legacy=True),
    "pickle: volume.pt, no archive": partial(bare_pickle, "volume.pt", VOLUME_PT),
    "pickle: volume.safetensors": partial(bare_pickle, "run/volume.safetensors", VIEW),
    "pickle: .npy of objects": partial(object_array, "x.npy"),
    "pickle: .npz of objects": partial(object_array, "x.npz"),
    "pickle: member of an .npz": pickle_in_npz,
    **{
        f"pickle: {end}": partial(bare_pickle, f"x{end}", start(f"x{end}")) for end in (".npy", ".npz", ".nrrd", ".vdb")
    },
    **{f"YAML tag: run, {tag[:28]}": partial(yaml, "run/config.yaml", f"seed: {tag}", VIEW) for tag in TAGS[:3]},
    **{f"YAML tag: resume, {tag[:28]}": partial(yaml, "run/config.yaml", f"seed: {tag}", RESUMED) for tag in TAGS[3:]},
    **{
        f"YAML tag: --config, {tag[:28]}": partial(yaml, "m.yaml", f"seed: {tag}", ["train", "--config=m.yaml", *NEW])
        for tag in TAGS
    },
    **{
        f"YAML tag: flag, {tag[:28]}": lambda _, tag=tag: ["train", "--trainer", f"{{views: {tag}}}", *NEW]
        for tag in TAGS
    },
    "YAML tag: keyframes": partial(yaml, "k.yaml", f"- {{azimuth: {TAGS[0]}}}", [*ORBIT, "--path=k.yaml"]),
    "class path: volume of a run": partial(class_in_config, "volume", VIEW),
    "class path: volume of a run, resumed": partial(class_in_config, "volume", RESUMED),
    "class path: objective of a run, resumed": partial(class_in_config, "objectives", RESUMED),
    "class path: volume.safetensors": partial(class_in_volume, "harmful.Harm", VIEW),
    "class path: volume.safetensors, os.system": partial(class_in_volume, "os.system", VIEW),
    "XML entity: .vti": xml_entity,
}

if __name__ == "__main__":
    sys.exit(main())
