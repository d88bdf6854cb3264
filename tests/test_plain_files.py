"""Files of other people: only plain ones are opened, without waiting, and up to a limit."""

import gzip
import io
import os
import socket
import sys

import pytest

from mnist3d.storage.plain_files import (
    check_plain_file,
    gunzipped,
    open_plain,
    read_at_most,
    read_plain,
    size_in_words,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes among its files")


def test_a_plain_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        check_plain_file(tmp_path / name)
        assert read_plain(tmp_path / name, 3) == b"abc"
        with open_plain(tmp_path / name) as file:
            assert file.read() == b"abc"


@pytest.mark.parametrize("read", [check_plain_file, open_plain, lambda path: read_plain(path, 10)])
def test_all_else_is_refused_without_waiting(tmp_path, read, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        kinds = {"pipe": "a named pipe", "to_pipe": "a named pipe", "folder": "a folder", "socket": "a socket"}
        for name, kind in kinds.items():
            with pytest.raises(OSError, match=f"is {kind}, not a plain file"):
                read(tmp_path / name)
    with pytest.raises(OSError, match="is a device"):
        read("/dev/zero")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_a_file_exchanged_for_a_pipe_after_the_look_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("mnist3d.storage.plain_files.check_plain_file", lambda path: None)
    with pytest.raises(OSError, match="named pipe"):
        open_plain(tmp_path / "pipe")


def test_no_more_is_read_than_allowed(tmp_path):
    (tmp_path / "file").write_bytes(b"abcd")
    with pytest.raises(OSError, match="holds more than 3 bytes"):
        read_plain(tmp_path / "file", 3)
    assert read_at_most(io.BytesIO(b"abcd"), 4) == b"abcd"
    assert read_at_most(io.BytesIO(b""), 0) == b""
    endless = io.BytesIO(bytes(10 * 2**20))
    with pytest.raises(ValueError, match=r"holds more than 2\.5 MiB"):
        read_at_most(endless, 5 * 2**19)
    assert endless.tell() == 5 * 2**19 + 1


def test_a_gzip_file_is_unpacked_up_to_the_limit():
    packed = gzip.compress(bytes(3 * 2**20)) + gzip.compress(b"end")
    assert gunzipped(io.BytesIO(packed), 3 * 2**20 + 3) == bytes(3 * 2**20) + b"end"
    with pytest.raises(ValueError, match="unpacks to more than 3 MiB"):
        gunzipped(io.BytesIO(packed), 3 * 2**20)
    with pytest.raises(EOFError):
        gunzipped(io.BytesIO(packed[:-4]), 2**30)


def test_sizes_in_words():
    assert [size_in_words(n) for n in (5, 2048, 3 * 2**20, 5 * 2**30)] == ["5 bytes", "2 KiB", "3 MiB", "5 GiB"]
