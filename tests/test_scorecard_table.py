"""The scorecard of a run as a table for the page, and files that are none."""

import json
import os

import pytest

from mnist3d.evaluation.scores import ImageScore, Scorecard
from mnist3d.runs.scorecard import MAX_BYTES, ROWS, SCORECARD_FILE, scorecard_of
from mnist3d.storage.run_directory import RunDirectory


def written(folder, content):
    (folder / SCORECARD_FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return scorecard_of(folder)


def test_what_score_writes_is_shown(tmp_path):
    assert scorecard_of(tmp_path) is None
    full = ImageScore(2000)
    for key in ROWS:
        setattr(full, key, 0.25)
    poses = {"euler_normal": full, "sphere": ImageScore(2000, legible=0.65)}
    card = Scorecard(poses, ImageScore(2000, legible=0.967), ["a", "b"], "1-abc", note="A note.")
    RunDirectory(tmp_path).write_json(SCORECARD_FILE, card.as_dict())
    found = scorecard_of(tmp_path)
    assert found is not None
    assert found["columns"] == ["euler normal", "sphere", "real images"]
    assert found["rows"][0] == ["legible views", "0.250", "0.650", "0.967"]
    assert found["rows"][5] == ["kernel distance", "0.2500", None, None]
    assert [row[0] for row in found["rows"]] == [title for title, _ in ROWS.values()]
    assert found["note"] == "A note."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("1" * 5000, "is damaged"),
        ("[]", "another version"),
        ('{"format": 1, "poses": {}, "real": {}}', "another version"),
        ('{"format": 2, "poses": [], "real": {}}', "another version"),
        (" " * (MAX_BYTES + 1), "holds more than 1 MiB"),
    ],
)
def test_what_is_damaged_is_one_line(content, words, tmp_path):
    found = written(tmp_path, content)
    assert found is not None
    assert (found["columns"], found["rows"]) == ([], [])
    assert found["note"].startswith(f"{SCORECARD_FILE} ")
    assert words in found["note"]
    assert "\n" not in found["note"]


def test_only_numbers_stand_where_numbers_belong_and_what_is_named_is_short(tmp_path):
    scores = {"legible": "<b>", "clean": float("nan"), "recall": 1e300, "precision": True, "frechet_distance": 3}
    poses = {str(k) + "x" * 500: scores if k == 0 else k for k in range(100)}
    found = written(tmp_path, {"format": 2, "poses": poses, "real": {}, "note": ["no text"]})
    assert found is not None
    assert found["rows"] == [["Frechet distance", "3.00", *[None] * (len(found["columns"]) - 1)]]
    assert len(json.dumps(found, allow_nan=False)) < 1000
    assert found["note"] == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / SCORECARD_FILE)
    found = scorecard_of(tmp_path)
    assert found is not None
    assert "a named pipe" in found["note"]
