"""What classifiers read, as messages to a page: in one view, and on the map of all views."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8

from ..geometry.rotations import map_rotations
from ..rendering.pictures import to_uint8
from ..rendering.renderer import AbsorptionRenderer, render_views
from .drawing import rendered_view
from .messages import pack
from .scene import Atlas, Scene, Snapshot, View

ATLAS_ROWS, ATLAS_COLUMNS = 12, 24  # 15 degrees
ATLAS_CELL = 28  # pixels
ROWS_A_MESSAGE = 3  # of a map that takes the place of an older one, a few at a time
LARGEST_UNREAD = 4 * ATLAS_CELL  # of a view on the map that nobody reads; a row of large ones is gigabytes


def reading_message(scene: Scene, snapshot: Snapshot, view: View) -> bytes:
    """What the classifiers read in the exact view, whole and in the discriminator's number of pixels."""
    reader, exact = scene.reader, dataclasses.replace(view, zoom=1.0)
    assert reader is not None
    head = {"kind": "reading", "number": view.number, "version": snapshot.version, "scene": scene.name}
    if not reader.class_names:
        return pack({**head, "label": None, "guess": None, "confidence": 0.0})
    verdict = reader.read(rendered_view(snapshot, scene.renderer, exact, scene.renderer.image_size))
    label, names = int(verdict.label[0]), reader.class_names
    confidence = float(verdict.confidence[0])
    return pack(
        {
            **head,
            "label": names[label] if label >= 0 and confidence > 0.5 else None,
            "guess": names[int(verdict.guess[0])],
            "confidence": round(confidence, 3),
        }
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    cells: UInt8[np.ndarray, "H W"]
    labels: list[int]
    confidences: list[float]


def map_rows(scene: Scene, now: float) -> Iterator[bool]:
    """Draw the scene's map anew, a row at a time, so that others get their turn in between.

    Each row is of the snapshot that is the newest by then. The first map appears when it is whole.

    Args:
        scene: whose `atlas` is replaced now and then.
        now: seconds of the monotonic clock.
    """
    last, reader, options = scene.atlas, scene.reader, scene.renderer
    kept = last if last is not None and last.reader is reader else None
    rows: list[_Row | None] = list(kept.rows) if kept is not None and kept.rows else [None] * ATLAS_ROWS
    # Noted first: what fails once is not tried again with the same snapshot.
    begun = Atlas(scene.snapshot, now, reader, b"" if kept is None else kept.message, rows=tuple(rows))
    scene.atlas = begun
    size = options.image_size if reader is not None else min(options.image_size, LARGEST_UNREAD)
    renderer = AbsorptionRenderer(size, options.samples_per_ray, options.quadrature)
    for k, part in enumerate(map_rotations(ATLAS_ROWS, ATLAS_COLUMNS).split(ATLAS_COLUMNS)):
        native = render_views(scene.snapshot.volume, renderer, part)
        labels, confidences = [], []
        if reader is not None and reader.class_names:
            verdict = reader.read(native)
            labels = verdict.label.tolist()
            confidences = [round(value, 2) for value in verdict.confidence.tolist()]
        sized = torch.nn.functional.interpolate(native, (ATLAS_CELL, ATLAS_CELL), mode="bilinear", antialias=True)
        rows[k] = _Row(np.concatenate(list(to_uint8(sized[:, 0])), axis=1), labels, confidences)
        found = [row for row in rows if row is not None]
        if (k + 1) % ROWS_A_MESSAGE == 0 and len(found) == ATLAS_ROWS:
            whole = k + 1 == ATLAS_ROWS
            header = {
                "kind": "atlas",
                "scene": scene.name,
                "rows": ATLAS_ROWS,
                "columns": ATLAS_COLUMNS,
                "labels": [label for row in found for label in row.labels],
                "confidences": [value for row in found for value in row.confidences],
                "names": [] if reader is None else reader.class_names,
            }
            message = pack(header, np.concatenate([row.cells for row in found], axis=0))
            scene.atlas = dataclasses.replace(begun, message=message, whole=whole, rows=tuple(rows))
        yield True
