"""Augmentation obeys its laws, and ZCA whitens: checked against torchvision, padding by torch, and algebra.

Without it images could be varied too little or blown up, which only costs accuracy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from torch.nn import functional as F

from hebb.config import plan
from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS
from hebb.core.errors import ConfigError
from hebb.data import augmentation, images, sources, whitening
from hebb.training.epoch import Epoch

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator(9))


# -- crop and mirror ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14), (5, 5)])
def test_a_crop_is_a_window_of_the_padded_image_or_its_mirror_image(height: int, width: int) -> None:
    x = random(60, 3, height, width)
    padded = F.pad(x, (4, 4, 4, 4), mode="reflect")
    made = augmentation.crop(x, generator())
    places = set()
    for image, source in zip(made, padded, strict=True):
        windows = {
            (top, left, mirrored): window.flip(2) if mirrored else window
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            for window in [source[:, top : top + height, left : left + width]]
        }
        matching = [place for place, window in windows.items() if torch.equal(window, image)]
        assert len(matching) == 1 or (matching and height < 9), "few pixels and their reflections repeat"
        places.add(matching[0])
    assert len(places) > 30, "every image has its own place"
    assert height < 9 or {top for top, _, _ in places} == set(range(9))


def test_half_of_the_images_are_mirrored_and_places_are_uniform() -> None:
    """A marked pixel tells where it went: shifts by -4..4 are equally likely, mirrored or not."""
    count, side = 20000, 21
    x = torch.zeros(count, 1, side, side)
    x[:, :, 10, 10] = 1
    x[:, :, 10, 9] = 0.5  # stands to the left, unless mirrored
    made = augmentation.crop(x, generator())
    bright = made.flatten(1).argmax(dim=1)
    rows, columns = bright // side, bright % side
    mirrored = made[torch.arange(count), 0, rows, (columns + 1).clamp(max=side - 1)] == 0.5
    assert abs(mirrored.float().mean() - 0.5) < 4 * 0.5 / count**0.5
    for found in (rows, columns):
        counted = torch.bincount(found, minlength=side)[6:15]
        assert counted.sum() == count
        share = counted / count
        assert (share - 1 / 9).abs().max() < 4 * (1 / 9 / count) ** 0.5
    correlation = torch.corrcoef(torch.stack([rows.float(), columns.float(), mirrored.float()]))
    assert (correlation - torch.eye(3)).abs().max() < 4 / count**0.5


def test_images_are_varied_independently() -> None:
    x = random(1, 3, 32, 32).repeat(50, 1, 1, 1)
    for vary in (augmentation.crop, augmentation.resized_crop):
        made = vary(x, generator())
        assert len({image.numpy().tobytes() for image in made}) > 40


# -- resized crop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_a_resized_crop_is_that_of_torchvision(height: int, width: int) -> None:
    sources.declare_missing_operators()
    from torchvision.transforms import functional

    x = random(40, 3, height, width)
    made = augmentation.resized_crop(x, generator())
    boxes = augmentation.boxes(40, height, width, generator(), CPU)
    mirrored = 0
    for image, source, *box in zip(made, x, *boxes, strict=True):
        top, left, tall, wide = (int(value) for value in box)
        want = functional.resized_crop(source, top, left, tall, wide, [height, width], antialias=True)
        plain, turned = ((image - w).abs().max() for w in (want, want.flip(2)))
        assert min(plain, turned) < 1e-5
        mirrored += int(turned < plain)
    assert 8 < mirrored < 32


@pytest.mark.parametrize(("height", "width"), [(160, 160), (100, 300)])
def test_boxes_follow_the_law_of_torchvision(height: int, width: int) -> None:
    """Mean and deviation of area, aspect and place, over as many draws of both."""
    sources.declare_missing_operators()
    from torchvision.transforms import RandomResizedCrop

    count = 4000
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    want = torch.tensor(
        [RandomResizedCrop.get_params(image, list(augmentation.SCALE), list(augmentation.RATIO)) for _ in range(count)]
    ).double()
    found = torch.stack(augmentation.boxes(count, height, width, generator(), CPU), dim=1)

    def measured(boxes: torch.Tensor) -> torch.Tensor:
        top, left, tall, wide = boxes.T
        return torch.stack([tall * wide / (height * width), (wide / tall).log(), top / height, left / width])

    want, found = measured(want), measured(found)
    error = (want.var(dim=1) * 2 / count).sqrt()
    assert ((want.mean(dim=1) - found.mean(dim=1)).abs() < 4.5 * error + 1e-9).all()
    assert torch.allclose(want.std(dim=1), found.std(dim=1), rtol=0.08)


def test_a_box_that_never_fits_is_the_largest_central_one() -> None:
    top, left, tall, wide = augmentation.boxes(50, 2, 200, generator(), CPU)
    assert (tall == 2).all()
    assert set(wide.tolist()) <= {1.0, 2.0, 3.0}
    fallback = wide == 3  # round(2 x 4/3) pixels in the middle, where the draws hardly ever are
    assert (left[fallback] == 98).all()
    assert (top == 0).all()


# -- which images are varied --------------------------------------------------------------------------------


def test_every_dataset_names_its_own_kind() -> None:
    kinds = {entry.name: entry.augmentation for entry in DATASETS.entries()}
    written = {"Digits", "MNIST", "KMNIST", "EMNISTBalanced", "EMNISTLetters", "EMNISTDigits", "SVHN"}
    assert {name for name, kind in kinds.items() if kind == "noise"} == written, "signs, which no mirror leaves alone"
    large = {name for name in kinds if "ImageNet" in name} - {"TinyImageNet"}
    assert {name for name, kind in kinds.items() if kind == "resized crop"} == large
    assert {kinds[name] for name in ("CIFAR10", "CIFAR100", "STL10", "FashionMNIST", "TinyImageNet")} == {"crop"}


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    x = random(100, 1, 28, 28)
    added = augmentation.noise(x, generator(), std=0.3) - x
    assert abs(added.std() - 0.3) < 0.005
    assert abs(added.mean()) < 0.005
    assert torch.equal(augmentation.noise(x, generator(), std=0.0), x)


def varied(spec: DataSpec, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    """Return the images of a training epoch, in the order in which they are stored."""
    split = images.load(spec, Path("nowhere"), 0, CPU).train
    phase = plan.phases(small.config())[0]
    at = Epoch(seed=seed, phase=phase, phase_index=0, epoch=epoch)
    return torch.cat([x for x, _ in split.batches(50, None, at.augmentation(CPU))])


NOISY = DataSpec(dataset="Digits", augmentation=True, noise_std=0.5, samples=300, validation=0.2)


def test_the_bits_depend_on_seed_and_epoch_only() -> None:
    assert torch.equal(varied(NOISY), varied(NOISY))
    assert not torch.equal(varied(NOISY), varied(NOISY, epoch=1))
    assert not torch.equal(varied(NOISY), varied(NOISY, seed=1))


def test_only_training_images_of_a_training_epoch_are_varied() -> None:
    """Validation and test images never are, and training images are not when they are evaluated."""
    plain = images.load(replace(NOISY, augmentation=False, noise_std=0.0), Path("nowhere"), 0, CPU)
    noisy = images.load(NOISY, Path("nowhere"), 0, CPU)
    assert noisy.val is not None
    assert plain.val is not None
    for found, want in ((noisy.val, plain.val), (noisy.test, plain.test)):
        for (x, _), (y, _) in zip(found.batches(50, None, generator()), want.batches(50), strict=True):
            assert torch.equal(x, y)
    for (x, _), (y, _) in zip(noisy.train.batches(50), plain.train.batches(50), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(varied(NOISY), torch.cat([x for x, _ in plain.train.batches(50)]))


def test_training_uses_it_and_calibration_does_not() -> None:
    """A run differs by its augmentation; a network whose blocks are only calibrated does not."""

    def weights(network: str, *changes: str) -> dict[str, torch.Tensor]:
        spec = small.config(network, "dataset_sup.augmentation=true", "dataset_unsup.augmentation=true", *changes)
        return small.run(spec).network[0].state_dict()

    noise = ("dataset_sup.noise_std=1", "dataset_unsup.noise_std=1")
    plain, noisy = weights(small.CNN), weights(small.CNN, *noise)
    assert any(not torch.equal(plain[name], noisy[name]) for name in plain)
    frozen = "Soft-c8-k3-p1:bn:triangle:avg_2_2_0 BP:flatten"
    run = {"training_blocks": (1,)}
    plain, noisy = (
        small.run(small.config(frozen, f"dataset_unsup.noise_std={n}", "dataset_unsup.augmentation=true", **run))
        .network[0]
        .state_dict()
        for n in (0, 1)
    )
    assert all(torch.equal(plain[name], noisy[name]) for name in plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_std": 0.5}, "noise_std needs augmentation"),
        ({"dataset": "CIFAR10", "augmentation": True, "noise_std": 0.5}, "by crop"),
        ({"dataset": "CIFAR10", "augmentation": True, "size": 4}, "larger than 4"),
    ],
)
def test_what_would_have_no_effect_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        images.load(replace(DataSpec(dataset="Digits"), **change), Path("nowhere"), 0, CPU)


# -- whitening ----------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Return a folder with 600 smooth colour images in the place of CIFAR-10."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((600, 3, 3, 3)))
    fine = F.interpolate(coarse, size=32, mode="bilinear") * 200 + torch.from_numpy(rng.random((600, 3, 32, 32)) * 55)
    x = fine.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    y = np.arange(600) % 10
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    return tmp_path


ZCA = DataSpec(dataset="CIFAR10", zca=True, size=8)


@pytest.mark.parametrize(("smoothing", "pixels"), [(0.1, False), (0.1, True), (0.001, False), (0.001, True)])
def test_zca_whitens_the_training_images(smoothing: float, pixels: bool, cifar: Path) -> None:
    """In the eigenbasis of the standardised images, a variance s becomes s / (s + smoothing)."""
    spec = replace(ZCA, zca_smoothing=smoothing, zca_pixels=pixels)
    raw = torch.cat([x for x, _ in images.load(replace(ZCA, zca=False), cifar, 0, CPU).train.batches(600)])
    white = torch.cat([x for x, _ in images.load(spec, cifar, 0, CPU, cifar / "cache").train.batches(100)])
    mean = raw.mean(dim=0 if pixels else (0, 2, 3), keepdim=True)
    std = raw.std(dim=0 if pixels else (0, 2, 3), keepdim=True, correction=0)
    s, u = np.linalg.eigh(np.cov(((raw - mean) / std).flatten(1).double().numpy(), rowvar=False))
    found = u.T @ np.cov(white.flatten(1).double().numpy(), rowvar=False) @ u
    assert np.abs(found - np.diag(s / (s + smoothing))).max() < 1e-4
    assert s.max() > 5, "the images were correlated"
    assert abs(float(white.mean())) < 0.01


def test_zca_is_symmetric_and_keeps_images_recognisable(cifar: Path) -> None:
    """Zero-phase: the matrix is symmetric on standardised pixels, so a white image correlates with its own."""
    raw = images.load(replace(ZCA, zca=False), cifar, 0, CPU).train.images
    assert isinstance(raw, torch.Tensor)
    found = whitening.fit(iter(raw.split(100)), (3, 8, 8))
    std = (raw.double() / 255).std(dim=(0, 2, 3), correction=0).repeat_interleave(64)
    zca = found.matrix.double() * std[:, None]
    assert torch.allclose(zca, zca.T, atol=1e-5)
    assert torch.linalg.eigvalsh(zca).min() > 0


def test_zca_is_fitted_on_what_is_trained_on_alone(cifar: Path) -> None:
    """Held-out images have no part in it, and are whitened by it like the test images."""
    held = images.load(replace(ZCA, validation=0.5), cifar, 0, CPU)
    plain = images.load(replace(ZCA, validation=0.5, zca=False), cifar, 0, CPU)
    assert held.val is not None
    assert plain.val is not None
    assert isinstance(plain.train.images, torch.Tensor)
    fitted = whitening.fit(iter(plain.train.images.split(7)), (3, 8, 8))
    for split, raw in ((held.train, plain.train), (held.val, plain.val), (held.test, plain.test)):
        for (x, _), (y, _) in zip(split.batches(64), raw.batches(64), strict=True):
            assert torch.allclose(x, fitted(y), atol=1e-4)


def test_zca_goes_with_augmentation(cifar: Path) -> None:
    """A varied image is whitened after it was varied."""
    white = images.load(replace(ZCA, augmentation=True), cifar, 0, CPU).train
    plain = images.load(replace(ZCA, augmentation=True, zca=False), cifar, 0, CPU).train
    assert isinstance(white.finish, whitening.Whitening)
    pairs = zip(white.batches(64, None, generator(3)), plain.batches(64, None, generator(3)), strict=True)
    for (x, _), (y, _) in pairs:
        assert torch.equal(x, white.finish(y))


def test_the_cache_gives_the_same_bits_and_survives_damage(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cifar / "cache"
    want = images.load(ZCA, cifar, 0, CPU).train.images
    first = images.load(ZCA, cifar, 0, CPU, cache).train.images
    (stored,) = cache.iterdir()
    images.load(replace(ZCA, samples=500), cifar, 0, CPU, cache)
    assert len(list(cache.iterdir())) == 2, "another subset is another file"
    with monkeypatch.context() as patched:
        patched.setattr(whitening, "fit", lambda *_: pytest.fail("fitted again"))
        second = images.load(replace(ZCA, epochs=3), cifar, 0, CPU, cache).train.images
    stored.write_bytes(stored.read_bytes()[:1000])
    third = images.load(ZCA, cifar, 0, CPU, cache).train.images
    assert all(torch.equal(want, found) for found in (first, second, third))  # type: ignore[arg-type]
    assert {path.suffix for path in cache.iterdir()} == {".pt"}


def test_threads_do_not_decide_the_fit(cifar: Path) -> None:
    raw = images.load(replace(ZCA, zca=False), cifar, 0, CPU).train.images
    assert isinstance(raw, torch.Tensor)
    found = []
    before = torch.get_num_threads()
    for threads, piece in ((1, 600), (2, 33)):
        torch.set_num_threads(threads)
        found.append(whitening.fit(iter(raw.split(piece)), (3, 8, 8)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(found[0].matrix, found[1].matrix)
    assert torch.equal(found[0].offset, found[1].offset)


def test_a_channel_without_contrast_is_left_alone() -> None:
    x = torch.full((5, 1, 2, 2), 7, dtype=torch.uint8)
    assert whitening.fit(iter([x]), (1, 2, 2))(x / 255).abs().max() < 1e-6


def test_zca_of_large_images_is_refused(cifar: Path) -> None:
    with pytest.raises(ConfigError, match=r"12,288 x 12,288"):
        images.load(replace(ZCA, size=64), cifar, 0, CPU)
