"""Two classifiers that say which class an image shows, or that it shows none.

What they say of images, and where they come from: the package, the cache on disk, or their training. Nothing here is a
loss: a classifier that training uses, or that experiments are selected on, must never be the one that scores.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..errors import WriteError
from ..storage.atomic import write_atomically
from ..storage.plain_files import read_plain
from .learning import CHUNK, STEPS, clusters, trained_networks
from .networks import ARCHITECTURES
from .packaged import packaged_weights

RECIPE = 1  # raise it with every change that changes what the classifiers say: older caches are then not used
CLASSIFIER_SIZE = 28  # pixels: images of another size are resampled, so that classifying costs the same everywhere
LEGIBLE, CLEAN = 0.5, 0.9  # both classifiers' probability of one class above this
ZOOMS = (0.92, 1.0, 1.1)  # a classifier's answer is its mean over three sizes of the image, which steadies it
MAX_FILE = 2**26  # bytes of a file of the cache, which has 2 MiB for ten classes
log = logging.getLogger(__name__)


@contextmanager
def _float32() -> Iterator[None]:
    """Networks and draws in float32, whatever torch's default: the same classifiers for the same images."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass
class Reading:
    """What the classifiers say of each image.

    Args:
        label: the class that both hold most probable, else -1.
        confidence: the less convinced classifier's probability of that class; 0 where they differ.
        guess: the class with the highest mean probability, whether an image of it or not.
        features: of the last hidden layers, side by side, in units of their spread over real images.
    """

    label: Int[Tensor, " N"]
    confidence: Float[Tensor, " N"]
    guess: Int[Tensor, " N"]
    features: Float[Tensor, "N F"]

    @property
    def legible(self) -> Tensor:
        """Both classifiers above .5 on the same class; (N,) booleans."""
        return self.confidence > LEGIBLE

    @property
    def clean(self) -> Tensor:
        """Both classifiers above .9 on the same class; (N,) booleans."""
        return self.confidence > CLEAN


@dataclass
class Classifiers:
    """The two classifiers; made by `load_classifiers`.

    Args:
        networks: each maps (N, 1, 28, 28) to class logits, the last of them "none", and features.
        class_names: one a class; empty when the images had no labels, then only the features mean something.
        version: recipe and data they were trained with.
    """

    networks: list[nn.Module]
    class_names: list[str]
    version: str

    @torch.no_grad()
    @_float32()
    def read(self, images: Float[Tensor, "N 1 H W"]) -> Reading:
        """What each image shows.

        Args:
            images: in [0, 1], any size and device; classified on the CPU.
        """
        images = _classified_size(images.detach().float().cpu())
        probabilities, features = [], []
        for network in self.networks:
            verdicts, hidden = [], []
            for part in images.split(CHUNK):
                logits, seen = zip(*(network(_zoomed(part, zoom)) for zoom in ZOOMS), strict=True)
                verdicts.append(torch.stack(logits).softmax(dim=2).mean(dim=0))
                hidden.append(seen[ZOOMS.index(1.0)] / network.get_buffer("spread"))
            probabilities.append(torch.cat(verdicts)[:, :-1])  # without the class "none"
            features.append(torch.cat(hidden))
        stacked = torch.stack(probabilities)
        best, label = stacked.max(dim=2)
        confidence = best.amin(dim=0) * (label[0] == label[1])
        guess = stacked.mean(dim=0).argmax(dim=1)
        return Reading(torch.where(confidence > 0, label[0], -1), confidence, guess, torch.cat(features, dim=1))


@_float32()
def cached_classifiers(
    images: Float[Tensor, "N 1 H W"],
    labels: Int[Tensor, " N"] | None,
    class_names: list[str],
    cache_folder: str | Path | None = None,
    steps: int = STEPS,
) -> Classifiers | None:
    """As `load_classifiers`, but never trains: None where there are none yet, or only a damaged file."""
    prepared = prepare(images, labels, class_names, cache_folder, steps)
    networks = _found(prepared, cache_folder)
    return None if networks is None else _classifiers(networks, prepared)


@_float32()
def load_classifiers(
    images: Float[Tensor, "N 1 H W"],
    labels: Int[Tensor, " N"] | None,
    class_names: list[str],
    cache_folder: str | Path | None = None,
    steps: int = STEPS,
    tell: Callable[[float], None] | None = None,
    seed: int = 0,
) -> Classifiers:
    """The classifiers for these images: those of the package, those of the cache, or trained now and put there.

    The package has those of the default digits, 28 pixels wide. Training takes about a minute on one core, is
    the same for the same images, and leaves the global random state as it was. A cache that is damaged is
    trained again, one that cannot be written is done without; both say so in one logged line.

    Args:
        images: images that the sculpture never sees, in [0, 1]; two or more.
        labels: their classes; None for unlabelled images, whose classifiers only give features.
        class_names: one a class; empty without labels.
        cache_folder: default the package, then the user's cache folder; one that is given stands for both.
        steps: of training, each classifier.
        tell: is handed the share of the training that is done, [0, 1], after each step; not called without training.
        seed: of their weights, batches and negatives. The scorecard's have 0; another seed gives another pair, which
            is kept under a name of its own.

    Raises:
        ValueError: fewer than two images, or labels that do not fit the images or the names.
    """
    prepared = prepare(images, labels, class_names, cache_folder, steps, seed)
    networks = _found(prepared, cache_folder)
    if networks is None:
        whose = "selection's" if seed else "scorecard's"
        log.info("training the %s two classifiers on %d images: about a minute, once", whose, len(images))
        networks = trained_networks(prepared.images, prepared.classes, prepared.outputs, steps, tell, seed)
        store(packed_weights(networks), prepared.path)
    return _classifiers(networks, prepared)


