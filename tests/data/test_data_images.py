"""Images from files: STL-10, ImageNet and its kin; in memory and streamed.

Without it labels could shift against images, or pictures lie on their side.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hebb.config import catalog, plan
from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError, HebbError
from hebb.data import images, scan, sources, whitening
from hebb.data.stores import Files
from hebb.data.stream import Stream

CPU = torch.device("cpu")
CATALOG = catalog.load()


def load(name: str, folder: Path, **changes: object) -> images.Images:
    """Load a variant of ``preset.json`` with some fields changed."""
    return images.load(replace(CATALOG.dataset(name, "test"), **changes), folder, 0, CPU)


def pixels(split: images.Split | None) -> torch.Tensor:
    assert split is not None
    assert isinstance(split.images, torch.Tensor)
    return split.images


# -- STL-10 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test", "unlabeled", "train+unlabeled"])
def test_stl10_is_what_torchvision_reads(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.declare_missing_operators()
    from torchvision import datasets

    written = image_files.stl10(tmp_path)
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)  # the digests of the real files
    want = datasets.STL10(root=str(tmp_path), split=split)
    found = load("STL10", tmp_path, split=split).train
    assert np.array_equal(pixels(found).numpy(), want.data)
    assert np.array_equal(found.labels.numpy(), want.labels)
    assert np.array_equal(want.data, np.concatenate([written[part] for part in split.split("+")]))


def test_the_unlabelled_images_obey_subset_and_validation(tmp_path: Path) -> None:
    written = image_files.stl10(tmp_path, unlabeled=600)
    found = load("STL10_unlabel", tmp_path, validation=0.2, samples=500)
    assert (len(found.train), len(pixels(found.val))) == (400, 100)
    assert set(found.train.labels.tolist()) == {-1}
    parts = [{image.tobytes() for image in pixels(split).numpy()} for split in (found.train, found.val)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] <= {image.tobytes() for image in written["unlabeled"]}
    assert set(found.test.labels.tolist()) == set(range(10))
    smaller = pixels(load("STL10_unlabel", tmp_path, size=32).train)
    want = F.interpolate(torch.from_numpy(written["unlabeled"]).float(), size=32, mode="bilinear", antialias=True)
    assert (smaller - want).abs().max() <= 1, "rounded"


def test_counts_of_stl10() -> None:
    counts = {name: CATALOG.dataset(name, "test").train_samples() for name in ("STL10", "STL10_unlabel")}
    assert counts == {"STL10": 5000, "STL10_unlabel": 100000}
    assert CATALOG.dataset("STL10_train+unlabel", "test").train_samples() == 105000


@pytest.mark.parametrize("part", ["train_X", "unlabeled_X", "train_y"])
def test_truncated_stl10(part: str, tmp_path: Path) -> None:
    image_files.stl10(tmp_path)
    path = tmp_path / "stl10_binary" / f"{part}.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"truncated|images and \[19, 30\] labels"):
        load("STL10_train+unlabel", tmp_path)


def test_labels_are_wanted_of_supervised_data() -> None:
    data = CATALOG.dataset("STL10_train+unlabel", "test")
    run = RunConfig(network=CATALOG.network("5SoftHebbCnnSTL"), mode="successive", dataset_sup=data, dataset_unsup=data)
    with pytest.raises(ConfigError, match="no labels"):
        plan.phases(run)
    assert plan.phases(replace(run, dataset_sup=CATALOG.dataset("STL10", "test")))


# -- ImageNet and its kin -----------------------------------------------------------------------------------

WNIDS = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079")
WNIDS += ("n03394916", "n03417042", "n03425413", "n03445777", "n03888257")


def imagenette(folder: Path, name: str, size: tuple[int, int]) -> None:
    for part, each in (("train", 3), ("val", 2)):
        image_files.classes(folder / name / part, WNIDS, each, size, "JPEG")


def test_imagenette_is_what_torchvision_reads(tmp_path: Path) -> None:
    sources.declare_missing_operators()
    from torchvision import datasets
    from torchvision.transforms import functional

    imagenette(tmp_path, "imagenette2-160", (200, 160))
    want = datasets.Imagenette(root=str(tmp_path), split="train", size="160px")
    found = load("ImageNette", tmp_path).train
    assert found.labels.tolist() == [label for _, label in want]
    for image, (picture, _) in zip(pixels(found), want, strict=True):
        resized = functional.resize(functional.pil_to_tensor(picture), [160, 160], antialias=True)
        assert (image.int() - resized.int()).abs().max() <= 1, "rounded"


def test_images_of_250_pixels_are_not_enlarged_ones_of_160(tmp_path: Path) -> None:
    for name, size in (("imagenette2-160", (200, 160)), ("imagenette2-320", (400, 320))):
        imagenette(tmp_path, name, size)
    store = sources.imagenette(tmp_path, "train", (3, 250, 250))
    assert store.listing.root == tmp_path / "imagenette2-320" / "train"
    assert sources.imagenette(tmp_path, "val", (3, 160, 160)).listing.root == tmp_path / "imagenette2-160" / "val"
    assert len(store) == 30


def test_imagenet_images_are_normalised_always(tmp_path: Path) -> None:
    imagenette(tmp_path, "imagenette2-160", (160, 160))
    plain, varied = (load("ImageNette", tmp_path, augmentation=value) for value in (False, True))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for split in (plain.train, plain.test, varied.train, varied.test):
        x, _ = next(split.batches(8))
        assert torch.allclose(x, (pixels(split)[:8] / 255 - mean) / std, atol=1e-5)
    x, _ = next(varied.train.batches(8, None, torch.Generator()))
    assert x.shape == (8, 3, 160, 160)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ImageNet and ImageNetV2, one tiny image for each class."""
    folder = tmp_path_factory.mktemp("thousand")
    wnids = [f"n{i:08d}" for i in range(1000)]
    for part in ("train", "val"):
        image_files.classes(folder / "imagenet" / part, wnids, 1, (6, 5), "JPEG")
    for name in sources.IMAGENET_V2.values():
        image_files.classes(folder / name, map(str, range(1000)), 1, (6, 5), "jpeg")
    return folder


