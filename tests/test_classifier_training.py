"""Classifiers that are trained beside a run: the run stays what it is, and no process outlives it.

The process is the real one where that is what a test asks about, with two steps of training; else a few lines of Python
that answer like it, and need no torch. What the classifiers have learned decides nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from fork_server import PATIENCE, ForkServer
from PIL import Image
from test_trainer import bars
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.classifier_training import ClassifierTraining
from mnist3d.callbacks.scores import ScorecardOptions, Scores, find_classifiers
from mnist3d.data.images import ImageSet
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import background, classifiers, load_classifiers
from mnist3d.evaluation.background import BackgroundTraining
from mnist3d.evaluation.networks import ARCHITECTURES
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.storage import memory
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes.voxel_grid import VoxelGrid

CLASSES = 3
TINY = "--trainer.views 2 --volume.resolution 8 --renderer.image_size 12 --viewer.enabled false --scorecard.every 1"
TRAIN = ["train", *TINY.split(), "--discriminator.channels", "[4,8]", "--trainer.max_steps", "1000000"]
# The real process, trained for so many steps, at the usual priority; the run leaves it time.
PATCH = """
import os, time
from mnist3d.callbacks.statistics import Statistics
os.environ["XDG_CACHE_HOME"] = os.path.abspath("cache")
from mnist3d.callbacks.classifier_training import ClassifierTraining
from mnist3d.evaluation import background
ClassifierTraining.__init__.__defaults__ = (True, STEPS)
background.NICENESS = 0
note = background.BackgroundTraining._note
def noted(training, share):
    note(training, share)
    open("noted", "w").close()
background.BackgroundTraining._note = noted
after_step = Statistics.after_step
Statistics.after_step = lambda *about: (time.sleep(.05), after_step(*about))
"""
READ = "import sys; size = int.from_bytes(sys.stdin.buffer.read(8), 'little'); sys.stdin.buffer.read(size)\n"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """As in a first run: nothing in the user's cache folder."""
    monkeypatch.setattr(classifiers.platformdirs, "user_cache_path", lambda name: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def images():
    random = torch.Generator().manual_seed(0)
    names = [f"kind {k}" for k in range(CLASSES)]
    return ImageSet(torch.rand(30, 1, 28, 28, generator=random), torch.arange(30) % CLASSES, names)


@pytest.fixture
def answers(monkeypatch):
    """Let the process be these lines of Python instead."""

    def say(lines):
        def started():
            command = [sys.executable, "-S", "-c", READ + lines]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        monkeypatch.setattr(background, "_started", started)

    return say


@pytest.fixture
def weights(tmp_path):
    """A file with those of two networks that have learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        content = classifiers.packed_weights([build(CLASSES + 1) for build in ARCHITECTURES])
    (tmp_path / "weights").write_bytes(content)
    return tmp_path / "weights"


def sends(file):
    """Lines of Python that answer with what is in a file."""
    return f"""
with open({str(file)!r}, "rb") as file:
    content = file.read()
sys.stdout.buffer.write(b"share 0.25\\nweights %d\\n" % len(content) + content)
"""


def told(images, **more):
    """A training, and the lines that it says."""
    lines = []
    return ClassifierTraining(images, lines.append, **more), lines


def until(done):
    """Wait for what another thread or process does; how long that takes decides nothing."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.005)


def run_of(steps=4):
    torch.manual_seed(0)
    return make_trainer(VoxelGrid(6), AbsorptionRenderer(16), bars(count=12), TrainerOptions(max_steps=steps, views=2))


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# ---- the process ------------------------------------------------------------------------------------------------
def test_the_process_trains_what_this_one_would(images, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "NICENESS", 0)  # at the lowest priority a busy machine may take minutes
    training = BackgroundTraining(images.images, images.labels, images.class_names, tmp_path / "there", 2)
    training.start()
    until(lambda: not training.running)
    found = training.result()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: in other parts sums come out otherwise
    try:
        here = load_classifiers(images.images, images.labels, images.class_names, tmp_path / "here", 2)
    finally:
        torch.set_num_threads(before)
    assert training.failure is None
    assert found is not None
    assert (found.version, found.class_names) == (here.version, here.class_names)
    for one, other in zip(found.networks, here.networks, strict=True):
        assert not one.training
        assert all(torch.equal(weight, other.state_dict()[key]) for key, weight in one.state_dict().items())
    (there,), (at_home,) = ([*(tmp_path / name).iterdir()] for name in ("there", "here"))
    assert (there.name, there.read_bytes()) == (at_home.name, at_home.read_bytes())
    assert (training.share, training.seconds_left) == (1.0, 0.0)


@pytest.mark.skipif(os.name != "posix", reason="priorities of POSIX")
def test_the_process_has_the_lowest_claim_and_obeys_the_run_alone(images, answers):
    answers(
        "print('share 0.5', flush=True); sys.stdin.buffer.read(1)\n"
        "print('share 0.7', flush=True); sys.stdin.buffer.read()"
    )
    training = BackgroundTraining(images.images, images.labels, images.class_names)
    training.start()
    until(lambda: training.share == 0.5)
    process = training._process
    assert process is not None
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= background.NICENESS
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C reaches the whole group
        os.kill(process.pid, number)
    assert process.stdin is not None
    process.stdin.write(b"!")
    process.stdin.flush()
    until(lambda: training.share == 0.7 or not training.running)
    assert training.share == 0.7  # it has not noticed
    assert os.getpriority(os.PRIO_PROCESS, 0) < background.NICENESS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    training.close()
    assert process.poll() == -signal.SIGKILL
    training.start()  # of no use any more
    assert not training.running
    assert training.failure is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("sys.exit(3)", "its process ended with code 3"),
        ("print('ValueError: no good'); sys.exit(1)", "ValueError: no good"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("print('weights 100'); print('too short')", "its process ended with code"),
        ("print('share much')", "could not convert string to float"),
    ],
)
def test_a_process_that_fails_is_a_line_and_may_be_started_again(images, answers, weights, lines, reason, empty_cache):
    answers(lines)
    training = BackgroundTraining(images.images, images.labels, images.class_names)
    training.start()
    until(lambda: not training.running)
    assert (training.failure or "").startswith(reason)
    assert training.result() is None
    assert not empty_cache.exists()
    answers(sends(weights))
    training.start()
    until(lambda: not training.running)
    assert training.failure is None
    assert training.result() is not None
    assert [path.read_bytes() for path in empty_cache.iterdir()] == [weights.read_bytes()]


