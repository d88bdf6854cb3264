"""What a run leaves on disk: whole files, one writer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mnist3d.errors import RunError
from mnist3d.storage.atomic import write_atomically
from mnist3d.storage.environment import environment
from mnist3d.storage.run_directory import RunDirectory, latest_run


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
        "import sys; from mnist3d.run_directory import *\n"
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
    with pytest.raises(RunError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_can_be_read_by_others(tmp_path):
    previous = os.umask(0o022)
    try:
        assert write_atomically(tmp_path / "file", b"").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(previous)


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
    with pytest.raises(RunError, match=r"python train\.py"):
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