def test_imagenet_has_the_labels_of_torchvision(thousand: Path) -> None:
    sources.declare_missing_operators()
    from torchvision import datasets

    found = sources.imagenet(thousand, "train", (3, 8, 8))
    want = datasets.ImageFolder(str(thousand / "imagenet" / "train")).samples
    assert [(str(found.listing.path(i)), label) for i, label in enumerate(found.labels.tolist())] == want
    assert DATASETS.get("ImageNet", "test").train == 1281167


@pytest.mark.parametrize("kind", sources.IMAGENET_V2)
def test_imagenet_v2_counts_its_classes_as_numbers(kind: str, thousand: Path) -> None:
    """Folder 10 is class 10, and not the third in the order of letters."""
    store = sources.imagenet_v2(kind, thousand, "test", (3, 8, 8))
    assert [int(store.listing.path(i).parent.name) for i in range(1000)] == store.labels.tolist() == list(range(1000))


def test_an_imagenet_that_lacks_a_class_is_refused(tmp_path: Path) -> None:
    image_files.folder(tmp_path / "imagenet", test="val", each=1)
    with pytest.raises(ConfigError, match="must hold 1000 classes, got 2"):
        load("ImageNet", tmp_path)


# -- Tiny ImageNet, EMNIST, KMNIST and SVHN, in the formats of their files ------------------------------------------

TWO_HUNDRED = [f"n{i:08d}" for i in range(200)]


def test_tiny_imagenet_has_its_classes_in_a_table(tmp_path: Path) -> None:
    """Training images lie two folders deep; validation images are the test part, each with the class of its line."""
    root = image_files.tiny_imagenet(tmp_path, TWO_HUNDRED)
    found = load("TinyImageNet", tmp_path)
    assert found.train.labels.bincount().tolist() == [2] * 200
    assert found.test.labels.tolist() == list(range(200))
    assert pixels(found.test).shape == (200, 3, 64, 64)
    last = functional_read(root / "val" / "images" / "images_199.JPEG")  # the first class stands in the last line
    assert torch.equal(pixels(found.test)[0], last)
    (root / "val" / "val_annotations.txt").unlink()
    for i, name in enumerate(reversed(TWO_HUNDRED)):  # as many scripts sort it
        (root / "val" / name).mkdir()
        (root / "val" / "images" / f"images_{i}.JPEG").rename(root / "val" / name / f"{i}.JPEG")
    (root / "val" / "images").rmdir()
    again = load("TinyImageNet", tmp_path)
    assert torch.equal(pixels(again.test), pixels(found.test))