def test_a_process_that_cannot_be_started_is_a_line(images, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    training = BackgroundTraining(images.images, images.labels, images.class_names)
    training.start()
    until(lambda: not training.running)
    assert "No such file" in (training.failure or "")


# ---- the callback -----------------------------------------------------------------------------------------------
def test_a_run_is_the_same_to_the_bit_and_gets_scores_when_the_classifiers_come(
    images, answers, weights, tmp_path, monkeypatch
):
    answers(sends(weights))
    plain = run_of()
    plain.run([])
    after = torch.get_rng_state()
    training, lines = told(images)
    scores, trainer, asked = Scores(RunDirectory(tmp_path), training, 1), run_of(), []
    result = training._process.result

    def in_the_second_step():
        asked.append(None)
        until(lambda: not training._process.running)
        return result() if len(asked) > 1 else None

    monkeypatch.setattr(training._process, "result", in_the_second_step)
    trainer.run([training, scores])
    assert torch.equal(torch.get_rng_state(), after)
    now = trainer.volume.state_dict()
    assert all(torch.equal(weight, now[key]) for key, weight in plain.volume.state_dict().items())
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [2, 3, 4]
    assert (training.state, training.words, training.remark) == ("done", "", "")
    assert len(lines) == 2
    assert "trained beside the run" in lines[0]
    assert "the scores begin" in lines[1]


def test_a_run_that_ends_first_says_so_and_leaves_no_process(images, answers, tmp_path):
    answers("print('share 0.2\\nshare 0.4', flush=True); sys.stdin.buffer.read()")
    training, lines = told(images)
    trainer = run_of()
    training.begin(trainer)
    until(lambda: training.share == 0.4)
    process = training._process._process
    assert process is not None
    assert training.remark.startswith("classifiers 40%, ")
    message = training.as_message()
    assert json.loads(json.dumps(message)) == message
    assert (message["state"], message["share"], message["can_start"]) == ("running", 0.4, False)
    assert message["seconds_left"] >= 0.0
    training.start()  # it runs already
    assert training._process._process is process
    scores = Scores(RunDirectory(tmp_path), training, 1)
    trainer.run([scores])
    training.finish(trainer)
    assert process.poll() is not None
    assert not (tmp_path / "stats.jsonl").exists()
    assert len(lines) == 2
    assert "trained to 40% when the run ended: " in lines[1]
    assert "score" in lines[1]


def test_a_failure_is_said_once_and_the_run_goes_on(images, answers):
    answers("print('OSError: no room'); sys.exit(1)")
    training, lines = told(images, by_itself=False)
    trainer = run_of()
    training.start()
    until(lambda: not training._process.running)
    trainer.run([training])
    assert trainer.steps_done == 4
    assert lines == ["no scores during this run: training the classifiers failed: OSError: no room; the run goes on"]
    assert training.as_message()["can_start"]


def test_memory_is_asked_for_first(images, answers, monkeypatch):
    answers("sys.stdin.buffer.read()")
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**27)
    training, lines = told(images)
    trainer = run_of(1)
    trainer.run([training])
    assert training.state == "failed"
    (line,) = lines
    assert "128 MiB are free here; end other programs; the run goes on" in line
    assert not training._process.running
    monkeypatch.undo()
    assert memory.free_memory() != 2**27


