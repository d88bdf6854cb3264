"""Saves without a second copy in memory, and beside the training where the state is large."""

import errno
import io
import os
import threading
import time

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from test_checkpoints import make
from torch import Tensor

from mnist3d.callbacks import checkpoints, saving
from mnist3d.callbacks.checkpoints import Checkpoints
from mnist3d.callbacks.saving import Saving, write_state
from mnist3d.callbacks.sheltered import Sheltered
from mnist3d.errors import WriteError
from mnist3d.runs.checkpoint import load_checkpoint
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.finite import each_value
from mnist3d.volumes import VoxelGrid, base, load_volume, volume_bytes
from mnist3d.volumes.files import volume_writer


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


@pytest.fixture
def beside(monkeypatch):
    """Every state counts as large."""
    monkeypatch.setattr(checkpoints, "LARGE", 0)


class HeldBack:
    """A disk that takes its time: nothing is on it before it is let go."""

    def __init__(self, monkeypatch) -> None:
        self.asked, self.free, fsync = threading.Event(), threading.Event(), os.fsync

        def held(number: int) -> None:
            self.asked.set()
            assert self.free.wait(60), "never let go"
            fsync(number)

        monkeypatch.setattr(os, "fsync", held)


def equal(one: dict, other: dict) -> bool:
    pairs = zip(each_value(one), each_value(other), strict=True)
    return all(a == b and (torch.equal(x, y) if isinstance(x, Tensor) else x == y) for (a, x), (b, y) in pairs)


def test_the_state_is_the_same_file_as_ever_and_no_tensor_is_copied_for_it(tmp_path, monkeypatch):
    trainer = make()
    trainer.step()
    state, handed = trainer.state_dict(), set()
    write = saving._Noting.write

    def noted(self, piece: memoryview) -> int:
        handed.add(np.frombuffer(piece, np.uint8).ctypes.data)
        return write(self, piece)

    monkeypatch.setattr(saving._Noting, "write", noted)
    write_state(state, tmp_path / "state")
    whole = io.BytesIO()
    torch.save(state, whole)
    assert (tmp_path / "state").read_bytes() == whole.getvalue()
    weights = [*state["volume"].values(), *state["averaged"].values()]
    assert {weight.data_ptr() for weight in weights} <= handed


def test_a_volume_is_written_as_it_is_handed_out(tmp_path):
    volume = VoxelGrid(5)
    volume_writer(volume, {"step": 3})(tmp_path / "volume")
    assert (tmp_path / "volume").read_bytes() == volume_bytes(volume, {"step": 3})
    (tmp_path / "other").touch()
    assert (tmp_path / "volume").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
@pytest.mark.parametrize("large", [0, 50_000])  # what fits into a buffer is refused when that is emptied
def test_a_full_disk_is_no_riddle_of_torchs(large, tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_state({"a": torch.zeros(large)}, tmp_path / "full")


def test_a_full_disk_is_no_riddle_of_safetensors(tmp_path, monkeypatch):
    def full(*_) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(base, "write_safetensors", full)
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\)"):
        VoxelGrid(4).save(tmp_path / "volume.safetensors")
    assert not [*tmp_path.iterdir()]


def test_the_training_goes_on_while_the_disk_takes_its_time(run, beside, monkeypatch):
    disk = HeldBack(monkeypatch)
    trainer, saver = make(), Checkpoints(run, "1steps")
    saver.begin(trainer)
    report = trainer.step()
    wanted = make()
    wanted.step()
    saver.after_step(trainer, report)  # returns, though nothing is on the disk
    assert disk.asked.wait(60)
    trainer.step()
    assert not run.resume_path.exists()
    assert saver.saved is None
    disk.free.set()
    saver.end_saving()
    assert saver.saved == 1
    again = make()
    load_checkpoint(again, run)
    seconds = {"seconds_done": 0.0}
    assert equal({**again.state_dict(), **seconds}, {**wanted.state_dict(), **seconds})
    assert torch.equal(
        torch.cat([w.flatten() for w in load_volume(run.volume_path).parameters()]),
        torch.cat([w.flatten() for w in wanted.averaged.parameters()]),
    )


def test_one_save_follows_another_and_the_last_is_waited_for(run, beside):
    trainer = make(max_steps=6)
    trainer.run([saver := Checkpoints(run, "2steps")])
    assert saver.saved == 6
    assert not [thread for thread in threading.enumerate() if thread.name == "saving"]
    before = torch.load(run.path / "resume.previous.pt", weights_only=True)
    assert (before["steps_done"], torch.load(run.resume_path, weights_only=True)["steps_done"]) == (4, 6)


def test_what_could_not_be_written_beside_is_said_and_tried_again(run, beside, monkeypatch):
    said: list[str] = []
    trainer, saver = make(), Checkpoints(run, "1steps")
    sheltered = Sheltered([saver], said.append)
    sheltered.begin(trainer)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        sheltered.after_step(trainer, trainer.step())
        assert saver._saving is not None
        saver._saving.is_over(wait=True)
        sheltered.after_step(trainer, trainer.step())
        assert len(said) == 1
        assert "No space left on device" in said[0]
        assert "tried again" in said[0]
        with pytest.raises(WriteError, match="No space left"):
            saver.finish(trainer)
    assert not [*run.path.iterdir()]
    sheltered.finish(trainer)
    assert sheltered.unsaved is None
    assert saver.saved == 2


def test_a_step_that_was_left_half_done_waits_for_the_save_before_it(run, beside, monkeypatch):
    trainer, saver = make(), Checkpoints(run, "1steps")
    sheltered = Sheltered([saver], lambda _: None)
    sheltered.begin(trainer)
    sheltered.after_step(trainer, trainer.step())
    trainer.whole = False
    sheltered.finish(trainer)
    assert saver.saved == 1
    assert torch.load(run.resume_path, weights_only=True)["steps_done"] == 1


def test_nothing_goes_on_before_the_state_has_been_read():
    read: list[bool] = []

    def slow(when_read) -> None:
        time.sleep(0.1)  # time for whoever does not wait
        read.append(True)
        when_read()

    save = Saving(slow, 1, beside=True)
    assert read
    assert save.is_over(wait=True)


def test_an_error_before_anything_was_read_is_no_endless_wait():
    def broken(_) -> None:
        raise KeyError("at once")

    save = Saving(broken, 1, beside=True)
    assert save.is_over(wait=True)
    assert isinstance(save.error, KeyError)