def functional_read(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("images_0.JPEG", "must name an image and its class"),
        ("images_0.JPEG\tn99999999\t0\t0", "must name an image and its class"),
        ("other.JPEG\tn00000001\t0\t0", "names an image that is not there"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_its_line(line: str, problem: str, tmp_path: Path) -> None:
    root = image_files.tiny_imagenet(tmp_path, TWO_HUNDRED)
    table = root / "val" / "val_annotations.txt"
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(ConfigError, match=f"line 201.*{problem}"):
        load("TinyImageNet", tmp_path)


def test_tiny_imagenet_without_some_classes_is_refused(tmp_path: Path) -> None:
    image_files.tiny_imagenet(tmp_path, TWO_HUNDRED[:199])
    with pytest.raises(ConfigError, match="must hold 200 classes, got 199"):
        load("TinyImageNet", tmp_path)


@pytest.mark.parametrize(("split", "classes", "first"), [("balanced", 47, 0), ("letters", 26, 1), ("digits", 10, 0)])
def test_emnist_stands_upright(split: str, classes: int, first: int, tmp_path: Path) -> None:
    """Its files hold the columns of an image one after the other; letters are counted from 1."""
    rng = np.random.default_rng(0)
    raw = {}
    for part, count in (("train", 2 * classes), ("test", classes)):
        raw[part] = rng.integers(0, 256, (count, 28, 28))
        base = tmp_path / "EMNIST" / "raw" / f"emnist-{split}-{part}"
        image_files.idx(base.with_name(f"{base.name}-images-idx3-ubyte"), raw[part])
        image_files.idx(base.with_name(f"{base.name}-labels-idx1-ubyte"), np.arange(count) % classes + first)
    for train, part in ((True, "train"), (False, "test")):
        x, y = sources.emnist(split, tmp_path, train)
        assert (x == raw[part].transpose(0, 2, 1)).all()
        assert y.tolist() == [i % classes for i in range(len(x))]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_digits_and_their_kin_are_read_from_the_files_of_their_authors(name: str, packed: bool, tmp_path: Path) -> None:
    """Archives count that another program has packed, as those of Linux distributions."""
    rng = np.random.default_rng(0)
    raw = {}
    folder = tmp_path / name / "raw"
    for part, word in (("train", "train"), ("test", "t10k")):
        raw[part] = rng.integers(0, 256, (20, 28, 28))
        image_files.idx(folder / f"{word}-images-idx3-ubyte", raw[part])
        image_files.idx(folder / f"{word}-labels-idx1-ubyte", np.arange(20) % 10)
    if packed:
        for path in list(folder.iterdir()):
            path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))
            path.unlink()
    entry = DATASETS.get(name, "test")
    for part in raw:
        x, y = sources.read(entry, tmp_path, train=part == "train")
        assert (x[:, 0].numpy() == raw[part]).all()
        assert y.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize("damage", ["absent", "empty", "no archive", "no images", "half"])
