"""Two classifiers to select experiments by: python benchmarks/selection_classifiers.py RUN [RUN ...]

Other networks, other negatives and other wear than the scorecard's, so that what is chosen by one pair can be
scored by the other. Trained once on the held-out digits (some four minutes on one core), the same on the same machine,
and kept in the user's cache folder. Printed: two lines a run, of 2,000 fresh views of each pose distribution.
"""

import argparse
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import platformdirs
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from mnist3d import load_run
from mnist3d.data.images import ImageSet, load_images
from mnist3d.data.options import DataOptions
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.rendering.renderer import render_views

DIGITS, NONE = 10, 10
STEPS, REAL_BATCH, OTHER_BATCH = 1100, 64, 40
VIEWS, VIEW_SEED = 2000, 987654
MAYBE_A_DIGIT_TURNED = (0, 1, 8)
NO_DIGIT_MIRRORED = (2, 3, 4, 5, 6, 7, 9)


class Residual(nn.Module):
    """Three residual blocks with group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1, stride=2)
        self.blocks = nn.ModuleList()
        for width, channels, stride in ((32, 32, 1), (32, 64, 2), (64, 64, 1)):
            inner = nn.Conv2d(width, channels, 3, stride, 1), nn.GroupNorm(8, channels)
            outer = nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels)
            branch = nn.Sequential(*inner, nn.ReLU(), *outer)
            self.blocks.append(nn.ModuleList([branch, nn.Conv2d(width, channels, 1, stride)]))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, DIGITS + 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, the last of "not a digit"."""
        x = F.relu(self.first(2.0 * images - 1.0))
        for block in self.blocks:
            branch, skip = block.children()
            x = F.relu(branch(x) + skip(x))
        return self.head(x)


class Pooled(nn.Module):
    """Large kernels and pooling, as LeNet."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, channels, kernel in ((1, 24, 7), (24, 48, 5)):
            layers += [nn.Conv2d(width, channels, kernel, padding=kernel // 2), nn.MaxPool2d(2), nn.SiLU()]
            layers += [nn.BatchNorm2d(channels)]
        layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 49, 160), nn.SiLU(), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*layers, nn.Linear(160, DIGITS + 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, the last of "not a digit"."""
        return self.layers(2.0 * images - 1.0)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """By a Gaussian of that many pixels."""
    kernel = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    return F.conv2d(
        F.conv2d(images, kernel[None, None, :, None], padding=(4, 0)), kernel[None, None, None], padding=(0, 4)
    )


def augmented(images: Tensor, generator: Generator) -> Tensor:
    """What happens to digits and to negatives alike: turned, sheared, moved, blurred, dimmed, dusted."""
    count = len(images)

    def spread(limit: float) -> Tensor:
        return limit * (2.0 * torch.rand(count, generator=generator) - 1.0)

    angle, wide, high, shear = spread(0.22), 1.0 + spread(0.14), 1.0 + spread(0.14), spread(0.25)
    cosine, sine = angle.cos(), angle.sin()
    rows = torch.stack([cosine / wide, (shear * cosine - sine) / wide, spread(0.09)], 1)
    columns = torch.stack([sine / high, (cosine + shear * sine) / high, spread(0.09)], 1)
    affine = F.affine_grid(torch.stack([rows, columns], 1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, affine, align_corners=False)
    soft = (torch.rand(count, generator=generator) < 0.4)[:, None, None, None]
    images = torch.where(soft, blurred(images, 0.4 + 0.6 * torch.rand(1, generator=generator).item()), images)
    images = (images * (0.6 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator))).clamp(0.0, 1.0)
    dust = torch.randn(images.shape, generator=generator).abs()
    dust = dust * (torch.rand(images.shape, generator=generator) < 0.25)
    dusty = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).float()
    return (images + 0.15 * dusty * torch.rand(count, 1, 1, 1, generator=generator) * dust).clamp(0.0, 1.0)


