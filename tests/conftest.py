"""What all tests share."""

import os
import shutil
import sys
from pathlib import Path

# Set before torch is imported: OpenMP's waiting threads otherwise spin, and two of them on a busy machine make
# a test of seconds take minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes of pytest-xdist share the cores.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
# For tests of `tools/`, with `pytest` and `python -m pytest` alike.
sys.path.insert(0, str(Path(__file__).parent.parent))

import pytest

# What takes longest, the longest first: a file that is begun last keeps one process busy when the others have nothing.
LONGEST = (
    *("test_processes", "test_wheel", "test_faults", "test_kernels_triton", "test_viewer_browser", "test_ends"),
    *("test_dtypes", "test_notebooks", "test_page", "test_invocation", "test_command_line", "test_watchdog"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order in which pytest-xdist hands files out."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _no_word_of_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 20 s says how far it is: on a busy machine a line more than a test of a command's words expects."""
    monkeypatch.setattr("mnist3d.runs.at_work.LINE_SECONDS", 1e9)


def need(condition: object, reason: str) -> None:
    """Skip a test whose reader is not installed, with the reason; in CI, where all are installed, fail."""
    if not condition:
        (pytest.fail if os.environ.get("MNIST3D_CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def playwright():
    """What drives browsers. Ended with its file: until then it keeps an event loop running, where nothing else
    of asyncio's starts, and no second one of these."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need(False, "playwright is not installed: pip install -e '.[test]'")
        raise
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def chromium_path() -> str:
    """The browser that is installed; none is ever downloaded."""
    paths = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    need(paths, "chromium is not installed (Debian: apt-get install chromium)")
    return paths[0]


@pytest.fixture(scope="module")
def chromium(chromium_path: str, playwright):
    """The browser, headless, with WebGL in software."""
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
    yield browser
    browser.close()
