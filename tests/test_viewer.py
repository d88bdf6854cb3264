"""The viewer without a browser: the images, the wire, hostile clients, and a training that never notices."""

import contextlib
import dataclasses
import io
import json
import math
import os
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from types import SimpleNamespace
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from trainers import make_trainer  # pyright: ignore[reportMissingImports]
from viewer_client import ANY_PORT, PATIENCE, Client, blob, get, scene, wait_until  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.live_page import LAST_FIGURES_SECONDS, LivePage, start_page
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.view import _newest_that_opens
from mnist3d.data.images import ImageSet
from mnist3d.errors import RunError, ViewerError, VolumeFileError
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.runs.gallery import Gallery
from mnist3d.runs.session import sculpt
from mnist3d.training.options import TrainerOptions
from mnist3d.viewer import Live, Snapshot, Viewer, ViewerOptions, render_thread, server
from mnist3d.viewer import jobs as workshop
from mnist3d.viewer import network as gate
from mnist3d.viewer.access import TOKEN_VARIABLE
from mnist3d.viewer.client import MAX_OUTBOX
from mnist3d.viewer.cpu_budget import BURST_SECONDS, Allowance
from mnist3d.viewer.curves import LONGEST_NAME, MAX_CLASSES, MAX_CURVES, Curves, histogram_of, read_curves
from mnist3d.viewer.downloads import DOWNLOADS
from mnist3d.viewer.drawing import rendered_view
from mnist3d.viewer.messages import pack, parse_request
from mnist3d.viewer.network import may_connect
from mnist3d.viewer.render_thread import SECONDS_BETWEEN_READINGS, Painter, one_thread
from mnist3d.viewer.scene import View
from mnist3d.viewer.server import FIGURES_SECONDS, MAX_PAGES
from mnist3d.volumes import load_volume
from mnist3d.volumes.base import Volume
from mnist3d.volumes.hash_grid import HashGrid
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField

TOKEN = "a-token-for-tests-0123"
TINY = ["--trainer.views", "4", "--volume.resolution", "12", "--data.limit", "40"]


def same_grid(first, second):
    return torch.equal(first.dense(), second.dense())


@pytest.fixture
def viewer():
    made = Viewer(ANY_PORT, first=scene())
    made.start()
    yield made
    made.close()


# ---- images ---------------------------------------------------------------------------------------------------
def expected(volume, azimuth, elevation, size):
    angles = torch.tensor([elevation, azimuth, 0.0])
    return AbsorptionRenderer(size, 15)(volume, euler_matrix(angles)).detach()


def test_a_view_is_the_renderers_image_at_that_rotation():
    shown = rendered_view(scene().snapshot, RendererOptions(16, 15), View(azimuth=0.7, elevation=-0.4, size=33))
    assert torch.equal(shown, expected(blob(), 0.7, -0.4, 33))
    assert not torch.allclose(shown, expected(blob(), -0.7, -0.4, 33), atol=0.05)


def test_scale_cut_and_exposure_do_what_they_say():
    """A uniform ball: the middle ray's optical depth is attenuation * scale * what the plane leaves of 2."""
    ball = VoxelGrid.from_array(torch.stack([torch.full((40, 40, 40), 0.3), torch.zeros(40, 40, 40)]))
    snapshot, options = Snapshot(FrozenField(ball), 0), RendererOptions(16, 80)

    def middle(**view):
        return float(rendered_view(snapshot, options, View(size=9, **view))[0, 0, 4, 4])

    assert middle() == pytest.approx(1 - math.exp(-0.6), abs=2e-3)
    assert middle(scale=3.0) == pytest.approx(1 - math.exp(-1.8), abs=5e-3)
    assert middle(cut=0.0) == pytest.approx(1 - math.exp(-0.3), abs=5e-3)
    assert middle(cut=0.0, azimuth=1.0, elevation=0.5) == pytest.approx(1 - math.exp(-0.3), abs=5e-3)
    assert middle(cut=1.0) < 0.02
    assert middle(exposure=0.5) == pytest.approx(0.5 * (1 - math.exp(-0.6)), abs=2e-3)
    # a plane that is held in the sculpture, seen from behind: the near half is what is left
    held = rendered_view(snapshot, options, View(size=9, cut=0.0, cut_normal=(1.0, 0.0, 0.0)))[0, 0, 4]
    assert float(held[1]) < 0.01 < float(held[7])


def test_a_cut_through_infinite_attenuation_is_no_nan():
    solid = VoxelGrid.from_array(torch.stack([torch.full((8, 8, 8), 3.0), torch.zeros(8, 8, 8)]))
    with torch.no_grad():
        solid.levels[0][0] = math.inf
    shown = rendered_view(Snapshot(FrozenField(solid), 0), RendererOptions(), View(cut=0.3, scale=2.0))
    assert bool(shown.isfinite().all())


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x00\xff\xfe",
        b'{"received": 1}',
        "{",
        "[]",
        "7",
        "[" * 3000,
        '{"view": 3}',
        '{"view": {"azimuth": "x"}}',
        '{"view": {"azimuth": NaN}}',
        '{"view": {"size": 1e999}}',
        '{"view": {"azimuth": "' + "9" * 400 + '"}}',
        '{"view": {"cut_normal": [0, 0, 0]}}',
        '{"view": {"cut_normal": {"a": 1}}}',
        '{"received": -5}',
        '{"received": "many"}',
        '{"do": "rm"}',
        '{"do": "open", "name": ["x"]}',
    ],
)
def test_what_is_no_message_is_refused(wrong):
    with pytest.raises(ValueError):  # noqa: PT011 - every reason is as good as another here
        parse_request(wrong)


