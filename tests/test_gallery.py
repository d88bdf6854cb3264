"""Finished runs for the page: whose classifiers are looked up, and whose not."""

import pytest
import torch

from mnist3d.data.images import ImageSet
from mnist3d.data.options import DataOptions
from mnist3d.runs import gallery
from mnist3d.runs.gallery import LARGEST_CLASSIFIED


@pytest.mark.parametrize(
    ("data", "size", "looked_up"),
    [
        (DataOptions(), 28, True),
        (DataOptions(), LARGEST_CLASSIFIED, True),
        (DataOptions(), LARGEST_CLASSIFIED + 1, False),  # all images at that size need gigabytes
        (DataOptions(name="images", path="somewhere"), 28, False),  # a run directory is no user: its paths are not read
        (DataOptions(path="somewhere"), 28, False),
        (DataOptions(name="mnist"), 28, False),  # would be downloaded
    ],
)
def test_judges_only_of_images_that_are_here_and_that_no_run_names(data, size, looked_up, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def never_read(*given, download):
        asked.append(given)
        assert not download
        raise gallery.DataError("read")

    monkeypatch.setattr(gallery, "load_images", never_read)
    found, why = gallery._classifiers(tmp_path / "run", data, size, trust=False)
    assert found is None
    assert bool(asked) == looked_up
    if looked_up:
        assert why == "read"
    elif size <= LARGEST_CLASSIFIED:
        assert f"{tmp_path / 'run'} --trust reads those" in why
        assert gallery._classifiers(tmp_path / "run", data, size, trust=True) == (None, "read")


def test_downloaded_images_count_as_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    asked = []
    monkeypatch.setattr(gallery, "load_images", lambda *given, download: asked.append(download) or _images())
    monkeypatch.setattr(gallery, "cached_classifiers", lambda *given: None)
    found, why = gallery._classifiers(tmp_path / "run", DataOptions(name="mnist"), 28, trust=False)
    assert found is None
    assert f"{tmp_path / 'run'} --trust trains them" in why
    assert asked == [False]


def _images():
    return ImageSet(torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]), ["0", "1"])
