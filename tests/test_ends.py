"""How commands end when something ends them: a signal, a closed terminal, a full disk, no memory, kill -9."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fork_server import ForkServer

from mnist3d.errors import RunError, WriteError
from mnist3d.runs.signals import ECHO
from mnist3d.storage import RunDirectory, latest_run, whole_files, write_atomically
from mnist3d.storage.atomic import remove_litter
from mnist3d.storage.exhausted import out_of_memory, system_failure
from mnist3d.storage.own_files import append_line
from mnist3d.storage.run_directory import check_unused, complete

if os.name != "posix":
    pytest.skip("these faults are injected by POSIX means", allow_module_level=True)

ROOT = Path(__file__).parent.parent
TINY = "--trainer.views 4 --volume.resolution 8 --renderer.image_size 12 --data.limit 40 --viewer.enabled false"
TRAIN = ["train", *TINY.split(), "--discriminator.channels", "[4,8]", "--scorecard.every", "0"]
ENDLESS = [*TRAIN, "--trainer.max_steps", "1000000"]
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
WAIT = "import time, os, pathlib\ndef wait(name):\n open(name + '.here', 'w').close()\n"
WAIT += " while not os.path.exists(name + '.go'): time.sleep(.005)\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = ForkServer(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """A run of four steps."""
    run = tmp_path_factory.mktemp("finished") / "run"
    code, _, said = server.run(*TRAIN, "--trainer.max_steps", "4", "--run_dir", run)
    assert code == 0, said
    return run


def steps_of(run):
    """The step that a run's volume says it is of."""
    content = (run / "volume.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["mnist3d"])["step"]


def last_line(said):
    """The last line of stderr."""
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
def test_a_signal_stops_a_run_after_its_step_and_saves(server, tmp_path, number, code):
    running = server.start(*ENDLESS, "--run_dir", tmp_path / "run")
    running.until(lambda: "step 1 " in running.said())
    running.send(number)
    assert running.end() == code, running.said()
    said = running.said()
    assert "stopping after this step and saving" in said
    assert "go on with: mnist3d train --resume" in said
    assert "Traceback" not in said
    assert steps_of(tmp_path / "run") >= 1
    assert (tmp_path / "run" / "resume.pt").is_file()
    if code:
        assert last_line(said) == f"mnist3d train: stopped and saved by {number.name}"


BLOCKED_SAVE = f"""{WAIT}
from mnist3d.callbacks.checkpoints import Checkpoints
finish = Checkpoints.finish
def blocked(self, trainer):
    wait("save")
    finish(self, trainer)
Checkpoints.finish = blocked
"""


def test_a_signal_does_not_interrupt_the_save_and_a_closed_terminal_may_send_many(server, tmp_path):
    running = server.start(*TRAIN, "--trainer.max_steps=2", "--run_dir=run", patch=BLOCKED_SAVE, folder=tmp_path)
    running.until((tmp_path / "save.here").exists)
    running.send(signal.SIGHUP)
    running.until(lambda: "stopping" in running.said())
    time.sleep(1.2 * ECHO)
    running.send(signal.SIGHUP)
    (tmp_path / "save.go").touch()
    assert running.end() == 0, running.said()  # it was complete
    assert steps_of(tmp_path / "run") == 2


def test_a_second_signal_ends_at_once_but_its_echo_does_not(server, tmp_path):
    running = server.start(*ENDLESS, "--run_dir", "run", patch=BLOCKED_SAVE, folder=tmp_path)
    running.until(lambda: "step 1 " in running.said())
    running.send(signal.SIGTERM)
    running.send(signal.SIGTERM)  # as `timeout` does
    running.until((tmp_path / "save.here").exists)
    time.sleep(1.2 * ECHO)
    running.send(signal.SIGTERM)
    assert running.end() == 143
    assert last_line(running.said()) == "mnist3d train: ended by SIGTERM"
    assert not (tmp_path / "run" / "volume.safetensors").exists()


def test_what_nohup_ignores_stays_ignored(server, tmp_path):
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    running = server.start(*ENDLESS, "--run_dir", tmp_path / "run", patch=ignored)
    running.until(lambda: "step 1 " in running.said())
    running.send(signal.SIGHUP)
    running.send(signal.SIGTERM)
    assert running.end() == 143
    assert "SIGHUP" not in running.said()


BLOCKED = {
    "imports": f"{WAIT}\nimport mnist3d.cli.program as p\np._main_of = lambda name: wait('block')",
    "building": f"{WAIT}\nimport mnist3d.runs.building as b\nb.load_images = lambda *_: wait('block')",
    "a folder made": f"{WAIT}\nimport mnist3d.runs.building as b\nb.environment = lambda *_: wait('block')",
}


@pytest.mark.parametrize("where", BLOCKED)
@pytest.mark.parametrize("number", CODES)
def test_a_signal_during_the_start_is_one_line_and_leaves_no_folder(server, tmp_path, where, number):
    running = server.start(*ENDLESS, "--run_dir", "run", patch=BLOCKED[where], folder=tmp_path)
    running.until((tmp_path / "block.here").exists)
    running.send(number)
    assert running.end() == CODES[number]
    said = [line for line in running.said().splitlines() if not line.startswith("renderer.image_size")]
    assert said == [f"mnist3d train: {'interrupted' if number == signal.SIGINT else f'ended by {number.name}'}"]
    assert not (tmp_path / "run").exists()


def test_a_closed_terminal_saves(server, tmp_path):
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    running = server.start(*ENDLESS, "--run_dir", tmp_path / "run", err=name)
    os.close(theirs)
    running.until((tmp_path / "run" / "pictures" / "reals.png").exists)  # the first step is done
    os.close(ours)  # from now on every write fails with EIO
    running.send(signal.SIGHUP)
    assert running.end() == 129
    assert (tmp_path / "run" / "resume.pt").is_file()


def test_a_pipe_that_nobody_reads_any_more_ends_no_run(server, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    running = server.start(
        *TRAIN, "--trainer.max_steps=3", "--run_dir", tmp_path / "run", err=str(tmp_path / "pipe"),
        patch="import os, time\nwhile not os.path.exists('closed'): time.sleep(.005)", folder=tmp_path,
    )  # fmt: skip
    os.close(reader)
    (tmp_path / "closed").touch()
    assert running.end() == 0
    assert steps_of(tmp_path / "run") == 3


@pytest.mark.parametrize("number", CODES)
def test_an_export_that_is_ended_leaves_nothing_and_no_child(server, finished, tmp_path, number):
    patch = f"{WAIT}\nimport mnist3d.cli.orbit as o\nframes = o.orbit_frames\ndef some(*a, **k):\n"
    patch += " for n, frame in enumerate(frames(*a, **k)):\n  if n == 3: wait('block')\n  yield frame\n"
    patch += "o.orbit_frames = some"
    (tmp_path / "orbit.mp4").write_bytes(b"before")
    running = server.start("orbit", finished, "--size", "32", "--frames", "9", patch=patch, folder=tmp_path)
    running.until((tmp_path / "block.here").exists)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    encoders = children.read_text().split() if children.exists() else []
    running.send(number)
    assert running.end() == CODES[number]
    assert len(running.said().splitlines()) == 1
    assert not [pid for pid in encoders if Path(f"/proc/{pid}").exists()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["block.here", "orbit.mp4"]
    assert (tmp_path / "orbit.mp4").read_bytes() == b"before"


# What fails, as a condition on the name of a file that is put in its place or added to, once step 3 is done.
FULL = """
import errno, os
from mnist3d.training.trainer import Trainer
import mnist3d.storage.run_directory as r
step, replace, add, full = Trainer.step, os.replace, r.append_line, []
def noted(trainer):
    if trainer.steps_done == 3: full.append(1)
    return step(trainer)
def checked(name):
    if full and WHAT in str(name): raise OSError(errno.ENOSPC, "No space left on device")
os.replace = lambda a, b, **k: (checked(b), replace(a, b, **k))[1]
r.append_line = lambda path, line: (checked(path), add(path, line))[1]
Trainer.step = noted
"""


@pytest.mark.parametrize("what", ["pictures", "stats"])
def test_a_disk_too_full_for_a_picture_or_a_figure_ends_no_run(server, tmp_path, what):
    full = FULL.replace("WHAT", repr(what))
    code, out, said = server.run(*TRAIN, "--trainer.max_steps", "6", "--run_dir", tmp_path / "run", patch=full)
    assert code == 0, said
    assert said.count("No space left on device") == 1
    assert "the run goes on without it" in said
    assert "The sculpture lies in" in out
    assert steps_of(tmp_path / "run") == 6


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_the_run_goes_on(server, tmp_path):
    full, run = FULL.replace("WHAT", "'/resume.pt'"), tmp_path / "run"
    often = ["--trainer.save_every", "1steps", "--trainer.max_steps", "6", "--run_dir", run]
    code, out, said = server.run(*TRAIN, *often, patch=full)
    assert code == 2
    assert "the run goes on, and saving is tried again" in said
    assert last_line(said).startswith("mnist3d train: error: the end of the run is not saved: ")
    assert "No space left on device" in last_line(said)
    assert "go on with: mnist3d train --resume" in last_line(said)
    assert out == ""
    assert steps_of(run) == 3
    code, _, said = server.run("train", "--resume", run, "--viewer.enabled=false")
    assert code == 0, said
    assert "going on at step 3" in said
    assert steps_of(run) == 6


NO_MEMORY = {
    "MemoryError()": "out of memory after step 3",
    'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 400 bytes. Error code 12")': (
        "out of memory (400 bytes more were asked for) after step 3"
    ),
    "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has')": (
        "out of memory on the GPU (2.00 GiB more were asked for) after step 3"
    ),
}


@pytest.mark.parametrize("error", NO_MEMORY)
def test_no_memory_in_mid_step_leaves_the_last_checkpoint(server, tmp_path, error):
    patch = f"""
import torch
from mnist3d.training.trainer import Trainer
average = Trainer._average
def failing(trainer):
    if trainer.steps_done == 4:
        raise {error}
    average(trainer)
Trainer._average = failing
"""
    run = tmp_path / "run"
    often = ["--trainer.save_every", "3steps", "--trainer.max_steps", "6", "--run_dir", run]
    code, _, said = server.run(*TRAIN, *often, patch=patch)
    assert code == 2
    assert NO_MEMORY[error].rpartition(" after")[0] in last_line(said)
    assert "lower trainer.views" in last_line(said)
    assert "go on with: mnist3d train --resume" in last_line(said)
    assert steps_of(run) == 3, "the half-done step must not be saved"
    RunDirectory(run).take()  # the lock is free


def test_no_memory_in_another_command_is_one_line(server, finished, tmp_path):
    patch = "import mnist3d.cli.orbit as o\ndef none(*a, **k): raise MemoryError\no.orbit_frames = none"
    code, _, said = server.run("orbit", finished, patch=patch, folder=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("mnist3d orbit: error: out of memory; lower the resolution")
    assert not any(tmp_path.iterdir())


def test_a_run_folder_that_is_moved_away_is_not_made_anew(server, tmp_path):
    patch = """
import os
from mnist3d.training.trainer import Trainer
step = Trainer.step
def moving(trainer):
    if trainer.steps_done == 3: os.rename("run", "elsewhere")
    return step(trainer)
Trainer.step = moving
"""
    arguments = ["--trainer.save_every=2steps", "--trainer.max_steps=5", "--run_dir=run"]
    code, _, said = server.run(*TRAIN, *arguments, patch=patch, folder=tmp_path)
    assert code == 2
    assert "was moved or removed while the run went on" in last_line(said)
    assert not (tmp_path / "run").exists()
    assert steps_of(tmp_path / "elsewhere") == 2


def refused(*arguments):
    """Exit code, what was said, and whether torch was imported for it."""
    code = "import sys\nfrom mnist3d.cli.program import run_command\ntry:\n run_command('train', sys.argv[1:])\n"
    code += "except SystemExit as ended:\n print(ended.code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=ROOT)
    return done.stdout.split(), done.stderr


def test_a_used_folder_and_a_complete_run_are_refused_before_torch_is_imported(server, finished, tmp_path):
    (tmp_path / "file").touch()
    for used in (["--run_dir", finished], [f"--run_dir={tmp_path / 'file'}"], ["--resume", finished]):
        outcome, said = refused(*used)
        assert outcome == ["2", "False", "False"], said
        assert said.count("\n") == 1
        late = [*used, "--config", "digits"] if "--resume" not in used else [*used, "--trainer.max_steps=4"]
        if "--resume" not in used:
            late = ["--config", "digits", *used, "--config", "digits"]
        code, _, later = server.run("train", *late)
        assert code == 2
        assert later.partition("error: ")[2] == said.partition("error: ")[2], "the same words, early and late"


def test_the_early_look_refuses_nothing_that_could_go_on(finished, tmp_path, monkeypatch):
    from mnist3d.cli.early import refuse_early

    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["--resume", str(finished), "--trainer.max_steps", "8"],
        ["--resume", str(finished), "--trainer.max_minutes=3"],
        ["--resume", str(finished), "--config", "letters"],
        ["--resume", str(finished), "--help"],
        ["--resume", str(tmp_path)],
        ["--resume", "no such run"],
        ["--resume"],
        ["--run_dir", str(tmp_path)],
        ["--run_dir", "null"],
        ["--run_dir", str(finished), "--config", "file that may name another"],
        ["--run_dir", str(finished), "--print_config"],
        [],
    ):
        refuse_early(arguments)
    (tmp_path / "config.yaml").write_text("trainer: [3]\n")
    (tmp_path / "volume.safetensors").write_bytes(b"\xff" * 8 + b"{")
    refuse_early(["--resume", str(tmp_path)])


def test_a_complete_run_is_known_by_its_steps_or_its_seconds(finished, tmp_path):
    from mnist3d.cli.early import refuse_early

    content = (finished / "volume.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    saved = {**json.loads(header["__metadata__"]["mnist3d"]), "seconds": 1.5}  # as in a run with a limit in minutes
    header["__metadata__"]["mnist3d"] = json.dumps(saved)
    changed = json.dumps(header).encode()
    (tmp_path / "volume.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed)
    for trainer, done in (
        ("{max_steps: 4, max_minutes: null}", True),
        ("{max_steps: 5, max_minutes: null}", False),
        ("{max_steps: 5, max_minutes: .000001}", False),  # what is asked at the next step
        ("{max_steps: null, max_minutes: .000001}", True),
        ("{max_steps: null, max_minutes: 600}", False),
        ("{max_steps: null, max_minutes: null}", True),
    ):
        (tmp_path / "config.yaml").write_text(f"trainer: {trainer}\n")
        if done:
            with pytest.raises(RunError, match="that run is complete after 4 steps"):
                refuse_early(["--resume", str(tmp_path)])
        else:
            refuse_early(["--resume", str(tmp_path)])
    assert "give it more" in str(complete(Path("run"), 4, 1.0))


def test_nothing_below_a_run_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    for name, target in (("pictures", outside), ("tensorboard", outside), ("stats.jsonl", outside / "file"),
                         (".lock", outside / "file")):  # fmt: skip
        run = tmp_path / name
        run.mkdir()
        (run / name).symlink_to(target)
        with pytest.raises(RunError, match=r"is a symbolic link, and nothing is written through one"):
            RunDirectory(run).take()
        assert [path.name for path in run.iterdir()] == [name]
    run = RunDirectory(tmp_path / "pictures")
    with pytest.raises(RunError, match="symbolic link"):
        run.write_picture("views.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(RunError, match="symbolic link"):
        RunDirectory(tmp_path / "stats.jsonl").append_stats({"step": 1})
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious"


def test_a_link_in_the_place_of_a_file_that_is_replaced_is_replaced_itself(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    for name in ("config.yaml", "resume.pt", "scorecard.json"):
        (run.path / name).symlink_to(tmp_path / "precious")
        run.write(name, "new")
        assert not (run.path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "link").symlink_to(run.path)  # the user's own word for the folder
    linked = RunDirectory(tmp_path / "link")
    linked.take()
    linked.append_stats({"step": 1})
    linked.release()
    assert (run.path / "stats.jsonl").is_file()


@pytest.mark.parametrize("name", ["stats.jsonl", ".lock"])
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunError, match="is a named pipe, where a file is written"):
        RunDirectory(tmp_path).take()


def test_a_file_exchanged_for_a_link_or_a_pipe_after_the_look_is_not_written(tmp_path):
    """Whoever exchanges it is quicker than `check_own`; opening it is what decides."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # else opening it for writing fails by itself
    try:
        for name, reason in (("link", "symbolic link"), ("pipe", "is no plain file")):
            with pytest.raises(OSError, match=reason):
                append_line(tmp_path / name, b"{}\n")
        assert os.read(reader, 9) == b""
    finally:
        os.close(reader)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_lock_that_is_another_names_file_is_not_emptied(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "precious", tmp_path / "run" / ".lock")
    with pytest.raises(RunError, match=r"\.lock: holds something"):
        RunDirectory(tmp_path / "run").take()
    assert (tmp_path / "precious").read_text() == "precious"


def test_statistics_with_a_second_name_are_copied_before_they_are_added_to(tmp_path):
    run = RunDirectory(tmp_path)
    run.append_stats({"step": 1})
    os.link(run.path / "stats.jsonl", tmp_path / "backup")
    run.append_stats({"step": 2})
    assert (tmp_path / "backup").read_text() == '{"step": 1}\n'
    assert [record["step"] for record in run.read_stats()] == [1, 2]


def test_half_a_line_of_statistics_does_not_stay(tmp_path, monkeypatch):
    run, write = RunDirectory(tmp_path), os.write
    run.append_stats({"step": 1})
    monkeypatch.setattr(os, "write", lambda number, line: write(number, line[:5]))
    with pytest.raises(WriteError, match="No space left"):
        run.append_stats({"step": 2})
    monkeypatch.undo()
    run.append_stats({"step": 3})
    assert [record["step"] for record in run.read_stats()] == [1, 3]


def test_litter_of_killed_writers_goes_and_nothing_else(tmp_path):
    killed = ".orbit.mp4.abcdefg1"
    for name in (killed, ".other.mp4.abcdefg2", ".orbit.mp4.abcdefg3", ".orbit.mp4.theirs00", "orbit.mp4.abcdefg4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "orbit.mp4").touch()
    for name in (killed, ".other.mp4.abcdefg2"):
        (tmp_path / name / ".writer").touch()
    (tmp_path / ".orbit.mp4.abcdefg5").symlink_to(tmp_path / ".other.mp4.abcdefg2")
    (tmp_path / ".orbit.mp4.abcdefg6").mkdir()  # killed before it could lock
    with whole_files(tmp_path / "orbit.mp4") as alive:
        (alive / "orbit.mp4").write_bytes(b"first")
        write_atomically(tmp_path / "orbit.mp4", b"second")  # two writers of one path at once
        assert alive.is_dir()
    assert (tmp_path / "orbit.mp4").read_bytes() == b"first"
    left = {".other.mp4.abcdefg2", ".orbit.mp4.abcdefg3", ".orbit.mp4.theirs00", "orbit.mp4.abcdefg4"}
    assert {path.name for path in tmp_path.iterdir()} == {*left, "orbit.mp4", ".orbit.mp4.abcdefg5"}
    remove_litter(tmp_path)
    assert not (tmp_path / ".other.mp4.abcdefg2").exists()


def test_the_next_session_of_a_run_cleans_what_a_killed_one_left(tmp_path):
    for name in (".resume.pt.abcdefgh", "pictures/.views.png.abcdefgh"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".writer").touch()
    run = RunDirectory(tmp_path)
    run.take()
    run.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "pictures"]
    assert not any((tmp_path / "pictures").iterdir())


def test_a_folder_that_a_killed_start_left_can_be_used(tmp_path):
    (tmp_path / ".config.yaml.abcdefgh" / ".writer").mkdir(parents=True)
    check_unused(tmp_path)
    with pytest.raises(RunError, match="not empty"):  # it is not what we leave: there the lock is a file
        RunDirectory.create(tmp_path, "runs", "digits")
    (tmp_path / ".config.yaml.abcdefgh" / ".writer").rmdir()
    RunDirectory.create(tmp_path, "runs", "digits").release()
    assert tmp_path.is_dir(), "only a folder that was made for the run goes with it"


def test_a_file_from_the_future_is_not_the_latest_for_ever(tmp_path):
    for name, age in (("wrong clock", -1e6), ("before", 200.0), ("now", 100.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "volume.safetensors").touch()
        os.utime(tmp_path / name / "volume.safetensors", (time.time() - age, time.time() - age))
    assert latest_run(tmp_path).name == "now"


def test_what_a_machine_lacks_is_told_apart_from_mistakes():
    assert out_of_memory(RuntimeError("unable to mmap: Cannot allocate memory (12)")) == "out of memory"
    assert out_of_memory(RuntimeError("could not create a primitive")) == "out of memory"
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory")) == "out of memory"
    for other in (RuntimeError("shape"), ValueError("out of memory"), OSError(errno.ENOENT, "No such file")):
        assert out_of_memory(other) is None
    assert system_failure(OSError(errno.EMFILE, "Too many open files", "a")) == (
        "a: Too many open files; raise the limit of open files, ulimit -n"
    )
    assert system_failure(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_three_kills_lose_nothing(tmp_path):
    """The short pass of a script that anyone can run for longer."""
    command = [sys.executable, ROOT / "tests" / "faults" / "kill.py", "--rounds", "3", "--only", "saving", "exporting"]
    done = subprocess.run(
        [*command, "--output", tmp_path / "counts.json"], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())["counts"]
    assert sum(count["kills"] for count in counts.values()) >= 3
    assert not any(count["lost"] or count["other_bits"] for count in counts.values())