def test_a_damaged_archive_is_left_to_torchvision(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It downloads another."""
    folder = tmp_path / "MNIST" / "raw"
    image_files.idx(folder / "train-images-idx3-ubyte", np.zeros((20, 28, 28)))
    image_files.idx(folder / "train-labels-idx1-ubyte", np.zeros(20))
    for path in list(folder.iterdir()):
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert len(sources.torchvision_images("MNIST", tmp_path, train=True)[0]) == 20
    archive = folder / "train-images-idx3-ubyte.gz"
    whole = archive.read_bytes()
    archive.unlink()
    contents = {
        "empty": b"",
        "no archive": b"none",
        "no images": gzip.compress(b"none"),
        "half": whole[: len(whole) // 2],
    }
    if damage != "absent":
        archive.write_bytes(contents[damage])

    def asked(*_: object, **__: object) -> None:
        raise InterruptedError("torchvision was asked")

    monkeypatch.setattr(sources, "_torchvision", asked)
    with pytest.raises(InterruptedError, match="torchvision was asked"):
        sources.torchvision_images("MNIST", tmp_path, train=True)


def test_svhn_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Height, width, colour, image in the files of MATLAB; 10 stands for the digit 0."""
    import hashlib

    from scipy import io

    sources.declare_missing_operators()
    from torchvision import datasets

    rng = np.random.default_rng(0)
    lists, raw = {}, {}
    for part in ("train", "test"):
        raw[part] = rng.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        path = tmp_path / f"{part}_32x32.mat"
        io.savemat(path, {"X": raw[part], "y": (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]})
        lists[part] = ["nowhere", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    x, y = sources.read(DATASETS.get("SVHN", "test"), tmp_path, train=False)
    assert (x.numpy() == raw["test"].transpose(3, 2, 0, 1)).all()
    assert y.tolist() == [(i + 1) % 10 for i in range(20)]


@pytest.mark.parametrize("name", ["STL10", "ImageNette", "ImageNet", "ImageNetV2TopImages", "TinyImageNet"])
def test_absent_images_say_where_they_belong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: what to put where, and no folder that was not there before."""
    sources.declare_missing_operators()
    from torchvision import datasets

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.stl10, "download_and_extract_archive", refuse)
    monkeypatch.setattr(datasets.imagenette, "download_and_extract_archive", refuse)
    folder = tmp_path / "data"
    with pytest.raises(
        HebbError, match=f"{folder}.*\n.*(stl10_binary/|imagenet.*/train|TopImages|top-images|tiny-imagenet-200).*there"
    ):
        load(name, folder)
    assert not folder.exists()


def test_every_variant_loads(thousand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of ``preset.json``, from files in the real formats; fitting a whitening is another test's matter."""
    eye = whitening.Whitening(torch.eye(3072), torch.zeros(3072))
    monkeypatch.setattr(whitening, "fit", lambda *_: eye)
    image_files.stl10(tmp_path)
    imagenette(tmp_path, "imagenette2-160", (16, 16))
    imagenette(tmp_path, "imagenette2-320", (16, 16))
    image_files.tiny_imagenet(tmp_path, TWO_HUNDRED, 1, (16, 16))
    for entry in DATASETS.entries():
        if entry.load is not None and entry.name != "Digits":
            shape = (entry.height, entry.width, entry.channels)
            image_files.keras(tmp_path / f"{entry.name.lower()}.npz", shape, 60, 60, min(10, entry.classes))
    assert len(CATALOG.datasets) >= 116
    for name, spec in CATALOG.datasets.items():
        if spec.dataset == "Shapes3D":  # one file of 480,000 images: tests/test_views.py reads a smaller one
            continue
        folder = thousand if spec.dataset.startswith("ImageNet") and spec.dataset != "ImageNette" else tmp_path
        found = images.load(spec, folder, 0, CPU, resident=0 if folder == thousand else images.RESIDENT)
        assert len(found.train) == len(found.train.images) > 0, name
        if folder == tmp_path:
            x, _ = next(found.train.batches(4, torch.Generator(), torch.Generator()))
            assert x.shape[1:] == DATASETS.get(spec.dataset, name).shape(spec.size, name)
            assert x.isfinite().all()


# -- streams ------------------------------------------------------------------------------------------------


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_streamed_images_are_those_in_memory(tmp_path: Path) -> None:
    """Bit for bit, whatever the number of workers, in every epoch, varied or not."""
    image_files.folder(tmp_path, size=(40, 30), ending="jpeg")
    spec = DataSpec(dataset=f"folder:{tmp_path}", size=24, augmentation=True, validation=0.2)
    threads = torch.get_num_threads()
    found = []
    for resident, workers in ((images.RESIDENT, 1), (0, 1), (0, 2)):
        torch.set_num_threads(workers)
        loaded = images.load(spec, tmp_path, 0, CPU, resident=resident)
        assert isinstance(loaded.train.images, torch.Tensor if resident else Stream)
        epochs = [
            list(loaded.train.batches(4, generator(epoch), generator(epoch) if varied else None))
            for epoch, varied in ((0, False), (1, True), (2, True))
        ]
        epochs += [list(loaded.train.batches(5)), list(loaded.test.batches(3))]
        found.append([tensor for epoch in epochs for batch in epoch for tensor in batch])
        assert loaded.val is not None
        assert (len(loaded.train), len(loaded.val)) == (15, 3)
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_pass_that_was_left_early_does_not_disturb_the_next(tmp_path: Path) -> None:
    image_files.folder(tmp_path)
    stream = Stream(Files(scan.part(tmp_path, True, "test"), (3, 16, 20)), workers=1)
    whole = torch.cat(list(stream.read(4)))
    next(stream.read(4, torch.arange(17, -1, -1)))
    assert torch.equal(torch.cat(list(stream.read(5))), whole)


def test_torch_s_own_generator_is_left_alone(tmp_path: Path) -> None:
    image_files.folder(tmp_path)
    stream = Stream(Files(scan.part(tmp_path, True, "test"), (3, 16, 20)), workers=0)
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    list(stream.read(4))
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_in_a_stream_is_named(workers: int, tmp_path: Path) -> None:
    image_files.folder(tmp_path)
    found = scan.part(tmp_path, True, "test")
    found.path(11).write_bytes(b"none")
    stream = Stream(Files(found, (3, 16, 20)), workers=workers)
    with pytest.raises(HebbError, match=r"^\S+dog_2.png: is not an image that can be read"):
        list(stream.read(4))
