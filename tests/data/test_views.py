"""Two views of an image: torchvision's operations and laws, every image on its own; sequences; the clean view.

Without it both views could be one image, and LPL would have nothing to predict.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import small
import torch
from conftest import Command
from torch import Tensor

from hebb.config import plan
from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS
from hebb.core.errors import ConfigError, HebbError
from hebb.data import images, shapes3d, sources, views
from hebb.training.epoch import Epoch

CPU = torch.device("cpu")
COUNT = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(9))


@pytest.fixture
def torchvision() -> ModuleType:
    sources.declare_missing_operators()
    from torchvision.transforms import functional

    return functional


# -- single operations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [0, 1, 2])
def test_blends_are_those_of_torchvision(torchvision: ModuleType, operation: int) -> None:
    adjust = ("adjust_brightness", "adjust_contrast", "adjust_saturation")[operation]
    x, factor = random(20, 3, 9, 7), 0.2 + 1.6 * random(20, 1)
    made = views.blend(x, torch.full((20,), operation), factor)
    for image, source, f in zip(made, x, factor, strict=True):
        assert (image - getattr(torchvision, adjust)(source, float(f))).abs().max() < 1e-6


def test_the_hue_turns_as_in_torchvision(torchvision: ModuleType) -> None:
    """Random colours, and those at the seams: gray, black, two equal channels."""
    x, turns = random(40, 3, 6, 6), random(40, 1) - 0.5
    x[:5] = x[:5, :1]
    x[5:10, 1] = x[5:10, 0]
    x[10:15, 2] = x[10:15, 1]
    x[15] = 0
    made = views.turn_hue(x, turns)
    for image, source, turn in zip(made, x, turns, strict=True):
        assert (image - torchvision.adjust_hue(source, float(turn))).abs().max() < 2e-5
    assert (views.turn_hue(x, torch.zeros(40, 1)) - x).abs().max() < 1e-6
    assert (views.turn_hue(views.turn_hue(x, turns), -turns) - x).abs().max() < 1e-5


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (96, 9), (8, 1), (64, 7)])
def test_the_blur_is_that_of_torchvision(torchvision: ModuleType, side: int, kernel: int) -> None:
    assert views.kernel_size(side) == kernel
    x = random(12, 3, side, side)
    made = views.blur(x, generator(), 1.0)
    if kernel == 1:
        assert torch.equal(made, x)
        return
    sigmas = 0.1 + 1.9 * torch.rand((2, 12, 1), generator=generator())[0, :, 0]
    for image, source, sigma in zip(made, x, sigmas, strict=True):
        want = torchvision.gaussian_blur(source, [kernel, kernel], [float(sigma)] * 2)
        assert (image - want).abs().max() < 1e-5


def test_the_clean_view_is_enlarged_and_cut_to_its_centre(torchvision: ModuleType) -> None:
    """32 pixels become 35 and the middle 32 of them stay, as for 96 the middle of 105."""
    for side in (32, 96):
        x = random(3, 3, side, side)
        large = torchvision.resize(x, [int(1.1 * side)] * 2, antialias=True)
        assert torch.allclose(views.zoomed(x, 1.1), torchvision.center_crop(large, [side, side]), atol=1e-6)


# -- laws ---------------------------------------------------------------------------------------------------


def near(found: Tensor, probability: float) -> bool:
    """Tell whether a share of draws lies within four standard deviations."""
    return (
        abs(found.double().mean().item() - probability) < 4 * (probability * (1 - probability) / found.numel()) ** 0.5
    )


def changed(function: Callable[..., Tensor], x: Tensor, *arguments: object) -> Tensor:
    return (function(x, generator(), *arguments) - x).abs().flatten(1).amax(dim=1) > 1e-4


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("function", [views.jitter, views.grayscale, views.blur])
def test_an_operation_takes_its_share_of_the_images(
    function: Callable[..., Tensor], probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "SIGMA", (1.0, 2.0))  # the least blur of all leaves an image as it is
    x = random(1, 3, 20, 20).expand(COUNT, -1, -1, -1)
    assert near(changed(function, x, probability), probability)
    assert not changed(function, x, 0.0).any()


def test_colours_of_an_image_that_keeps_none_are_equal() -> None:
    made = views.grayscale(random(5, 3, 4, 4), generator(), 1.0)
    assert torch.equal(made, made[:, :1].expand_as(made))


def test_factors_are_uniform_and_orders_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 24 orders of the four operations are equally likely, factors uniform in 0.2..1.8, turns in -0.2..0.2."""
    seen: dict[str, list[Tensor]] = {"operation": [], "factor": [], "turn": []}

    def blend(x: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
        seen["operation"].append(operation)
        seen["factor"].append(factor[:, 0])
        return x

    def turn(x: Tensor, turns: Tensor) -> Tensor:
        seen["turn"].append(turns[:, 0])
        return x

    monkeypatch.setattr(views, "blend", blend)
    monkeypatch.setattr(views, "turn_hue", turn)
    count = 24000
    views.jitter(torch.zeros(count, 3, 1, 1), generator(), 1.0)
    operation, factor = torch.stack(seen["operation"], 1), torch.stack(seen["factor"], 1)  # (B, 6): 3 before, 3 after
    active = factor != 1
    assert (active.sum(dim=1) == 3).all()
    before = active[:, :3].sum(dim=1)
    orders = operation[:, :3] @ torch.tensor([16, 4, 1]) * 4 + before
    counts = torch.unique(orders, return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - count / 24).abs().max() < 4.5 * (count / 24) ** 0.5
    assert torch.equal(operation[:, :3], operation[:, 3:])
    drawn = factor[active].view(count, 3)
    assert drawn.min() >= 0.2
    assert drawn.max() <= 1.8
    assert (drawn.mean(dim=0) - 1).abs().max() < 4 * 1.6 / 12**0.5 / count**0.5
    assert (torch.corrcoef(drawn.T) - torch.eye(3)).abs().max() < 0.03
    turned = seen["turn"][0]
    assert -0.2 <= turned.min() < -0.19
    assert 0.19 < turned.max() <= 0.2


def test_the_views_of_an_image_differ_and_those_of_images_are_independent() -> None:
    x = random(1, 3, 16, 16).repeat(50, 1, 1, 1)
    view, drawn = views.RandomView.of(DataSpec(dataset="CIFAR10")), generator()
    first, second = view(x, drawn), view(x, drawn)
    assert len({image.numpy().tobytes() for image in torch.cat([first, second])}) > 95
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(view(x, generator()), first)


def test_published_defaults() -> None:
    assert views.RandomView.of(DataSpec(dataset="CIFAR10")) == views.RandomView(
        area=0.08, flip=0.5, colour=0.8, gray=0.2, blur=0.5
    )
    assert (views.FACTOR, views.HUE, views.SIGMA) == ((0.2, 1.8), 0.2, (0.1, 2.0))


def test_every_other_view_is_mirrored_or_none() -> None:
    """A bright column on the left stays on the left in the share that is not mirrored."""
    x = torch.zeros(COUNT, 1, 8, 8)
    x[:, :, :, :2] = 1
    for share in (0.0, 0.5, 1.0):
        made = views.augmentation.resized_crop(x, generator(), least=1.0, mirror=share)
        right = made[:, 0, :, 5:].sum(dim=(1, 2)) > made[:, 0, :, :3].sum(dim=(1, 2))
        assert right.float().mean() == share if share in (0, 1) else near(right, share)


# -- batches ------------------------------------------------------------------------------------------------


def digits(**change: object) -> images.Split:
    return images.load(replace(DataSpec(dataset="Digits"), **change), Path("nowhere"), 0, CPU).train  # type: ignore[arg-type]


def test_a_batch_carries_both_views_one_after_the_other() -> None:
    split = digits()
    plain = {"view_area": 1.0, "view_flip": 0.0, "view_colour": 0.0, "view_gray": 0.0, "view_blur": 0.0}
    order = torch.randperm(len(split), generator=generator(3))
    sizes = []
    for x, labels in split.batches(100, generator(3), generator(), views=2):
        sizes.append(len(x))
        assert torch.equal(labels[: len(labels) // 2], labels[len(labels) // 2 :])
        assert torch.equal(labels[: len(labels) // 2], split.labels[order[: len(labels) // 2]]) or len(sizes) > 1
        assert not torch.equal(*x.chunk(2))
    assert sum(sizes) == 2 * len(split)
    x, _ = next(digits(**plain).batches(100, generator(3), generator(), views=2))
    assert torch.allclose(x, (split.images[order[:100]].float() / 255).repeat(2, 1, 1, 1), atol=1e-5)


def test_views_are_normalised_after_they_are_made() -> None:
    mean = digits(standardise=True).finish(torch.zeros(1, 1, 8, 8))  # type: ignore[misc]
    raw, made = (next(digits(standardise=s).batches(64, None, generator(), views=2))[0] for s in (False, True))
    std = (raw[0] - raw[1]).norm() / (made[0] - made[1]).norm()
    assert torch.allclose(made, raw / std + mean, atol=1e-4)


def test_views_of_an_epoch_come_from_seed_phase_and_epoch() -> None:
    made = small.config("LPL-c4-k3:relu:warmup=0 BP:flatten")
    split = digits()
    batches = []
    for seed, phase, epoch in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        at = Epoch(seed=seed, phase=plan.phases(made)[0], phase_index=phase, epoch=epoch)
        batches.append(next(split.batches(30, None, at.augmentation(CPU), views=2))[0])
    assert torch.equal(batches[0], batches[1])
    assert len({batch.numpy().tobytes() for batch in batches}) == 4


def test_zoom_is_for_images_that_are_not_varied() -> None:
    split = digits(zoom=1.5, augmentation=True, noise_std=0.1)
    want = views.zoomed(split.images[:40].float() / 255, 1.5)
    assert torch.allclose(next(split.batches(40))[0], want)
    varied = next(split.batches(40, None, generator()))[0]
    assert (varied - split.images[:40].float() / 255).std() == pytest.approx(0.1, rel=0.1)


# -- standardising and held-out images ----------------------------------------------------------------------


def test_standardised_images_have_mean_0_and_deviation_1() -> None:
    x = torch.cat([x for x, _ in digits(standardise=True).batches(500)])
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-4)


def test_published_moments_are_those_of_the_images(shared_data: Path) -> None:
    spec = DataSpec(dataset="CIFAR10")
    arrays = images.load(spec, shared_data, 0, CPU).train.images
    assert isinstance(arrays, Tensor)
    mean, std = DATASETS.get("CIFAR10", "test").standard or ((), ())
    values = arrays.double().movedim(1, 0).flatten(1) / 255
    assert values.mean(dim=1).tolist() == pytest.approx(mean, abs=1e-3)
    assert values.std(dim=1).tolist() == pytest.approx(std, abs=2e-3)


def test_held_images_are_those_that_validation_takes_away() -> None:
    whole = images.load(DataSpec(dataset="Digits", validation=0.2), Path("nowhere"), 0, CPU)
    held = images.load(DataSpec(dataset="Digits", validation=0.2, held=True), Path("nowhere"), 0, CPU)
    assert whole.val is not None
    assert held.val is None
    assert torch.equal(held.train.images, whole.val.images)  # type: ignore[arg-type]
    assert len(held.train) + len(whole.train) == 1438
    assert len(held.train) == DataSpec(dataset="Digits", validation=0.2, held=True).train_samples()


# -- sequences ----------------------------------------------------------------------------------------------


def film(folder: Path, frames: list[int] | None = None) -> Path:
    """Write eight images of one gray level each, and the order in which a film shows them."""
    levels = np.arange(8, dtype=np.uint8)
    arrays = {"x_train": np.broadcast_to(levels[:, None, None] * 10, (8, 8, 8)).copy(), "y_train": levels % 2}
    arrays |= {"x_test": arrays["x_train"][:4], "y_test": arrays["y_train"][:4]}
    if frames is not None:
        arrays["frames"] = np.array(frames)
    np.savez(folder / "film.npz", **arrays)
    return folder / "film.npz"


def test_a_sequence_gives_pairs_of_neighbours(tmp_path: Path) -> None:
    order = [3, 1, 4, 1, 5, 2, 6, 0, 7, 3, 2]
    spec = DataSpec(dataset=f"npz:{film(tmp_path, order)}", split="sequences", batch_size=4)
    split = images.load(spec, Path("nowhere"), 0, CPU).train
    assert len(split) == spec.train_samples() == 10
    pairs = set()
    for x, labels in split.batches(4, generator(), None, views=2):
        level = (x[:, 0, 0, 0] * 25.5).round().int()
        assert torch.equal(labels, level % 2)
        pairs |= {tuple(map(tuple, zip(*level.view(2, -1).tolist(), strict=True)))}
    want = list(itertools.pairwise(order))
    assert pairs == {tuple(want[start : start + 4]) for start in (0, 4, 8)}


def test_the_end_of_a_sequence_is_held_out(tmp_path: Path) -> None:
    spec = DataSpec(dataset=f"npz:{film(tmp_path, [0, 1, 2, 3, 4, 5])}", split="sequences", validation=0.4)
    split = images.load(spec, Path("nowhere"), 0, CPU).train
    assert split.frames is not None
    assert split.frames.tolist() == [0, 1, 2, 3]
    assert len(split) == spec.train_samples() == 3


def test_training_on_a_film(inside: Command, tmp_path: Path) -> None:
    name = f"npz:{film(tmp_path, [0, 1, 2, 3, 4, 5, 6, 7] * 4)}"
    network = "LPL-c4-k3:relu:warmup=0 BP:flatten"
    flags = ("--dataset-unsup", name, "--dataset-sup", name, "--set", "dataset_unsup.split=sequences")
    done = inside("multi_layer.py", "--preset", network, *flags, "dataset_unsup.batch_size=7")
    assert done.returncode == 0, done.stderr
    refused = inside("multi_layer.py", "--preset", "Soft-c4-k3:relu BP:flatten", *flags)
    assert refused.returncode == 2
    assert "pairs of frames" in refused.stderr


@pytest.mark.parametrize("frames", [[0, 8], [-1, 2], [3], [0.5, 1.5]])
def test_frames_are_places_of_images(tmp_path: Path, frames: list[int]) -> None:
    with pytest.raises(ConfigError, match="frames must hold"):
        DATASETS.get(f"npz:{film(tmp_path, frames)}", "test")


SIZES = (3, 4, 2, 5, 4, 6)


@pytest.fixture(scope="module")
def walked() -> np.ndarray:
    """Factors (T, frames, 6) of trajectories over a small grid, hues as they are shown."""
    places = shapes3d.trajectories(np.random.default_rng(0), 3000, 17, SIZES)
    return np.stack(np.unravel_index(places, SIZES), axis=-1).reshape(3000, 17, 6)


def test_one_factor_moves_and_never_the_shape(walked: np.ndarray) -> None:
    moving = (np.diff(walked, axis=1) != 0).any(axis=1)  # (T, 6)
    assert (moving.sum(axis=1) == 1).mean() > 0.95  # a step of 2 on a ring of 2 stands still
    assert (moving.sum(axis=1) <= 1).all()
    assert not moving[:, shapes3d.SHAPE].any()
    assert moving[:, [0, 1, 2, 3, 5]].any(axis=0).all()


def test_scales_and_orientations_turn_back_at_their_ends(walked: np.ndarray) -> None:
    for factor in (3, 5):
        mine = walked[(np.diff(walked[:, :, factor], axis=1) != 0).any(axis=1), :, factor]
        steps = np.diff(mine, axis=1)
        assert set(np.abs(steps).ravel()) <= {0, 1, 2}
        turns = np.sign(steps[:, 1:]) * np.sign(steps[:, :-1]) < 0
        at = mine[:, 1:-1][turns]
        assert set(at.tolist()) <= {0, SIZES[factor] - 1}
        assert len(at) > 50


def test_hues_go_round_in_a_permuted_order(walked: np.ndarray) -> None:
    """Of a hue with four values every one is followed by two others, the same in all trajectories of step 1."""
    mine = walked[(np.diff(walked[:, :, 1], axis=1) != 0).any(axis=1), :, 1]
    single = mine[[len(set(row)) == 4 for row in mine]]
    after = {(int(a), int(b)) for row in single for a, b in itertools.pairwise(row)}
    assert len(after) == 8  # a ring of four, both ways round
    assert len(single) > 100


def test_between_a_fifth_and_a_quarter_of_the_trajectories_take_double_steps() -> None:
    """A quarter of n draws with replacement leaves 1 - e^-1/4 = 22.1 % of them double."""
    places = shapes3d.trajectories(np.random.default_rng(1), 20000, 17)
    found = np.stack(np.unravel_index(places, shapes3d.SIZES), axis=-1).reshape(20000, 17, 6)
    orientation = found[(np.diff(found[:, :, 5], axis=1) != 0).any(axis=1), :, 5]
    double = (np.abs(np.diff(orientation, axis=1)) == 2).any(axis=1)
    assert double.mean() == pytest.approx(1 - np.exp(-0.25), abs=0.03)


def rooms_file(folder: Path, kind: str) -> np.ndarray:
    """Write all images of a small grid, 4x4 pixels whose values name the place."""
    count = int(np.prod(SIZES))
    pixels = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(count)[:, None, None] // 256, np.arange(count)[:, None, None] % 256
    if kind == "npz":
        np.savez(folder / "3dshapes.npz", images=pixels, labels=np.zeros((count, 6)))
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "3dshapes.h5", "w") as file:
            file["images"], file["labels"] = pixels, np.zeros((count, 6))
    return pixels


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_3d_shapes_are_read_from_either_file(tmp_path: Path, kind: str) -> None:
    pixels = rooms_file(tmp_path, kind)
    train, test, walk = (shapes3d.rooms(tmp_path, split, (3, 4, 4), SIZES) for split in ("train", "test", "sequences"))
    places = np.concatenate([train.places, test.places])
    assert sorted(places) == list(range(len(pixels)))
    for part in (train, test, walk):
        index = torch.arange(0, len(part.labels), 7)
        read = part.read(index)
        want = torch.from_numpy(pixels[part.places[index]]).permute(0, 3, 1, 2)
        assert torch.equal(read, want)
        assert torch.equal(part.labels, part.places // SIZES[5] % SIZES[4])
    assert walk.frames is not None
    assert len(walk.frames) == 64000 * 17


def test_the_test_images_of_3d_shapes_are_the_declared_ones_and_balanced() -> None:
    entry = DATASETS.get("Shapes3D", "test")
    number, tested = torch.arange(480000), shapes3d.held_out()
    assert (int(tested.sum()), int((~tested).sum())) == (entry.test, entry.train)
    for period, values in zip((48000, 4800, 480, 60, 15, 1), shapes3d.SIZES, strict=True):
        counts = torch.bincount((number[tested] // period) % values, minlength=values)
        assert (counts - 12000 / values).abs().max() < 4 * (4 * 12000 / values) ** 0.5  # four shapes come together
    assert torch.bincount(number[tested] // 15 % 4).tolist() == [3000] * 4


def test_absent_files_and_packages_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HebbError, match=r"3dshapes\.h5"):
        shapes3d.rooms(tmp_path, "train", (3, 64, 64))
    (tmp_path / "3dshapes.h5").write_bytes(b"not an archive")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(HebbError, match="pip install h5py"):
        shapes3d.rooms(tmp_path, "train", (3, 64, 64))
    monkeypatch.undo()
    (tmp_path / "3dshapes.h5").unlink()
    rooms_file(tmp_path, "npz")
    with pytest.raises(ConfigError, match="480000"):
        shapes3d.rooms(tmp_path, "train", (3, 64, 64))


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view_area": 0}, "view_area"),
        ({"view_flip": 1.5}, "view_flip must be a probability"),
        ({"zoom": 0.5}, "zoom"),
        ({"zca": True, "zoom": 1.1}, "zca"),
        ({"zca": True, "standardise": True}, "zca does it"),
        ({"dataset": "ImageNette", "standardise": True}, "are always standardised"),
        ({"split": "sequences"}, "has no split 'sequences'"),
    ],
)
def test_bad_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(DataSpec(dataset="Digits"), **change)  # type: ignore[arg-type]