def test_values_out_of_range_are_brought_into_it():
    view = parse_request('{"view": {"size": 1e9, "exposure": -4, "scale": 1e9, "cut": -9, "elevation": 99}}').view
    assert view is not None
    assert (view.size, view.exposure, view.scale, view.cut) == (1024, 0.1, 20.0, -1.0)


def test_a_whole_number_that_no_float_holds_is_brought_into_range_too():
    huge = 10**400
    view = parse_request(f'{{"view": {{"azimuth": {huge}, "number": {huge}}}}}').view
    assert view is not None
    assert (view.azimuth, view.number) == (1e6, 2**52)


def test_allowance_comes_in_steadily_is_saved_and_spent():
    now = [0.0]
    allowance = Allowance(0.1, lambda: now[0])
    assert allowance.saved() == BURST_SECONDS
    allowance.pay(BURST_SECONDS + 0.5)
    assert allowance.saved() == pytest.approx(-0.5)
    now[0] = 6.0
    assert allowance.saved() == pytest.approx(0.1)
    now[0] = 1e6
    assert allowance.saved() == BURST_SECONDS


def test_one_thread_is_for_the_calling_thread_only():
    before, seen = torch.get_num_threads(), {}

    def alone():
        one_thread()
        seen["alone"] = torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        for work in (alone, lambda: seen.update(later=torch.get_num_threads())):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert (seen["alone"], seen["later"], torch.get_num_threads()) == (1, 2, 2)
    finally:
        torch.set_num_threads(before)


def test_curves_stay_few_and_cover_the_whole_run():
    curves = Curves(limit=50)
    for step in range(1, 2001):
        curves.add({"step": step, "loss": 1.0 / step, "never": 0.0})
    columns = curves.as_columns()
    assert list(columns) == ["step", "loss"]
    assert 20 <= len(columns["step"]) <= 50
    assert columns["step"][0] <= 64
    assert columns["step"][-1] >= 1900
    assert len(set(np.diff(columns["step"]))) == 1


def test_every_loss_of_any_objective_is_a_curve_and_scores_are_others():
    records = [
        {"step": 20, "progress": 0.1, "target_loss": 0.5, "mean_brightness": 0.2, "class_shares": [1.0]},
        {"step": 40, "progress": 0.2, "target_loss": 0.4, "total_variation_loss": 0.25, "diversity_loss": -4.0},
        {"step": 40, "legible": 0.6, "clean": 0.4, "histogram": {"3": 1.0}},
        {"step": 41, "watchdog": "not_finite", "message": "gone"},
    ]
    losses, scores, last = read_curves(records)
    assert losses.as_columns() == {"step": [20, 40], "target": [0.5, 0.4], "total variation": [None, 0.25]}
    assert scores.as_columns() == {"step": [40], "legible": [0.6], "clean": [0.4]}
    assert last is records[2]


def test_curves_of_a_file_made_to_harm_are_few_and_short_and_what_is_no_number_is_counted():
    """Names without end, in each line others; text, nan and lists where a number belongs."""
    many = [{"step": k, **{f"{k}_{n}{'x' * 300}_loss": 1.0 + n for n in range(200)}} for k in range(200)]
    scored = {"step": 5, "legible": [], "clean": None, "histogram": {f"{'y' * 300}{n}": 0.1 for n in range(9)}}
    losses, scores, last = read_curves([*many, scored, {"step": 7, "a_loss": math.nan, "b_loss": "4", "c_loss": True}])
    columns = losses.as_columns()
    assert len(columns) == 1 + MAX_CURVES
    assert max(map(len, columns)) <= LONGEST_NAME
    assert len(json.dumps(columns)) < 200_000
    assert scores.as_columns() == {"step": [5]}
    assert max(map(len, histogram_of(last))) <= LONGEST_NAME
    assert len(histogram_of({"histogram": {str(n): 1.0 for n in range(5000)}})) == MAX_CLASSES
    assert losses.note == "4 values in stats.jsonl are no finite numbers and are not shown"
    assert read_curves([{"step": 1, "a_loss": 1.0, "b_loss": None}])[0].note == ""


def test_curves_of_a_damaged_file_stay_few_too():
    curves = Curves(limit=50)
    for _ in range(5000):
        curves.add({"step": 0, "loss": 1.0})
        curves.add({"step": None, "loss": 1.0})
    assert len(curves.points) <= 51


# ---- the wire ---------------------------------------------------------------------------------------------------
def test_the_page_gets_exactly_the_renderers_image(viewer):
    with Client(viewer) as client:
        client.tell(view={"azimuth": 0.5, "elevation": 0.2, "size": 40, "number": 5})
        head, shown = client.next("frame")
    assert (head["number"], head["azimuth"], head["elevation"], head["step"]) == (5, 0.5, 0.2, 7)
    assert np.array_equal(shown, (expected(blob(), 0.5, 0.2, 40)[0, 0] * 255).round().numpy().astype(np.uint8))


def test_two_pages_turn_independently(viewer):
    with Client(viewer) as first, Client(viewer) as second:
        first.tell(view={"azimuth": 0.1, "size": 24, "number": 1})
        second.tell(view={"azimuth": 2.0, "size": 48, "number": 1})
        shown = [client.next("frame")[1].shape for client in (first, second)]
        assert shown == [(24, 24), (48, 48)]
        first.tell(view={"azimuth": 0.2, "size": 24, "number": 2})
        assert first.next("frame")[0]["azimuth"] == 0.2
        second.tell(view={"azimuth": 2.1, "size": 48, "number": 2})
        assert second.next("frame")[0]["number"] == 2  # nothing came in between: the first page's turning is its own