@dataclass
class Prepared:
    """Images as the classifiers are trained on them, and where these belong in the cache."""

    images: Tensor
    classes: Tensor
    names: list[str]
    outputs: int
    version: str
    path: Path


def prepare(
    images: Tensor,
    labels: Tensor | None,
    class_names: list[str],
    cache_folder: str | Path | None,
    steps: int,
    seed: int = 0,
) -> Prepared:
    """Images that classifiers are looked for or trained on; the arguments are those of `load_classifiers`."""
    if len(images) < 2:
        raise ValueError(f"images has {len(images)} images: classifiers need 2 or more that the sculpture never sees")
    if labels is not None and (len(labels) != len(images) or int(labels.max()) >= len(class_names)):
        raise ValueError(
            f"labels: {len(labels)} up to {int(labels.max())} for {len(images)} images and {len(class_names)} "
            "class names; each image needs a label, each label a name"
        )
    images = _classified_size(images.detach().float().cpu())
    names = class_names if labels is not None else []
    classes = clusters(images) if labels is None else labels.cpu()
    outputs = (len(names) if names else int(classes.max()) + 1) + 1
    version = _version(images, classes, outputs, steps, seed)
    folder = Path(cache_folder) if cache_folder is not None else platformdirs.user_cache_path("mnist3d")
    path = folder / f"classifiers-{version}.safetensors"
    return Prepared(images, classes, names, outputs, version, path)


def classifiers_of(weights: Mapping[str, Tensor], prepared: Prepared) -> Classifiers:
    """The classifiers that have these weights; torch's random generator is drawn from, and put back."""
    return _classifiers(_with(weights, prepared.outputs), prepared)


def _classifiers(networks: list[nn.Module], prepared: Prepared) -> Classifiers:
    frozen = [network.eval().requires_grad_(False) for network in networks]
    return Classifiers(frozen, prepared.names, prepared.version)


def _found(prepared: Prepared, cache_folder: str | Path | None) -> list[nn.Module] | None:
    """The classifiers without training: in the folder that is given, else in the package or the user's cache."""
    weights = packaged_weights(prepared.version) if cache_folder is None else None
    return _restored(prepared.path, prepared.outputs) if weights is None else _with(weights, prepared.outputs)


def _restored(path: Path, outputs: int) -> list[nn.Module] | None:
    """The classifiers in the file; None, with a logged line where that is no good news, where there are none."""
    try:
        return _with(load(read_plain(path, MAX_FILE)), outputs)
    except FileNotFoundError:
        return None
    except (SafetensorError, RuntimeError, OSError) as error:
        log.warning("%s: damaged classifiers (%s); training them again", path, " ".join(str(error).split())[:80])
        return None


def _with(weights: Mapping[str, Tensor], outputs: int) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):  # a run that is scored stays, to the bit, the run that is not
        networks = [build(outputs) for build in ARCHITECTURES]
    nn.ModuleList(networks).load_state_dict(weights)
    return networks


def packed_weights(networks: list[nn.Module]) -> bytes:
    """The content of a file of the cache."""
    return save(dict(nn.ModuleList(networks).state_dict()))


def store(content: bytes, path: Path) -> None:
    """Into the cache, whole or not at all: no other process ever reads half a file."""
    try:
        write_atomically(path, content)
    except WriteError as error:
        log.warning("the classifiers could not be written (%s); they are trained again next time", error)


def _version(images: Tensor, classes: Tensor, outputs: int, steps: int, seed: int) -> str:
    other = f" {seed}" if seed else ""
    digest = hashlib.sha256(f"{RECIPE} {steps} {outputs} {tuple(images.shape)}{other}".encode())
    digest.update((images * 255.0).round().to(torch.uint8).numpy().tobytes())
    digest.update(classes.numpy().tobytes())
    return f"{RECIPE}-{digest.hexdigest()[:16]}"


def _classified_size(images: Tensor) -> Tensor:
    if images.shape[-2:] == (CLASSIFIER_SIZE, CLASSIFIER_SIZE):
        return images
    return F.interpolate(images, (CLASSIFIER_SIZE, CLASSIFIER_SIZE), mode="bilinear", antialias=True).clamp(0.0, 1.0)


def _zoomed(images: Float[Tensor, "N 1 H W"], zoom: float) -> Float[Tensor, "N 1 H W"]:
    """The middle of the images, `zoom` of their width and height, as large as before."""
    if zoom == 1.0:
        return images
    affine = zoom * torch.eye(2, 3).expand(len(images), 2, 3)
    return F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
