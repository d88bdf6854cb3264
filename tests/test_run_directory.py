"""What a run leaves on disk: whole files, one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist3d.errors import RunError, WriteError
from mnist3d.storage import RunDirectory, environment, latest_run, whole_files, write_atomically
from mnist3d.storage.last_two import write_newest


def test_folders_are_named_by_time_and_never_shared(tmp_path):
    first = RunDirectory.create(None, tmp_path, "digits")
    second = RunDirectory.create(None, tmp_path, "digits")
    assert first.path != second.path
    assert first.path.name.split("-")[2] == "digits"
    first.release()
    second.release()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.create(tmp_path, "runs", "digits")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(RunError, match="is a file"):
        RunDirectory.create(tmp_path / "notes.txt", "runs", "digits")


def test_another_process_is_kept_out(tmp_path):
    run = RunDirectory.create(tmp_path / "run", tmp_path, "digits")
    code = (
        "import sys; from mnist3d.errors import RunError; from mnist3d.storage import RunDirectory\n"
        "try: RunDirectory(sys.argv[1]).take()\n"
        "except RunError as error: print(error)\n"
        "else: print('taken')"
    )
    ask = [sys.executable, "-c", code, str(run.path)]
    assert "in use" in subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    run.release()
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "taken"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "file", b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    words = r"file: cannot be written \(No space left on device\); what was there before is unchanged"
    with pytest.raises(WriteError, match=words) as failed:
        write_atomically(path, b"new")
    assert "\n" not in str(failed.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """In the order that a power cut asks for: the new files, the second names of the old, the names of the new."""
    write_newest(tmp_path, {"volume.safetensors": b"1", "resume.pt": b"1"})
    synced: list[int] = []  # what is on the disk, by its number there
    renamed: list[tuple[str, set[int]]] = []  # what takes a name, and what was on the disk until then
    fsync, replace, here = os.fsync, os.replace, tmp_path.stat().st_ino

    def noted_sync(number):
        synced.append(os.fstat(number).st_ino)
        fsync(number)

    def noted_rename(source, target):
        renamed.append((Path(target).name, set(synced)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    write_newest(tmp_path, {"volume.safetensors": b"2", "resume.pt": b"2"})
    new = {(tmp_path / name).stat().st_ino for name in ("volume.safetensors", "resume.pt")}
    old = ["volume.previous.safetensors", "resume.previous.pt"]
    assert [name for name, _ in renamed] == [*old, "resume.pt", "volume.safetensors"]
    assert all(new <= on_disk for _, on_disk in renamed)
    assert [here in on_disk for _, on_disk in renamed] == [False, False, True, True]  # the folder, with its new names
    assert synced[-1] == here


def test_whatever_else_fails_in_the_block_goes_on_as_it_is_and_leaves_nothing(tmp_path):
    def failing():
        with whole_files(tmp_path / "file") as folder:
            (folder / "file").write_bytes(b"half")
            raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written") as failed:
        write_atomically(tmp_path / "file" / "below", b"")
    assert "\n" not in str(failed.value)
    with pytest.raises(WriteError, match="cannot be made"):
        RunDirectory.create(tmp_path / "file" / "run", "runs", "digits")


def test_folders_are_made_and_files_can_be_read_by_others(tmp_path):
    """As the user's umask has it: no private mode of a temporary file stays."""
    for mask, mode in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)):
        previous = os.umask(mask)
        try:
            path = write_atomically(tmp_path / "new" / oct(mask), b"")
        finally:
            os.umask(previous)
        assert path.stat().st_mode & 0o777 == mode


def test_stats_that_cannot_be_written_are_one_line(tmp_path):
    with pytest.raises(WriteError, match=r"stats\.jsonl: cannot be written \(No such file or directory\)"):
        RunDirectory(tmp_path / "gone").append_stats({"step": 1})


def test_stats_survive_a_crash_and_are_cut_on_resume(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.read_stats() == []
    for step in (10, 20, 30):
        run.append_stats({"step": step})
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"step": 4')
    assert [record["step"] for record in run.read_stats()] == [10, 20, 30]
    run.cut_stats(20)
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [10, 20]


def test_pictures_are_png(tmp_path):
    path = RunDirectory(tmp_path).write_picture("views.png", np.zeros((4, 5), np.uint8))
    assert path == tmp_path / "pictures" / "views.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_latest_run(tmp_path):
    with pytest.raises(RunError, match=r"sculpt one first: mnist3d train"):
        latest_run(tmp_path)
    for age, name in ((200, "b"), (100, "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "volume.safetensors").touch()
        os.utime(tmp_path / name / "volume.safetensors", (1e9 - age, 1e9 - age))
    (tmp_path / "empty").mkdir()
    assert latest_run(tmp_path).name == "a"


def test_environment_names_versions_and_device():
    report = environment("cpu")
    assert report["device"] == "cpu"
    assert report["packages"]["torch"]
    json.dumps(report)