def test_the_map_comes_by_itself(viewer):
    with Client(viewer) as client:
        client.tell(view={"size": 16, "number": 1})
        _, shown = client.next("atlas")
    assert shown.shape == (12 * 28, 24 * 28)
    cell = shown[6 * 28 : 7 * 28, 12 * 28 : 13 * 28]  # just below the equator, just east of the front
    step = math.pi / 24
    like = expected(blob(), step, -step, 16)
    like = torch.nn.functional.interpolate(like, (28, 28), mode="bilinear", antialias=True)
    assert np.abs(cell / 255.0 - like[0, 0].numpy()).max() < 0.01


class NothingToRead:
    """A reader of images without classes: it answers without looking."""

    class_names: list[str] = []  # noqa: RUF012 (nobody changes it)

    def read(self, images):
        raise AssertionError("nothing can be read")


def test_a_view_is_read_once_again_when_it_turns_and_now_and_then_while_a_run_goes_on():
    painter, now = Painter(list, Allowance(1.0)), 100.0
    sent = []
    page: Any = SimpleNamespace(
        scene=scene(reader=NothingToRead()),
        view=View(),
        drawn=None,
        drawn_at=0.0,
        read=None,
        read_at=0.0,
        atlas=None,
        has_room=lambda: True,
        send=sent.append,
    )

    def is_read():
        if not painter._wants_reading(page, now):
            return False
        painter._read(page)
        page.read_at = now
        return True

    assert is_read()
    assert not is_read()  # the same view of the same snapshot
    page.view = View(number=7, size=64, zoom=2.0, style="shaded")
    assert not is_read()  # what is read is the same
    page.view = View(azimuth=0.3)
    assert is_read()
    page.scene.snapshot = dataclasses.replace(page.scene.snapshot, version=1)
    assert not is_read()  # the run goes on, and this view was read just now
    now += SECONDS_BETWEEN_READINGS - 0.1
    assert not is_read()
    now += 0.2
    assert is_read()
    page.view = View(azimuth=0.4, moving=True)
    assert not is_read()
    now += SECONDS_BETWEEN_READINGS
    assert is_read()  # it has been turning for a while
    page.view, page.scene.reader = View(azimuth=0.5), None
    assert not is_read()
    assert len(sent) == 4


def test_the_next_free_port_is_taken(viewer):
    second = Viewer(ViewerOptions(port=viewer.port), first=scene())
    try:
        assert second.start() == f"http://127.0.0.1:{second.port}/?token={second.access.token}"
        assert second.port != viewer.port
        assert get(second, "/")[0] == 200
    finally:
        second.close()


def test_an_address_that_is_not_ours_is_one_line():
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(ViewerError, match=rf"viewer.host={host}"):
            Viewer(ViewerOptions(port=0, host=host), first=scene()).start()


def test_nobody_else_gets_in(viewer):
    """By the names of other sites, from the pages of other sites, by any path but the page's own."""
    own = f"127.0.0.1:{viewer.port}"
    assert may_connect(own, None, "127.0.0.1") == ""
    assert may_connect(own, f"http://{own}", "127.0.0.1") == ""
    assert may_connect("localhost:1", "http://localhost:1", "127.0.0.1") == ""
    assert "another site" in may_connect(own, "http://evil.example", "127.0.0.1")
    assert "another site" in may_connect(own, "null", "127.0.0.1")
    assert "does not go by" in may_connect("evil.example:80", "http://evil.example:80", "127.0.0.1")
    assert may_connect("127.0.0.1;script-src *", None, "127.0.0.1")
    assert get(viewer, "/", Host="evil.example")[0] == 403
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert get(viewer, "/socket", Origin="http://evil.example", **upgrade, **key)[0] == 403
    for path in ("/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/file/../../x", "/file/x/y", "/page.html"):
        status, body = get(viewer, path)
        assert status == 404, path
        assert b"root:" not in body
    for method in ("POST", "PUT", "DELETE"):
        request = urllib.request.Request(f"http://{own}/", data=b"x", method=method)
        with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE)
        if isinstance(refused.value, urllib.error.HTTPError):
            refused.value.close()
    assert get(viewer, "/")[1].startswith(b"<!doctype html>")


def test_downloads_are_made_and_fetched_once_asked_for(viewer, tmp_path):
    with Client(viewer) as client:
        client.tell(view={"azimuth": 0.3, "size": 64, "number": 1})
        contents = {}
        names = client.next("scenes")[0]["files"]
        assert {*names, "volume.nrrd.zip"} == {*DOWNLOADS}  # NRRD needs a library that not everybody has
        for name in names:
            client.tell(do="download", name=name)
            head, _ = client.next("file")
            status, contents[name] = get(viewer, "/" + head["path"])
            assert status == 200
        client.tell(do="download", name="../../etc/passwd")
        client.tell(do="open", name="../../etc")
        assert "no such run" in client.next("problem")[0]["text"]
        assert len(viewer._workshop.files) == 1
    shown = np.asarray(Image.open(io.BytesIO(contents["view.png"])))
    assert np.array_equal(shown, (expected(blob(), 0.3, 0.0, 64)[0, 0] * 255).round().numpy().astype(np.uint8))
    for name in ("orbit.mp4", "volume.safetensors"):
        (tmp_path / name).write_bytes(contents[name])
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "orbit.mp4"))[0] == 120
    assert same_grid(load_volume(tmp_path / "volume.safetensors"), blob())
    assert contents["sculpture.html"].startswith(b"<!doctype html>")
    assert contents["volume.vdb"].startswith(b" BDV")
    if "volume.nrrd.zip" in contents:
        inside = zipfile.ZipFile(io.BytesIO(contents["volume.nrrd.zip"])).namelist()
        assert {"volume.nrrd", "volume_absorbance.nrrd"} <= {*inside}


