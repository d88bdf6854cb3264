"""What tests of the viewer in a browser share: a page that is opened, looked at and turned."""

import math
import time

import numpy as np
import torch

from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes.voxel_grid import VoxelGrid

PATIENCE = 120.0  # seconds: a busy machine is slow, and no step may hang for ever


def shown(page, channel=0):
    """One channel of the image on the page, from 0 to 1."""
    data = page.evaluate(
        "channel => { const v = document.getElementById('view'); return Array.from(v.getContext('2d')"
        ".getImageData(0, 0, v.width, v.height).data).filter((_, k) => k % 4 === channel); }",
        channel,
    )
    size = math.isqrt(len(data))
    return np.array(data).reshape(size, size) / 255.0


def pose(page):
    """Azimuth and elevation of the image on the page, radians."""
    found = page.locator("#view").evaluate("v => [v.dataset.azimuth, v.dataset.elevation]")
    return [float(value) for value in found]


def settled(page):
    """Wait until the image is the one last asked for."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if page.evaluate("!dirty && !tick.moved && +document.getElementById('view').dataset.number === number"):
            return
        time.sleep(0.03)
    raise AssertionError("the image never came")


def opened(browser, url, **more):
    page = empty_page(browser, **more)
    page.goto(url)
    page.locator("#view[data-number]").wait_for()
    settled(page)
    return page


def opened_file(browser, path):
    page = empty_page(browser)
    page.goto(path.as_uri())
    page.locator("#view[data-azimuth]").wait_for()
    return page


def empty_page(browser, **more):
    page = browser.new_page(**more)
    page.emulate_media(reduced_motion="reduce")  # a view that sways would never settle
    page.set_default_timeout(1000.0 * PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    return page


def grid():
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(2, 12, 12, 12, generator=generator)
    values[0] *= 5.0 * torch.linspace(0, 1, 12)
    return values


def expected(azimuth, elevation, size, scale=1.0):
    values = grid()
    values[0] *= scale
    angles = torch.tensor([elevation, azimuth, 0.0])
    return AbsorptionRenderer(size)(VoxelGrid.from_array(values), euler_matrix(angles))[0, 0].detach().numpy()


def drag(page, right, down):
    """With the mouse, in shares of the image's width."""
    box = page.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right * box["width"], y + down * box["width"], steps=5)
    page.mouse.up()
    settled(page)
