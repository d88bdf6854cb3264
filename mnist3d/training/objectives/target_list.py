"""The list of targets as options: directions, and what each must show."""

import difflib
import math
from dataclasses import dataclass
from typing import Any

DIRECTION_KEYS = ("azimuth", "elevation")
SUBJECT_KEYS = ("digit", "class", "image", "text")
RING_KEYS = {"digits": "digit", "classes": "class", "images": "image", "text": "text"}
MOST_TARGETS = 1000  # a direction every seven degrees
RENAMED = {"picture": "image", "pictures": "images"}  # keys of version 0.1


@dataclass
class TargetOptions:
    """Directions in which the volume must show a chosen image.

    A target names a direction and one subject: {azimuth: 36, elevation: 0, digit: 1}. Azimuth and elevation are in
    degrees, 0 without them; the subject is `digit: 3`, `class: name` (a class of the data), `image: file.png`
    (inverted if it is dark on white, see `data.invert`) or `text: A` (drawn in Pillow's own font).

    Args:
        views: List of targets, each a direction in degrees and a subject: {azimuth: 36, elevation: 0, digit: 1}. In
            place of digit: class, image (a file) or text (a letter).
        rings: List of rings of evenly spaced targets: {elevation: 0, azimuth: 0, digits: [0, 1, 2]}, in degrees, where
            azimuth is that of the first target. In place of digits: classes, images or text (text: ABC, one letter for
            each target).
        weight: Weight of the mean absolute difference between the views near targets and their images, > 0.
        jitter: Largest random distance of a view from its target, in azimuth and in elevation, degrees, 0 to 45.
        views_per_step: Number of views near targets in each step, spread evenly over the targets, >= 1.
        focus: How much more a target counts if its views differ more from its image, >= 0: the exponent of that
            difference. 0: all count the same.
    """

    # of mappings; any more exact a type and the command line's parser would turn the text "08" into a number
    views: list[Any] | None = None
    rings: list[Any] | None = None
    weight: float = 10.0
    jitter: float = 10.0
    views_per_step: int = 40
    focus: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < math.inf:
            raise ValueError(f"targets.weight={self.weight}: must be finite and > 0")
        if not 0.0 <= self.jitter <= 45.0:
            raise ValueError(f"targets.jitter={self.jitter}: must be in [0, 45] (degrees)")
        if self.views_per_step < 1:
            raise ValueError(f"targets.views_per_step={self.views_per_step}: must be >= 1")
        if not 0.0 <= self.focus < math.inf:
            raise ValueError(f"targets.focus={self.focus}: must be finite and >= 0")
        self.listed()

    def listed(self) -> list["Target"]:
        """All targets, those of the rings written out; empty when none are asked for.

        Raises:
            ValueError: an entry that is no target; the message names it.
        """
        found = []
        for key, entries, read in (("views", self.views, _read_view), ("rings", self.rings, _read_ring)):
            if entries is not None and len(entries) == 0:
                raise ValueError(f"targets.{key}=[]: name at least one target, or leave the key out")
            for number, entry in enumerate(entries or []):
                found += read(f"targets.{key}[{number}]", entry)
                if len(found) > MOST_TARGETS:
                    raise ValueError(f"targets.{key}[{number}]: more than {MOST_TARGETS} targets in all; give fewer")
        return found


@dataclass(frozen=True)
class Target:
    """What is asked for in one direction.

    Args:
        place: where the configuration asks for it, for messages.
        azimuth: degrees.
        elevation: degrees, -90 to 90.
        kind: digit, class, image or text.
        subject: name of the class, path of the image, or the text.
    """

    place: str
    azimuth: float
    elevation: float
    kind: str
    subject: str


def _read_view(place: str, entry: Any) -> list[Target]:
    values = _checked(place, entry, (*DIRECTION_KEYS, *SUBJECT_KEYS))
    kinds = [key for key in SUBJECT_KEYS if key in values]
    if len(kinds) != 1:
        raise ValueError(f"{place}: exactly one of {', '.join(SUBJECT_KEYS)} must say what to show, got {len(kinds)}")
    return [_target(place, values, values.get("azimuth", 0.0), kinds[0], values[kinds[0]])]


def _read_ring(place: str, entry: Any) -> list[Target]:
    values = _checked(place, entry, (*DIRECTION_KEYS, *RING_KEYS))
    kinds = [key for key in RING_KEYS if key in values]
    if len(kinds) != 1:
        raise ValueError(f"{place}: exactly one of {', '.join(RING_KEYS)} must say what to show, got {len(kinds)}")
    subjects = values[kinds[0]]
    if not isinstance(subjects, list | str) or len(subjects) == 0 or (kinds[0] != "text" and isinstance(subjects, str)):
        raise ValueError(f"{place}.{kinds[0]}={subjects!r}: must be a list of at least one (text: at least one letter)")
    if len(subjects) > MOST_TARGETS:
        raise ValueError(f"{place}.{kinds[0]}: {len(subjects)} targets; must be 1 to {MOST_TARGETS}")
    first = _degrees(f"{place}.azimuth", values.get("azimuth", 0.0), math.inf)
    return [
        _target(place, values, first + 360.0 * number / len(subjects), RING_KEYS[kinds[0]], subject)
        for number, subject in enumerate(subjects)
    ]


def _checked(place: str, entry: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}={entry!r}: must be a mapping such as {{azimuth: 36, elevation: 0, digit: 1}}")
    for key in entry:
        if key in RENAMED:
            raise ValueError(f"{place}.{key}: is {RENAMED[key]} since version 0.2")
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"{place}.{key}: no such key{hint}; must be one of {', '.join(known)}")
    return entry


def _target(place: str, values: dict[str, Any], azimuth: Any, kind: str, subject: Any) -> Target:
    if kind == "digit" and (isinstance(subject, bool) or not isinstance(subject, int) or not 0 <= subject <= 9):
        raise ValueError(f"{place}.digit={subject!r}: must be a whole number in [0, 9]")
    if isinstance(subject, list | dict) or subject is None or not str(subject).strip():
        raise ValueError(f"{place}.{kind}={subject!r}: must be one {kind}, not empty")
    elevation = _degrees(f"{place}.elevation", values.get("elevation", 0.0), 90.0)
    return Target(place, _degrees(f"{place}.azimuth", azimuth, math.inf), elevation, kind, str(subject))


def _degrees(place: str, value: Any, limit: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > limit:
        wanted = "a number" if math.isinf(limit) else f"in [{-limit:g}, {limit:g}]"
        raise ValueError(f"{place}={value!r}: must be {wanted} (degrees)")
    return float(value)
