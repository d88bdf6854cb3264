"""What somebody has who installs the wheel and has no clone: one command, presets, licence, and every way out.

The wheel goes into an environment of its own. Its dependencies come from the environment that runs the tests, by path:
that holds this package as a clone, which such a path does not bring along.
"""

import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from fork_server import ForkServer

import mnist3d
from mnist3d.cli.presets import preset_names
from mnist3d.evaluation.packaged import FILE

ROOT = Path(__file__).parent.parent
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may lead to a clone
PACKED = ["mnist3d", "configs", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from copies, so that nothing of an older build in the clone gets in, and nothing is left there."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in PACKED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    # Without isolation, which would download setuptools: the test extra brings it.
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", built, source]
    subprocess.run([sys.executable, "-m", "pip", *map(str, build)], env=ALONE, check=True)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new virtual environment with the wheel in it."""
    path = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    python = path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    install = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", *map(str, install)], env=ALONE, check=True)
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    inside = Path(subprocess.run(asked, env=ALONE, check=True, capture_output=True, text=True).stdout.strip())
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (inside / "dependencies.pth").write_text("".join(f"{each}\n" for each in sorted(others)))
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the user works: far from the clone."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def mnist3d_run(environment, folder):
    """Runs a command line that begins with `mnist3d` or `python`, as typed in a shell of that environment."""

    def run(line):
        program, *rest = shlex.split(line)
        words = [environment.with_name(program), *rest]
        return subprocess.run(words, cwd=folder, env=ALONE, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory):
    """Runs commands of that environment in forks of one process that has imported it."""
    server = ForkServer(tmp_path_factory.mktemp("server"), environment)
    yield server
    server.close()


@pytest.fixture(scope="module")
def trained(mnist3d_run):
    """A run of four steps by a preset's name, in the folder `run`."""
    return mnist3d_run("mnist3d train --config digits --trainer.max_steps 4 --viewer.enabled false --run_dir run")


def test_the_wheel_holds_presets_pages_licence_and_citation(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = Parser().parsestr(file.read(next(name for name in names if name.endswith("/METADATA"))).decode())
    inside = {name.partition(".dist-info/")[2] or name for name in names}
    assert inside >= {f"mnist3d/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert inside >= {f"mnist3d/viewer/page/{path.name}" for path in (ROOT / "mnist3d/viewer/page").iterdir()}
    assert inside >= {"mnist3d/export/page.html", "mnist3d/py.typed"}
    assert f"mnist3d/evaluation/{FILE.name}" in inside
    assert inside >= {"licenses/LICENSE", "licenses/CITATION.cff"}
    modules = {f"{path.relative_to(ROOT)}" for path in (ROOT / "mnist3d").rglob("*.py")}
    assert {name for name in inside if name.endswith(".py")} == modules
    assert (metadata["License"], metadata["Version"]) == ("MIT", mnist3d.__version__)


def test_it_is_the_wheel_that_runs(mnist3d_run):
    done = mnist3d_run("python -c 'import mnist3d; print(mnist3d.__file__)'")
    assert "site-packages" in done.stdout, done.stderr
    assert str(ROOT) not in done.stdout


def test_presets_go_by_name(mnist3d_run):
    listed = mnist3d_run("mnist3d presets").stdout
    assert [line.split()[0] for line in listed.splitlines()[: len(preset_names())]] == preset_names()
    printed = mnist3d_run("mnist3d presets hash_grid").stdout
    assert printed == (ROOT / "configs" / "hash_grid.yaml").read_text()


def test_a_preset_that_is_not_there_and_an_unknown_command_are_one_line(server, folder, mnist3d_run):
    for line, words in (
        ("trian", "mnist3d: error: trian: no such command, did you mean train?"),
        ("--config digits", "a command comes first, as in mnist3d train --config"),
        ("presets hashgrid", "mnist3d presets: error: hashgrid: no such preset, did you mean hash_grid?"),
        (
            "train --config hashgrid",
            "mnist3d train: error: config=hashgrid: no such preset or file, did you mean hash_grid?",
        ),
        ("orbit", "mnist3d orbit: error: runs: holds no finished run; sculpt one first: "),
    ):
        code, out, err = server.run(*line.split(), folder=folder)
        assert (code, err.count("\n"), out) == (2, 1, ""), err
        assert words in err
    done = mnist3d_run("mnist3d trian")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr


def test_a_run_says_what_to_type_and_that_works(trained, mnist3d_run, folder):
    assert trained.returncode == 0, trained.stderr
    look = trained.stdout.splitlines()[-1].partition("Look at it: ")[2]
    environment_program = shlex.split(look)[0]  # by its path, as this environment is not activated
    assert Path(environment_program).name == "mnist3d"
    done = subprocess.run(
        [*shlex.split(look), "--snapshot", "views.png"],
        cwd=folder,
        env=ALONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "views.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("orbit run --output orbit.gif --frames 4 --size 32", "orbit.gif"),
        ("voxels run --output sculpture.nrrd", "sculpture.nrrd"),
        ("mesh run --output sculpture.stl", "sculpture.stl"),
        ("points run --output sculpture.dxf --count 500", "sculpture.dxf"),
        ("page run --output sculpture.html", "sculpture.html"),
        ("plot run --output run.pdf", "run.pdf"),
    ],
)
def test_every_way_out(line, file, trained, server, folder):
    assert trained.returncode == 0, trained.stderr
    code, _, err = server.run(*line.split(), folder=folder)
    assert code == 0, err
    assert (folder / file).stat().st_size > 1_000


def test_as_a_module(trained, mnist3d_run, folder):
    assert trained.returncode == 0, trained.stderr
    done = mnist3d_run("python -m mnist3d voxels run --output again.npz")
    assert done.returncode == 0, done.stderr
    assert (folder / "again.npz").stat().st_size > 1_000


def test_the_score(trained, server, folder):
    assert trained.returncode == 0, trained.stderr
    code, out, err = server.run("score", "run", "--views", "20", folder=folder)
    assert code == 0, err
    assert out.split()[:2] == ["euler_normal", "sphere"]
    *_, card, atlas, strip, sentence = out.splitlines()
    assert all((folder / file).is_file() for file in (card, atlas, strip))  # it says where they lie
    assert " of the views can be read" in sentence
    assert err == ""  # nothing was trained, and the classifiers of the package are whole