def test_one_that_waits_begins_when_it_is_asked_to(images, answers):
    answers("print('share 0.5', flush=True); sys.stdin.buffer.read()")
    training, lines = told(images, by_itself=False)
    trainer = run_of(1)
    training.begin(trainer)
    training.after_step(trainer, trainer.step())
    assert (training.state, training.remark, lines) == ("waiting", "", [])
    assert training.as_message()["can_start"]
    assert "score" in training.words
    training.start()
    until(lambda: training.share == 0.5)
    assert training.state == "running"
    training.finish(trainer)
    assert not training._process.running


def test_images_without_classes_have_none_and_the_option_lets_it_wait(tmp_path, capsys):
    draw(tmp_path / "flat", kinds=[""])
    flat = DataOptions(name="images", path=str(tmp_path / "flat"))
    assert find_classifiers(ScorecardOptions(), flat, 12, print) is None
    assert capsys.readouterr().err == "no scores during this run: the images have no classes that could be read\n"
    draw(tmp_path / "kinds", kinds=["a", "b"])
    options = ScorecardOptions(train_classifiers=False)
    found = find_classifiers(options, DataOptions(name="images", path=str(tmp_path / "kinds")), 12, print)
    assert isinstance(found, ClassifierTraining)
    assert not found._by_itself
    assert capsys.readouterr().err == f"no scores during this run: {found.words}\n"


# ---- whole commands ---------------------------------------------------------------------------------------------
def draw(folder, kinds):
    """Ten pictures of each kind, in a folder of its own."""
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for each in range(10):
            Image.new("L", (12, 12), 40 * number + 20 * each).save(folder / kind / f"{each}.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if os.name != "posix":
        pytest.skip("commands are forked by POSIX means")
    running = ForkServer(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


def start(server, folder, steps):
    draw(folder / "pictures", kinds=["cup", "jug"])
    data = ["--data.name", "images", "--data.path", folder / "pictures", "--run_dir", folder / "run"]
    return server.start(*TRAIN, *data, patch=PATCH.replace("STEPS", str(steps)), folder=folder)


def test_a_run_on_own_pictures_gets_its_scores_and_ends_clean(server, tmp_path):
    running = start(server, tmp_path, steps=2)
    running.until(lambda: "the scores begin" in running.said())
    stats = tmp_path / "run" / "stats.jsonl"
    running.until(lambda: stats.exists() and '"legible"' in stats.read_text())
    assert psutil.Process(running.pid).children() == []
    running.send(signal.SIGINT)
    assert running.end() == 0, running.said()
    assert "Traceback" not in running.said()
    (file,) = (tmp_path / "cache" / "mnist3d").iterdir()  # and no litter
    assert file.suffix == ".safetensors"
    content = json.loads(stats.read_text().splitlines()[-1])
    assert sorted(content.get("histogram", {"cup": 0, "jug": 0})) == ["cup", "jug"]


def test_no_process_outlives_a_run_that_is_killed(server, tmp_path):
    running = start(server, tmp_path, steps=10**6)
    running.until((tmp_path / "noted").exists)
    (child,) = psutil.Process(running.pid).children()
    running.send(signal.SIGKILL)
    assert running.end() == -signal.SIGKILL
    until(lambda: not alive(child))
    assert not (tmp_path / "cache").exists()
