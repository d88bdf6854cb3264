"""The figure of docs/how_it_works.md: drawn by the renderer, and its curves are those of the pixel that it marks."""

import pytest
import torch

from mnist3d import AbsorptionRenderer
from tools.draw_how_it_works import COLUMN, FILE, PIXELS, ROW, along_ray, brightness, drawing, make_volume, same


@pytest.fixture(scope="module")
def drawn() -> str:
    return drawing()


def test_the_figure_is_what_the_renderer_says(drawn):
    assert same(FILE.read_text(encoding="utf-8"), drawn), "run python tools/draw_how_it_works.py"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("the volume", "a volume"),  # another word
        ("area = brightness = 0.", "area = brightness = 1."),  # another number
        (
            "base64,",
            "base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgABc3UBGAAAAABJRU5ErkJggg==",
        ),
    ],
)
def test_another_figure_is_noticed(drawn, old, new):
    if old == "base64,":  # an image of one black pixel in place of the first
        before, _, rest = drawn.partition(old)
        changed = before + new + rest[rest.index('"') :]
    else:
        changed = drawn.replace(old, new, 1)
    assert changed != drawn
    assert not same(changed, drawn)


def test_the_area_is_the_brightness_of_the_marked_pixel():
    """The renderer sums 64 steps and interpolates opacity, the figure sums 4,096 of attenuation: .0004 apart here."""
    volume = make_volume()
    with torch.no_grad():
        pixel = AbsorptionRenderer(PIXELS)(volume, torch.eye(3))[0, 0, ROW, COLUMN]
    assert brightness(along_ray(volume)) == pytest.approx(float(pixel), abs=0.002)
    assert 0.2 < float(pixel) < 0.9


def test_transmittance_falls_from_1_through_both_strokes():
    transmittance = along_ray(make_volume())["transmittance"]
    assert transmittance[0] == pytest.approx(1.0, abs=1e-6)
    assert (transmittance[1:] <= transmittance[:-1]).all()
    assert 0.0 < transmittance[-1] < 0.5 * transmittance[len(transmittance) // 2] < 0.5