# ---- hostile clients --------------------------------------------------------------------------------------------
def test_fifty_pages_garbage_and_one_that_never_reads(viewer):
    from websockets.exceptions import ConnectionClosed

    clients, refused = [], []
    for _ in range(50):
        client = Client(viewer)
        try:
            client.next("scenes")
            clients.append(client)
        except ConnectionClosed as closed:
            refused.append(str(closed.rcvd))
    assert len(clients) == MAX_PAGES
    assert len(refused) == 50 - MAX_PAGES
    assert all("1013" in reason and "too many pages are open" in reason for reason in refused)
    for client, garbage in zip(clients, [b"\x00" * 100, "{", "[" * 3000, "x" * 100_000, '{"do": 5}'], strict=False):
        client.socket.send(garbage)
        with pytest.raises(ConnectionClosed):
            client.next("nothing")
    for client in clients:
        client.close()
    for payload in (b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 1000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", viewer.port)) as raw:
            raw.sendall(payload)
    for header in ("Host: 127.0.0.1", "Origin: http://evil.example\r\nOrigin: http://127.0.0.1"):
        with socket.create_connection(("127.0.0.1", viewer.port)) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{viewer.port}\r\n{header}\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 400")
    with Client(viewer) as good:
        good.tell(view={"size": 20, "number": 1})
        assert good.next("frame")[1].shape == (20, 20)


def test_what_waits_for_a_page_that_never_reads_is_bounded(viewer):
    """Far more than the sockets' buffers hold is sent to a page that claims to take it all in, and does not."""
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    with socket.create_connection(("127.0.0.1", viewer.port)) as raw:
        host = f"GET /socket?token={viewer.access.token} HTTP/1.1\r\nHost: 127.0.0.1:{viewer.port}\r\n"
        raw.sendall(f"{host}{upgrade}AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        assert b"101" in raw.recv(4096)
        wait_until(lambda: viewer._sessions)
        session = viewer._sessions[0]

        def full():
            for size in (100_000, 1_000_000, 10, MAX_OUTBOX + 1):
                for _ in range(400):
                    session.send(bytes(size))
                    session.received(1)
            assert session.waiting_bytes <= MAX_OUTBOX
            return session.waiting_bytes > 3 * MAX_OUTBOX // 4  # not before the sockets' buffers are full too

        wait_until(full)
        assert not session.has_room()
    with Client(viewer) as good:
        good.tell(view={"size": 20, "number": 1})
        assert good.next("frame")[1].shape == (20, 20)


def test_a_page_that_takes_nothing_in_is_dropped(viewer, monkeypatch):
    """Its line is full: not even a ping goes out, whose answer would be missed."""
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.5)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    with socket.create_connection(("127.0.0.1", viewer.port)) as raw:
        host = f"GET /socket?token={viewer.access.token} HTTP/1.1\r\nHost: 127.0.0.1:{viewer.port}\r\n"
        raw.sendall(f"{host}{upgrade}AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        wait_until(lambda: viewer._sessions)
        session = viewer._sessions[0]
        until = time.monotonic() + PATIENCE
        while session in viewer._sessions:
            assert time.monotonic() < until
            session.send(bytes(1_000_000))
            session.received(1)
            time.sleep(0.01)


def test_connections_are_few_and_whoever_asks_nothing_is_dropped(viewer, monkeypatch):
    """Each one is a file descriptor of the process that must be able to save its volume."""
    monkeypatch.setattr(gate, "MAX_CONNECTIONS", 8)
    with Client(viewer) as good:
        monkeypatch.setattr(gate, "REQUEST_SECONDS", 0.5)
        strangers = []
        for _ in range(12):
            strangers.append(socket.create_connection(("127.0.0.1", viewer.port), timeout=PATIENCE))
            strangers[-1].sendall(b"GET /sock")
        assert len(viewer._gate.open) <= gate.MAX_CONNECTIONS
        for raw in strangers:
            with contextlib.suppress(ConnectionError):
                assert raw.recv(1) == b""
            raw.close()
        monkeypatch.setattr(gate, "REQUEST_SECONDS", 60.0)
        good.tell(view={"size": 20, "number": 1})
        assert good.next("frame")[1].shape == (20, 20)
        assert get(viewer, "/")[0] == 200


def test_pings_without_end_and_messages_in_pieces_end_a_page(viewer):
    from websockets.exceptions import ConnectionClosed

    def pieces(client):
        client.socket.send(iter(["{", "}"]))
        client.next("nothing")

    def pings(client):
        for _ in range(2 * gate.MAX_PINGS):
            client.socket.ping()
        client.next("nothing")

    for send in (pieces, pings):
        with Client(viewer) as client, pytest.raises(ConnectionClosed):
            send(client)


def test_a_file_over_a_slow_line_arrives_whole_and_its_memory_is_bounded(viewer, monkeypatch):
    monkeypatch.setattr(gate, "MAX_CARRIED", 30_000_000)
    viewer._workshop.files["x"] = ("volume.vdb", bytes(20_000_000), time.monotonic())
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=PATIENCE) as raw:
        raw.sendall(f"GET /file/x/volume.vdb HTTP/1.1\r\nHost: 127.0.0.1:{viewer.port}\r\n\r\n".encode())
        wait_until(lambda: sum(viewer._gate.open.values()) >= 20_000_000)
        (slow,) = (connection for connection, size in viewer._gate.open.items() if size)
        viewer._loop.call_soon_threadsafe(slow._must_have_asked)  # as the timer does: it has asked, so it stays
        assert get(viewer, "/file/x/volume.vdb")[0] == 503
        assert sum(map(len, iter(lambda: raw.recv(65536), b""))) > 20_000_000
    assert get(viewer, "/file/x/volume.vdb")[0] == 200


def test_each_scene_has_its_own_map_drawn_once(viewer, monkeypatch):
    drawn, real = [], render_thread.map_rows

    def count(scene_, now):
        drawn.append(scene_.name)
        return real(scene_, now)

    monkeypatch.setattr(render_thread, "map_rows", count)
    with Client(viewer) as first, Client(viewer) as second:
        second.next("scenes")
        viewer._sessions[1].look_at(scene(name="other"))
        for client in (first, second):
            client.tell(view={"size": 16, "number": 1})
        for client in (first, second):
            client.next("atlas")
        for number in range(2, 8):
            for client in (first, second):
                client.tell(view={"size": 16, "number": number})
            for client in (first, second):
                while client.next("frame")[0]["number"] != number:
                    pass
        assert sorted(drawn) == ["blob", "other"]


def test_the_end_does_not_wait_for_an_orbit(monkeypatch):
    made = Viewer(ANY_PORT, live=Live(blob(), RendererOptions(16, 15)))
    made.start()
    monkeypatch.setattr(workshop, "TRAINING_PACE", 1e3)
    with Client(made) as client:
        client.tell(do="download", name="orbit.mp4", view={"number": 1})
        client.next("frame")
        time.sleep(0.5)  # it now rests between two images of the orbit, for up to 20 s each
        made.close()
        ending = threading.Thread(target=made._workshop._thread.shutdown, daemon=True)  # as the interpreter does
        ending.start()
        ending.join(60.0)  # 118 images would take far longer
    assert not ending.is_alive()


def test_a_server_that_breaks_leaves_no_run_paused(monkeypatch):
    live, said = Live(blob(), RendererOptions(16, 15)), []
    made = Viewer(ANY_PORT, live=live, say=said.append)
    made.start()
    live.paused = True
    loop = made._loop
    assert loop is not None
    loop.call_soon_threadsafe(loop.stop)
    made._thread.join(PATIENCE)
    assert not live.paused
    assert len(said) == 1
    made.close()


@pytest.mark.parametrize("error", [RuntimeError, TypeError, KeyError])
def test_a_volume_that_cannot_be_drawn_is_said_and_is_not_the_end(error, viewer, monkeypatch):
    broken = scene(name="broken")

    def refuse(*_):
        raise error("out of luck")

    monkeypatch.setattr(broken.snapshot.volume, "dense", refuse)
    with Client(viewer) as client:
        client.next("scenes")
        viewer._sessions[0].look_at(broken)
        client.tell(view={"number": 1})
        assert "out of luck" in client.next("problem")[0]["text"]
        viewer._sessions[0].look_at(viewer.first)
        client.tell(view={"number": 2})
        while client.next("frame")[0]["number"] != 2:
            pass


# ---- training ---------------------------------------------------------------------------------------------------
class Watching(threading.Thread):
    """Opens the page of a run that is about to start, turns it without pause, and presses buttons."""

    def __init__(self, port, script=None):
        super().__init__(daemon=True)
        self.port, self.script, self.frames, self.error = port, script, [], None
        self.access = SimpleNamespace(token=TOKEN)

    def run(self):
        try:
            client = self.connect()
            with client:
                client.tell(view={"size": 32, "number": 0})
                (self.script or self.turn)(client)
        except Exception as error:
            self.error = error

    def connect(self):
        assert os.environ[TOKEN_VARIABLE] == TOKEN  # the page is not there yet, and so it cannot say one
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return Client(self)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def turn(self, client):
        from websockets.exceptions import ConnectionClosed

        try:
            for number in range(1, 10_000):
                self.frames.append(client.next("frame"))
                client.tell(view={"azimuth": 0.1 * number, "size": 32, "number": number, "moving": True})
        except ConnectionClosed:
            return


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def small_trainer(steps=3):
    torch.manual_seed(0)
    images = ImageSet(torch.rand(20, 1, 16, 16), torch.arange(20) % 2, ["a", "b"])
    return make_trainer(VoxelGrid(8), AbsorptionRenderer(16), images, TrainerOptions(max_steps=steps, views=4))


def pages(options, trainer):
    """The page as a callback, or none."""
    page = start_page(options, trainer, "run", None, None)
    if page is None:
        return []
    page.announce()
    return [page]


class WaitsForFrames:
    """Holds the training at some steps until the page has shown a volume of that step or a later one."""

    def __init__(self, watching, at):
        self.watching, self.at = watching, at

    def after_step(self, trainer, report):
        if report.step in self.at:
            wait_until(lambda: any(head["step"] >= report.step for head, _ in self.watching.frames))

    def finish(self, trainer):
        pass


def test_the_same_volume_to_the_bit_with_and_without_a_page(capsys, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setattr("mnist3d.callbacks.live_page.COPY_SECONDS", 0.0)  # a copy at every step
    monkeypatch.setattr("mnist3d.callbacks.live_page.COPY_SHARE", 1e9)

    def train(options, *more):
        trainer = small_trainer(30)
        trainer.run([*pages(options, trainer), *more])
        return trainer.volume.state_dict()

    port = free_port()
    watching = Watching(port)
    watching.start()
    with_page = train(ViewerOptions(port=port, share=1.0), WaitsForFrames(watching, (5, 10, 15)))
    watching.join(PATIENCE)
    without = train(ViewerOptions(enabled=False))
    assert watching.error is None
    steps = [head["step"] for head, _ in watching.frames]
    assert len(set(steps)) > 2
    assert steps == sorted(steps)
    assert all(torch.equal(with_page[key], without[key]) for key in without)
    assert f"watch it: http://127.0.0.1:{port}/" in capsys.readouterr().err


def test_pause_resume_and_stop_from_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    port, told = free_port(), {}

    def script(client):
        def state(wanted):
            while (head := client.next("figures")[0])["state"] != wanted:
                pass
            return head

        told["training"] = state("training")
        client.tell(do="pause")
        told["paused"] = state("paused")
        client.tell(view={"azimuth": 1.0, "size": 32, "number": 9})
        while client.next("frame")[0]["number"] != 9:  # one can look around while it rests
            pass
        client.tell(do="resume")
        told["again"] = state("training")
        client.tell(do="stop")
        told["end"] = state("finished")

    watching = Watching(port, script)
    watching.start()
    # the minutes end a run whose page never asks for its end; the test then fails
    arguments = [*TINY, "--trainer.max_minutes", "3", "--viewer.port", str(port), "--run_dir", str(tmp_path / "run")]
    run = sculpt(parse_command_line(arguments))
    watching.join(PATIENCE)
    assert watching.error is None
    assert told["again"]["step"] > told["paused"]["step"] >= told["training"]["step"]
    assert told["end"]["progress"] < 1.0
    assert told["training"]["curves"]["step"]
    assert (run / "resume.pt").is_file()
    files = [path for path in run.rglob("*") if path.is_file()]
    assert run / "config.yaml" in files
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
    out, error = capsys.readouterr()
    assert TOKEN not in out + error
    assert "paused on the page" in error
    assert "asked for on the page" in error or "stopping and saving" in error


def test_a_pause_does_not_count(monkeypatch):
    """By a clock that only waiting moves: a pause of 500 seconds leaves the training clock where it was."""
    now, trainer = [0.0], small_trainer()
    live = Live(trainer.averaged, trainer.renderer.options)
    live.paused = True

    def sleep(seconds):
        now[0] += seconds
        live.paused = now[0] < 500.0

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("mnist3d.callbacks.live_page.time", clock)
    monkeypatch.setattr("mnist3d.training.trainer.time", clock)
    trainer._resumed_at = 0.0
    page = LivePage(live, Viewer(ANY_PORT, live=live))
    now[0] = 7.0
    page.after_step(trainer, trainer.step())
    assert now[0] >= 500.0
    assert trainer.seconds == pytest.approx(7.0)


def test_classifiers_that_are_ready_while_a_run_is_paused_are_taken_then(monkeypatch):
    """By a clock that only waiting moves; until then the page is told how far they are."""
    now, told, trainer = [0.0], [], small_trainer()

    class Training:
        words = "classifiers 40 %"

        def start(self):
            raise AssertionError("nobody has asked for it")

        def take(self):
            return NothingToRead() if now[0] > 5.0 else None

        def as_message(self):
            return {"state": "running", "share": now[0] / 5.0}

    live = Live(trainer.averaged, trainer.renderer.options, reader_training=Training())
    live.paused = True

    def sleep(seconds):
        now[0] += seconds
        told.append(live.scene.figures)
        live.paused = now[0] < 10.0

    monkeypatch.setattr("mnist3d.callbacks.live_page.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    LivePage(live, Viewer(ANY_PORT, live=live)).after_step(trainer, trainer.step())
    assert isinstance(live.scene.reader, NothingToRead)
    assert live.scene.why_no_reader == ""
    shares = [figures["classifier_training"]["share"] for figures in told]
    assert shares[0] == 0.0
    assert len({*shares}) > 5  # now and then, not at every poll
    assert len({*shares}) < len(shares) / 2
    assert told[0]["why_no_scores"] == "classifiers 40 %"


@pytest.mark.parametrize("fault", ["package", "address", "painter", "hook"])
def test_no_failure_of_the_page_reaches_the_run(fault, capsys, monkeypatch):
    def fail(*_):
        raise OSError("the page broke")

    options = ViewerOptions(port=0)
    if fault == "package":
        monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    elif fault == "address":
        options.host = "203.0.113.7"
    elif fault == "painter":
        monkeypatch.setattr("mnist3d.viewer.render_thread.Painter._turn", fail)
    else:
        monkeypatch.setattr("mnist3d.callbacks.live_page.LivePage._show", fail)
    trainer = small_trainer()
    trainer.run(pages(options, trainer))
    assert trainer.steps_done == 3
    error = capsys.readouterr().err
    words = {
        "package": "no page for this run: it needs the package websockets",
        "address": "no page for this run: viewer.host=203.0.113.7",
        "painter": "the viewer has stopped drawing: the page broke",
        "hook": "the viewer is off for the rest of this run: the page broke",
    }
    assert error.count(words[fault]) == 1, error


def test_the_end_of_a_run_waits_until_its_pages_were_told_and_not_for_ever(monkeypatch):
    """By a clock that only waiting moves."""
    now = [0.0]
    monkeypatch.setattr(
        "mnist3d.callbacks.live_page.time",
        SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)),
    )
    ends = []
    for told_after in (0.0, 3.0, math.inf):
        trainer, now[0] = small_trainer(), 0.0
        live = Live(trainer.averaged, trainer.renderer.options)
        live.watched = True
        viewer = Viewer(ANY_PORT, live=live)
        monkeypatch.setattr(viewer, "all_told", lambda after=told_after: now[0] >= after)
        LivePage(live, viewer).finish(trainer)
        ends.append(now[0])
        assert live.scene.figures is not None
        assert live.scene.figures["state"] == "finished"
    assert ends == pytest.approx([1.0, 3.0, 1.0 + LAST_FIGURES_SECONDS], abs=0.2)  # two polls


def test_a_page_behind_another_window_hears_of_the_end(viewer):
    """It acknowledges nothing, so that it has no room for figures, but for the last."""
    with Client(viewer) as client:
        wait_until(lambda: viewer._sessions)
        session = viewer._sessions[0]
        for _ in range(5):
            session.send(pack({"kind": "other"}))
        assert not session.has_room()
        wait_until(viewer.all_told)
        session.scene.figures = {"state": "training"}
        assert not viewer.all_told()
        time.sleep(2 * FIGURES_SECONDS)
        assert session.figures is None
        session.scene.figures = {"state": "finished"}
        wait_until(viewer.all_told)
        client.tell = lambda **_: None
        assert client.next("figures")[0]["state"] == "finished"


def test_live_hands_over_copies():
    volume = blob()
    live = Live(volume, RendererOptions(16, 15))
    with torch.no_grad():
        for weight in volume.parameters():
            weight.add_(1.0)
    assert same_grid(live.scene.snapshot.volume, blob())
    live.offer({key: value.clone() for key, value in volume.state_dict().items()}, step=3)
    assert live.scene.snapshot.version == 0
    live.refresh()
    assert (live.scene.snapshot.version, live.scene.snapshot.step) == (1, 3)
    assert same_grid(live.scene.snapshot.volume, volume)


@pytest.mark.parametrize(
    "growing",
    [VoxelGrid(16, grow_at=[1]), HashGrid(3, max_resolution=12, bake_resolution=16, grow_at=[1], levels_at=[1])],
    ids=["VoxelGrid", "HashGrid"],
)
def test_a_volume_that_grows_and_goes_back_while_it_is_watched(growing):
    live = Live(growing, RendererOptions(16))
    states, grids = [], []
    for step in range(2):
        assert growing.grow(step, 0.5) == (step == 1)
        for parameter in growing.parameters():
            torch.nn.init.normal_(parameter)
        states.append({key: value.clone() for key, value in growing.state_dict().items()})
        grids.append(growing.dense().detach())
    assert grids[0].shape[-1] == 8
    assert grids[1].shape[-1] == 16
    for step in (1, 0, 1):
        live.offer(states[step], step=step)
        live.refresh()
        shown = live.scene.snapshot.volume.dense()
        assert shown is not None
        assert torch.equal(shown, grids[step])


def test_a_field_is_drawn_as_the_renderer_draws_it():
    class Egg(Volume):
        def forward(self, points):
            inside = torch.sigmoid(12.0 * (0.6 - points.norm(dim=-1)))
            return 4.0 * inside, torch.sigmoid(3.0 * points[..., 0])

    snapshot = Snapshot(FrozenField(Egg()), 0)
    shown = rendered_view(snapshot, RendererOptions(16, 20), View(azimuth=0.5, size=21))
    like = AbsorptionRenderer(21, 20)(Egg(), euler_matrix(torch.tensor([0.0, 0.5, 0.0])))
    assert torch.equal(shown, like)
    cut = rendered_view(snapshot, RendererOptions(16, 20), View(azimuth=0.5, size=21, cut=0.3))
    assert shown.mean() > 1.2 * cut.mean()


# ---- runs on disk -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("root") / "runs"
    arguments = [*TINY, "--trainer.max_steps", "3", "--viewer.enabled", "false", "--run_dir", str(root / "two")]
    # Not scored: whether the classifiers are there before three steps are over depends on the machine.
    sculpt(parse_command_line([*arguments, "--scorecard.every", "0"]))
    shutil.copytree(root / "two", root / "one")
    os.utime(root / "one" / "volume.safetensors", (1e9, 1e9))
    (root / "empty").mkdir()
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "volume.safetensors").write_bytes((root / "one" / "volume.safetensors").read_bytes())
    return root


