"""Who may look at the page, and who may act on it: with the token, without, read only, from elsewhere."""

import asyncio
import json
import random
import re
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from viewer_client import ANY_PORT, Client, blob, get, scene, wait_until  # pyright: ignore[reportMissingImports]
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mnist3d.callbacks.live_page import LivePage
from mnist3d.errors import ViewerError
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.viewer import Live, Viewer, ViewerOptions, jobs
from mnist3d.viewer.access import ONCE_SECONDS, TOKEN_VARIABLE, Access
from mnist3d.viewer.client import Session
from mnist3d.viewer.messages import ACTIONS

CHOSEN = "a-token-for-tests-0123"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def serve(monkeypatch):
    """Makes viewers of a run in training, and closes them."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    made = []

    def start(**options):
        made.append(Viewer(ViewerOptions(port=0, **options), live=Live(blob(), RendererOptions(16, 15))))
        made[-1].start()
        return made[-1]

    yield start
    for viewer in made:
        viewer.close()


def own_origin(viewer):
    return f"http://127.0.0.1:{viewer.port}"


def untouched(viewer):
    return not (viewer.live.paused or viewer.live.stop_asked or viewer._workshop.files)


def refused_actions(client):
    """What the page is told when it asks for each thing that changes the run or takes something away."""
    told = []
    for action in ACTIONS:
        client.tell(do=action, name="view.png")
        told.append(client.next("problem")[0]["text"])
    return {*told}


# ---- on this machine --------------------------------------------------------------------------------------------
def test_with_the_token_of_the_printed_address_everything_is_allowed(serve):
    viewer = serve()
    address = urlsplit(viewer.access.printed_url)
    assert get(viewer, f"{address.path}?{address.query}")[0] == 200
    with Client(viewer, address.query.removeprefix("token="), origin=own_origin(viewer)) as client:
        head, _ = client.next("scenes")
        assert (head["acts"], head["why_not"]) == (True, "")
        client.tell(do="download", name="view.png")
        assert get(viewer, "/" + client.next("file")[0]["path"])[0] == 200
        client.tell(do="pause")
        wait_until(lambda: viewer.live.paused)
        client.tell(do="resume")
        wait_until(lambda: not viewer.live.paused)
        client.tell(do="stop")
        wait_until(lambda: viewer.live.stop_asked)


@pytest.mark.parametrize("token", ["", "x", "prefix", "longer", "%F0%9F%92%A9"])
def test_without_the_token_one_can_look_and_nothing_else(token, serve):
    viewer = serve()
    token = {"prefix": viewer.access.token[:-1], "longer": viewer.access.token + "0"}.get(token, token)
    assert get(viewer, f"/?token={token}")[0] == 200
    with Client(viewer, token, origin=own_origin(viewer)) as client:
        head, _ = client.next("scenes")
        assert (head["acts"], head["files"]) == (False, [])
        assert head["why_not"] == "Read only: open the printed address to pause or download."
        client.tell(view={"size": 20, "number": 3})
        assert client.next("frame")[1].shape == (20, 20)
        assert refused_actions(client) == {head["why_not"]}
    assert untouched(viewer)


def test_what_is_no_browser_needs_the_token_even_to_look(serve):
    viewer = serve()
    for query in ("", "?token=", "?token=x", f"?other={viewer.access.token}", f"?token=x&token={viewer.access.token}"):
        status, body = get(viewer, f"/socket{query}", **UPGRADE)
        assert (status, body) == (403, b"open the address that the terminal printed: it ends in ?token=...")
    with Client(viewer) as client:
        assert client.next("scenes")[0]["acts"]


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:1", "file://", "http://localhost:0"]
)
def test_another_sites_page_gets_no_socket_even_with_the_token(origin, serve):
    viewer = serve()
    with pytest.raises(InvalidStatus, match="403"):
        Client(viewer, origin=origin)


def test_a_name_that_is_made_to_mean_this_machine_gets_nothing_even_with_the_token(serve):
    viewer = serve()
    for path in (f"/?token={viewer.access.token}", f"/socket?token={viewer.access.token}"):
        host = f"evil.example:{viewer.port}"
        status, body = get(viewer, path, Host=host, Origin=f"http://{host}", **UPGRADE)
        assert status == 403
        assert b"does not go by the name" in body


# ---- downloads --------------------------------------------------------------------------------------------------
def test_a_ticket_ends_with_the_page_that_it_was_given_to(serve):
    viewer = serve()
    with Client(viewer) as client, Client(viewer, "", origin=own_origin(viewer)) as other:
        client.tell(do="download", name="view.png")
        path = "/" + client.next("file")[0]["path"]
        assert get(viewer, path)[0] == 200
        assert len(path.split("/")[2]) >= 20  # 120 bits
        assert get(viewer, path.replace(path.split("/")[2], "x"))[0] == 404
        other.tell(view={"number": 1})
        other.next("frame")
        assert get(viewer, path)[0] == 200
    wait_until(lambda: not viewer.pages)
    assert get(viewer, path)[0] == 404


def test_files_that_nobody_fetches_are_few_bytes_and_go_with_time(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(monotonic=lambda: clock.now, thread_time=time.thread_time)
    monkeypatch.setattr(jobs, "time", fake)
    monkeypatch.setattr(jobs, "MAX_KEPT", 1000)
    loop = asyncio.new_event_loop()
    sessions = [Session(scene(), loop) for _ in range(5)]
    work = jobs.Workshop(jobs.Allowance(1.0), lambda session: session is not sessions[4])

    def kept():
        return [len(content) for _, content, _ in work.files.values()]

    for session in sessions[:3]:
        clock.now += 1.0
        work.keep(session, "a", bytes(400))
    assert kept() == [400, 400]  # the oldest went
    work.keep(sessions[2], "b", bytes(500))
    assert kept() == [400, 500]  # one a page
    work.keep(sessions[3], "c", bytes(5000))
    assert kept() == [5000]  # larger than all, and the only one
    work.keep(sessions[4], "d", bytes(10))  # this page has closed in the meantime
    assert kept() == []
    work.keep(sessions[0], "e", bytes(10))
    clock.now += jobs.FILE_SECONDS + 1.0
    work.drop_old()
    assert kept() == []
    work.close()
    loop.close()


# ---- read only --------------------------------------------------------------------------------------------------
def test_read_only_holds_with_the_token_too(serve):
    viewer = serve(read_only=True)
    for token in ("", viewer.access.token):
        with Client(viewer, token, origin=own_origin(viewer)) as client:
            head, _ = client.next("scenes")
            assert (head["acts"], head["files"]) == (False, [])
            assert refused_actions(client) == {"This page is read only."}
    assert untouched(viewer)


# ---- other machines ---------------------------------------------------------------------------------------------
def test_where_other_machines_reach_it_nothing_is_shown_without_the_token(serve):
    viewer = serve(host="0.0.0.0")
    for query in ("", "?token=x", "?once="):
        status, body = get(viewer, f"/{query}")
        assert status == 403
        assert b"open the address that the terminal printed" in body
        assert b'id="view"' not in body
        assert get(viewer, f"/socket{query}", Origin=own_origin(viewer), **UPGRADE)[0] == 403
    token = viewer.access.token
    assert b'id="view"' in get(viewer, f"/?token={token}")[1]
    with Client(viewer, token, origin=own_origin(viewer)) as client:
        assert client.next("scenes")[0]["acts"]
    assert untouched(viewer)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
    ],
)
def test_which_addresses_are_this_machines_alone(address, local):
    access = Access()
    assert not access.local  # before it listens
    access.listens_on("anything", address, 8328)
    assert access.local is local


def test_the_terminal_says_what_the_token_protects(serve, capsys):
    for options, words in (
        ({"host": "127.0.0.1"}, None),
        ({"host": "0.0.0.0"}, "whoever has this address can watch, pause and stop this run; without its token"),
        ({"host": "0.0.0.0", "read_only": True}, "whoever has this address can watch; without its token"),
    ):
        viewer = serve(**options)
        LivePage(viewer.live, viewer).announce()
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"watch it: http://127.0.0.1:{viewer.port}/?token={viewer.access.token}"
        assert len(lines) == (1 if words is None else 2)
        assert words is None or words in lines[1]


# ---- the token --------------------------------------------------------------------------------------------------
def test_each_viewer_has_its_own_token_unless_one_is_chosen(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    tokens = [Access().token for _ in range(3)]
    assert len({*tokens}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert Access().token not in ("", *tokens)
    monkeypatch.setenv(TOKEN_VARIABLE, CHOSEN)
    access = Access()
    access.listens_on("localhost", "127.0.0.1", 8328)
    assert access.url == f"http://127.0.0.1:8328/?token={CHOSEN}"
    assert access.printed_url == "http://127.0.0.1:8328/?token=..."  # a log need not repeat it


@pytest.mark.parametrize(
    "wrong", ["short", "with spaces in it 12", "ümlaut-1234567890", "x" * 129, "0123456789abcdef\n"]
)
def test_a_token_that_is_none_is_refused_without_being_repeated(wrong, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, wrong)
    with pytest.raises(ViewerError, match=r"MNIST3D_TOKEN: must be 16 to 128 letters") as refused:
        Viewer(ANY_PORT, first=scene())
    assert wrong not in str(refused.value)


def test_a_browser_is_started_with_an_address_that_works_once(serve, monkeypatch):
    """The arguments of a program can be read by all users of the machine."""
    viewer = serve(host="0.0.0.0")
    assert viewer.access.token not in viewer.access.url_for_browser()
    path = viewer.access.url_for_browser().removeprefix(viewer.access.address)
    assert get(viewer, "/" + path[:-1])[0] == 403
    assert get(viewer, "/" + path)[0] == 303
    assert get(viewer, "/" + path)[0] == 403
    late = urlsplit(viewer.access.url_for_browser()).query
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + ONCE_SECONDS)
    assert not viewer.access.admits_once(late)


# ---- hostile messages -------------------------------------------------------------------------------------------
def value(draw, depth=0):
    """Anything that JSON can say, and some that it cannot."""
    kinds = [
        lambda: draw.choice(["NaN", "Infinity", "-Infinity", "1e999", "-0", "1e-400", "null", "true", "false"]),
        lambda: "-" * draw.randrange(2) + "9" * draw.choice([1, 17, 309, 1000]),
        lambda: json.dumps("".join(chr(draw.choice([0, 34, 65, 0x202E, 0xD800, 0x1F600])) for _ in range(9))),
        lambda: draw.choice(["[" * 1500, '{"a":' * 700, "", "\\", '"', "'x'", "01", "+1", "0x1"]),
        lambda: f"[{', '.join(value(draw, depth + 1) for _ in range(draw.randrange(4)))}]",
        lambda: message(draw, depth + 1),
    ]
    return draw.choice(kinds if depth < 4 else kinds[:3])()


def message(draw, depth=0):
    """An object with keys that the page uses, and others."""
    keys = ["view", "received", "do", "name", "azimuth", "size", "cut_normal", "number", "__class__", "\\u0000"]
    pairs = [f'"{draw.choice(keys)}": {value(draw, depth + 1)}' for _ in range(draw.randrange(1, 4))]
    return "{" + ", ".join(pairs) + "}"


def hostile(draw):
    """One message: text or a binary frame."""
    text = draw.choice([message, message, value])(draw)
    text = draw.choice([text, text, text[: draw.randrange(len(text) + 1)], text + " " * 5000])
    return text if draw.random() < 0.8 else text.encode() + draw.choice([b"", b"\xff", b"\xc3", b"\x00"])


def test_three_hundred_hostile_messages_end_at_most_their_own_page(serve):
    viewer, draw, said, ends = serve(), random.Random(22), [], []
    viewer._say = said.append
    with Client(viewer) as good:
        for _ in range(300):
            sent = hostile(draw)
            with Client(viewer) as client:
                client.next("scenes")
                try:
                    client.socket.send(sent)
                    client.tell(do="scenes")
                    client.next("scenes")  # it was an odd message, but one, and the page goes on
                    ends.append((None, ""))
                except ConnectionClosed as closed:
                    ends.append((closed.rcvd and closed.rcvd.code, closed.rcvd and closed.rcvd.reason))
        good.tell(view={"size": 20, "number": 1})
        assert good.next("frame")[1].shape == (20, 20)
    assert {code for code, _ in ends} == {None, 1008, 1009}  # no 1011, which would be an error of the server's own
    assert all(reason for code, reason in ends if code is not None)
    assert said == []
    assert untouched(viewer)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ('{"do": 5}', "unknown command"),
        ('["\\é"]', "Invalid \\escape: line 1 column 3 (char 2)"),
        (b"{}", "a message must be text"),
    ],
)
def test_the_reason_is_what_is_wrong(sent, reason, serve):
    with Client(serve()) as client:
        client.next("scenes")
        client.socket.send(sent)
        with pytest.raises(ConnectionClosed) as closed:
            client.next("nothing")
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, reason)


def test_text_that_is_no_utf8_ends_its_page_with_a_reason(serve):
    viewer = serve()
    with Client(viewer) as client:
        client.next("scenes")
        client.socket.send(b'{"view": "\xc3\x28"}', text=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.next("nothing")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007