def negatives(data: ImageSet, count: int, generator: Generator) -> Tensor:
    """Up to `count` images that are no digits, of nine kinds."""
    assert data.labels is not None
    images, labels = data.images, data.labels

    def chance() -> float:
        return torch.rand(1, generator=generator).item()

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    found = []
    for kind in range(9):
        number = count // 9 + (kind < count % 9)
        one, other = (torch.randint(len(images), (number,), generator=generator) for _ in range(2))
        a, b, same = images[one], images[other], labels[one] == labels[other]
        if kind == 0:  # overlapped
            made = torch.maximum(a, b.roll((whole(-5, 6), whole(-5, 6)), (2, 3)))
        elif kind == 1:  # shuffled blocks
            blocks = F.unfold(a, 7, stride=7)[:, :, torch.randperm(16, generator=generator)]
            made = F.fold(blocks, 28, 7, stride=7)
        elif kind == 2:  # half of one, half of another
            cut, made = whole(9, 19), a.clone()
            if chance() < 0.5:
                made[:, :, cut:] = b[:, :, cut:]
            else:
                made[..., cut:] = b[..., cut:]
            made[same] = made[same].roll(9, 2)
        elif kind == 3:  # half erased; half a 1 is a 1
            cut, made, side = whole(12, 17), a.clone(), whole(0, 4)
            [made[:, :, cut:], made[:, :, :cut], made[..., cut:], made[..., :cut]][side].zero_()
            made = made[labels[one] != 1]
        elif kind == 4:  # turned by a right angle
            kept = ~torch.isin(labels[one], torch.tensor(MAYBE_A_DIGIT_TURNED))
            made = a[kept].rot90(1 if chance() < 0.5 else 3, (2, 3))
        elif kind == 5:  # mirrored
            made = a[torch.isin(labels[one], torch.tensor(NO_DIGIT_MIRRORED))].flip(3)
        elif kind == 6:  # blobs
            made = blurred(torch.randn(a.shape, generator=generator).clamp_min(0.0), 1.8 + 1.5 * chance())
            made = (made / made.amax((1, 2, 3), keepdim=True).clamp_min(1e-3) - 0.35) * 1.6
        elif kind == 7:  # noise
            made = torch.rand(a.shape, generator=generator)
            made = made * (torch.rand(a.shape, generator=generator) < 0.3 * chance())
        else:  # the mean of two; of the same class, nothing at all
            made = torch.where(same[:, None, None, None], 0.0, 0.5 * a + 0.5 * b)
        found.append(made.clamp(0.0, 1.0))
    return torch.cat(found)


def trained(build: type[nn.Module], data: ImageSet, seed: int) -> nn.Module:
    """One classifier."""
    assert data.labels is not None
    torch.manual_seed(100 + seed)
    generator, network = torch.Generator().manual_seed(77 + seed), build()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.randint(len(data.images), (REAL_BATCH,), generator=generator)
        others = negatives(data, OTHER_BATCH, generator)
        classes = torch.cat([data.labels[chosen], torch.full((len(others),), NONE)])
        loss = F.cross_entropy(network(augmented(torch.cat([data.images[chosen], others]), generator)), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{build.__name__}: step {step} of {STEPS}, loss {loss.item():.2f}", file=sys.stderr, flush=True)
    return network


def classifiers() -> list[nn.Module]:
    """Both, from the cache or trained now."""
    networks: list[nn.Module] = [Residual(), Pooled()]
    path = platformdirs.user_cache_path("mnist3d") / "selection-classifiers-2.pt"
    if not path.is_file():
        data = load_images(DataOptions(), 28, "held_out")
        made = [trained(type(network), data, seed).state_dict() for seed, network in enumerate(networks)]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(made, path)
    for network, state in zip(networks, torch.load(path, weights_only=True), strict=True):
        network.load_state_dict(state)
    return [network.eval() for network in networks]


@torch.no_grad()
def figures(images: Tensor, networks: list[nn.Module]) -> list[float]:
    """Legible share, clean share, effective number of classes, rarest class's share."""
    read = [torch.cat([network(part).softmax(1)[:, :DIGITS] for part in images.split(500)]) for network in networks]
    best, label = torch.stack(read).max(dim=2)
    sure = best.amin(dim=0) * (label[0] == label[1])
    shares = torch.bincount(label[0][sure > 0.5], minlength=DIGITS) / max(int((sure > 0.5).sum()), 1)
    classes = torch.special.entr(shares).sum().exp().item()
    return [(sure > 0.5).float().mean().item(), (sure > 0.9).float().mean().item(), classes, shares.min().item()]


def main() -> None:
    """Real digits first, then every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="run directories")
    options = parser.parse_args()
    networks = classifiers()
    real = figures(load_images(DataOptions(), 28).images, networks)
    print("legible, clean, classes, rarest of real digits: " + "  ".join(f"{value:.3f}" for value in real))
    for path in options.runs:
        run = load_run(path)
        for distribution in ("euler_normal", "sphere"):
            rotations = sample_rotations(
                VIEWS, torch.Generator().manual_seed(VIEW_SEED), PoseOptions(name=distribution)
            )
            shown = figures(render_views(run.volume, run.renderer, rotations), networks)
            print(f"{path} {distribution}: " + "  ".join(f"{value:.3f}" for value in shown), flush=True)


if __name__ == "__main__":
    main()