def test_the_menu_lists_the_runs_and_opens_only_those(runs):
    gallery = Gallery(runs)
    assert gallery.names() == ["two", "one"]
    assert Gallery(runs, leave_out=runs / "two").names() == ["one"]
    opened = gallery.open("two")
    assert opened is gallery.open("two")
    assert opened.snapshot.step == 3
    assert opened.figures is not None
    assert opened.figures["curves"]["step"] == [3]
    for name in ("../outside", str(runs / "one"), "", ".", "empty"):
        with pytest.raises(ValueError, match="no such run"):
            gallery.open(name)


def test_the_menu_switches_and_a_damaged_run_is_one_line(runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    gallery = Gallery(root)
    made = Viewer(ANY_PORT, shelf=gallery, first=gallery.open("one"))
    made.start()
    try:
        with Client(made) as client:
            assert client.next("scenes")[0]["names"] == ["two", "one"]
            client.tell(do="open", name="two", view={"number": 1})
            while (head := client.next("frame")[0])["scene"] != "two":
                pass
            assert head["step"] == 3
            (root / "one" / "volume.safetensors").write_bytes(b"not a volume")
            client.tell(do="open", name="one")
            assert "one/volume.safetensors" in client.next("problem")[0]["text"]
    finally:
        made.close()
    with pytest.raises((ValueError, RunError)):
        gallery.open("one")


@pytest.mark.parametrize(
    "stats",
    [
        '{"step": 1, "legible": 0.5, "histogram": {"0": NaN, "1": 0.5}, "seconds": NaN}',
        '{"step": 1, "legible": 0.5, "histogram": [1, 2]}',
        '{"step": {"a": 1}, "legible": "x", "seconds": true}',
        f'{{"step": {"9" * 5000}, "discriminator_loss": 1}}',
        f'{{"step": {"9" * 400}, "discriminator_loss": {"9" * 400}}}',
        "[" * 100_000,
        "7",
    ],
    ids=range(7),
)
def test_a_run_with_damaged_figures_is_shown_all_the_same(stats, runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    (root / "one" / "stats.jsonl").write_text(stats + "\n")
    made = Viewer(ANY_PORT, shelf=Gallery(root), first=scene())
    made.start()
    try:
        with Client(made) as client:
            client.tell(do="open", name="one", view={"number": 1})
            while client.next("scenes")[0]["current"] != "one":
                pass
            assert client.next("figures")[0]["state"] == "finished"
            client.tell(do="download", name="view.png")
            client.next("file")
    finally:
        made.close()


def test_the_page_says_what_is_wrong_with_the_figures_of_a_run(runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    stats = root / "one" / "stats.jsonl"
    stats.write_text('{"step": 1, "a_loss": "much"}\n{"step": 2, "a_loss": 1.5}\n')
    figures = Gallery(root).open("one").figures
    assert figures is not None
    assert figures["curves_note"] == "1 values in stats.jsonl are no finite numbers and are not shown"
    stats.unlink()
    stats.mkdir()
    figures = Gallery(root).open("one").figures
    assert figures is not None
    assert "stats.jsonl" in figures["curves_note"]


def test_a_run_is_said_not_to_be_scored_only_where_it_has_no_scorecard(runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)

    def why():
        figures = Gallery(root).open("one").figures
        assert figures is not None
        return figures["why_no_scores"]

    assert why().startswith("This run was not scored; ")
    card = {"format": 2, "poses": {"sphere": {"legible": 0.5}}, "real": {"legible": 1.0}}
    (root / "one" / "scorecard.json").write_text(json.dumps(card))
    assert why() == ""


def test_a_shelf_that_cannot_be_read_and_one_without_end_leave_the_page_as_it_is(viewer):
    viewer.shelf = SimpleNamespace(names=lambda: [f"run {n}" for n in range(9999)])
    with Client(viewer) as client:
        assert client.next("scenes")[0]["names"] == ["blob", *(f"run {n}" for n in range(server.MAX_NAMES))]

    def fail():
        raise PermissionError("no")

    viewer.shelf, viewer._names = SimpleNamespace(names=fail), (-server.NAMES_SECONDS, [])
    with Client(viewer) as client:
        assert client.next("scenes")[0]["names"] == ["blob"]


def test_view_passes_over_what_does_not_open_and_says_so(runs, tmp_path, monkeypatch, capsys):
    """The newest run is damaged, the next is of somebody's own class, the third opens; without any, one line."""
    root = tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no finished run"):
        _newest_that_opens(None)
    shutil.copytree(runs, root)
    for name, when in (("damaged", 3e9), ("foreign", 2e9)):
        shutil.copytree(root / "one", root / name)
        file = root / name / "volume.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[:99] if name == "damaged" else content.replace(b"mnist3d.volumes", b"theirs3.volumes"))
        os.utime(file, (when, when))
    path, run, lines = _newest_that_opens(None)
    assert str(path) == os.path.join("runs", "two")
    assert type(run.volume) is VoxelGrid
    said = capsys.readouterr().err.splitlines()
    assert said == lines
    assert len(said) == 2
    assert said[0].startswith(f"{os.path.join('runs', 'damaged')} is left out: ")
    assert "theirs3.volumes" in said[1]
    shutil.rmtree(root / "one")
    shutil.rmtree(root / "two")
    with pytest.raises(VolumeFileError, match="damaged"):  # the newest one's own reason
        _newest_that_opens(None)
    assert capsys.readouterr().err == ""


def test_a_run_made_to_harm_is_refused_in_one_line(runs, tmp_path):
    """A pipe that would be waited for, lines of YAML that stand for billions of values, lists in lists."""
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    config = root / "one" / "config.yaml"
    aliases = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    for content in ("\n".join(["a0: &a0 [x, x]", *aliases, "data: {name: *a8}"]), "[" * 20_000):
        config.write_text(content)
        with pytest.raises(RunError, match=r"one/config.yaml: damaged"):
            Gallery(root).open("one")
    if hasattr(os, "mkfifo"):
        config.unlink()
        os.mkfifo(config)
        with pytest.raises(RunError, match="is a named pipe, not a plain file"):
            Gallery(root).open("one")


def test_no_thread_is_left_behind():
    made = Viewer(ANY_PORT, first=scene())
    made.start()
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mnist3d-")]
