"""What may be done with test images: nothing, unless a protocol or a setting asks for it by its name.

Without it a test accuracy could be that of images that had a part in training, and nobody would see it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from conftest import Command

from hebb.analysis import checklist
from hebb.api import searches
from hebb.cli import describe
from hebb.config import catalog, overrides, plan, serialise
from hebb.config.data_spec import DataSpec
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.data import images, sources, whitening
from hebb.data.images import Images
from hebb.rules import rates

CPU = torch.device("cpu")
CATALOG = catalog.load()
LEAKS = ("zca_test", "mirror_test")
PLAIN = DataSpec(dataset="CIFAR10", size=8)
ZCA = replace(PLAIN, zca=True)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Return a folder with noise in the place of CIFAR-10: test images are darker, and no image is like another."""
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (300, 32, 32, 3)), rng.integers(0, 60, (200, 32, 32, 3))
    arrays = {"x_train": train.astype(np.uint8), "x_test": test.astype(np.uint8)}
    np.savez(tmp_path / "cifar10.npz", **arrays, y_train=np.arange(300) % 10, y_test=np.arange(200) % 10)
    return tmp_path


def load(spec: DataSpec, folder: Path, split_seed: int = 0, **more: object) -> Images:
    return images.load(spec, folder, split_seed, CPU, **more)  # type: ignore[arg-type]


def stored(data: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and test images as they lie in memory."""
    assert isinstance(data.train.images, torch.Tensor)
    assert isinstance(data.test.images, torch.Tensor)
    return data.train.images, data.test.images


def spec_of(protocols: list[str], role: str = "dataset_sup") -> DataSpec:
    run = overrides.apply(small.config(), CATALOG.protocol(protocols), CATALOG)
    spec: DataSpec = getattr(run, role)
    return spec


# -- whitening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", [False, True])
def test_test_images_are_in_the_statistics_only_where_asked_for(leak: bool, cifar: Path) -> None:
    raw_train, raw_test = stored(load(PLAIN, cifar))
    train, test = stored(load(replace(ZCA, zca_test=leak), cifar))
    fitted = whitening.fit(iter([raw_train, raw_test] if leak else [raw_train]), (3, 8, 8))
    other = whitening.fit(iter([raw_train] if leak else [raw_train, raw_test]), (3, 8, 8))
    for white, raw in ((train, raw_train), (test, raw_test)):
        assert torch.allclose(white, fitted(raw / 255), atol=1e-4)
        assert not torch.allclose(white, other(raw / 255), atol=1e-2)


def test_test_images_of_other_classes_have_no_part(cifar: Path) -> None:
    few = replace(ZCA, zca_test=True, classes=(3,))
    fitted = whitening.fit(iter(stored(load(replace(PLAIN, classes=(3,)), cifar))), (3, 8, 8))
    raw = stored(load(replace(PLAIN, classes=(3,)), cifar))[0]
    assert torch.allclose(stored(load(few, cifar))[0], fitted(raw / 255), atol=1e-4)


def test_a_stored_whitening_of_one_kind_is_not_taken_for_the_other(cifar: Path) -> None:
    cache, specs = cifar / "cache", [ZCA, replace(ZCA, zca_test=True)]
    first = [stored(load(spec, cifar, cache=cache))[0] for spec in specs]
    assert len(list(cache.iterdir())) == 2
    again = [stored(load(spec, cifar, cache=cache))[0] for spec in reversed(specs)]
    assert not torch.allclose(first[0], first[1], atol=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


@pytest.mark.parametrize("leak", [False, True])
def test_images_of_no_dataset_are_whitened_alike(leak: bool, cifar: Path) -> None:
    """As an application sees them: the test images, given as unknown ones, in the bits of the test split."""
    spec, cache = replace(ZCA, zca_test=leak), cifar / "cache"
    want = stored(load(spec, cifar, cache=cache))[1]
    raw = sources.store(images.DATASETS.get("CIFAR10", ""), cifar, "test", (3, 8, 8)).read(torch.arange(200))
    found = images.unseen(raw, spec, cifar, 0, CPU, cache)
    assert torch.equal(found.images, want)  # type: ignore[arg-type]
    assert len(list(cache.iterdir())) == 1


# -- mirror images --------------------------------------------------------------------------------------------------


def test_test_images_are_mirrored_only_where_asked_for(cifar: Path) -> None:
    """Each with probability 1/2; training images are stored as they are."""
    train, plain = stored(load(PLAIN, cifar))
    same, test = stored(load(replace(PLAIN, mirror_test=True), cifar))
    assert torch.equal(same, train)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(test, plain, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(test, plain, strict=True)]
    assert [m != k for m, k in zip(mirrored, kept, strict=True)] == [True] * 200
    assert 70 < sum(mirrored) < 130  # four deviations of a coin thrown 200 times
    assert torch.equal(stored(load(replace(PLAIN, mirror=True), cifar))[1], plain)


def test_the_same_test_images_are_mirrored_each_time(cifar: Path) -> None:
    """Whatever else is asked for; another seed of the split mirrors others."""
    spec = replace(PLAIN, mirror_test=True)
    want = stored(load(spec, cifar))[1]
    assert torch.equal(stored(load(replace(spec, epochs=7, mirror=True, validation=0.5), cifar))[1], want)
    few = load(replace(spec, classes=(2, 5)), cifar).test
    chosen = [i for i in range(200) if i % 10 in (2, 5)]
    assert torch.equal(few.images, want[chosen])  # type: ignore[arg-type]
    assert not torch.equal(stored(load(spec, cifar, 1))[1], want)


def test_a_mirrored_image_is_whitened_after_it_was_mirrored(cifar: Path) -> None:
    spec = replace(ZCA, zca_test=True, mirror_test=True)
    both = whitening.fit(iter(stored(load(PLAIN, cifar))), (3, 8, 8))
    mirrored = stored(load(replace(PLAIN, mirror_test=True), cifar))[1]
    assert torch.allclose(stored(load(spec, cifar))[1], both(mirrored / 255), atol=1e-4)


def test_training_images_are_mirrored_anew_in_every_epoch(cifar: Path) -> None:
    """Half of them, and nothing else is done to them: their pixels lie in the same rows."""
    plain = load(PLAIN, cifar).train
    made = load(replace(PLAIN, mirror=True), cifar).train
    shares = []
    for seed in (0, 1):
        varied = torch.cat([x for x, _ in made.batches(50, None, torch.Generator().manual_seed(seed))])
        raw = torch.cat([x for x, _ in plain.batches(50)])
        flips = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(varied, raw, strict=True)])
        assert all(torch.equal(a, b) for a, b, f in zip(varied, raw, flips, strict=True) if not f)
        shares.append(flips)
    assert all(110 < int(flips.sum()) < 190 for flips in shares)
    assert not torch.equal(*shares)


# -- by name --------------------------------------------------------------------------------------------------------


def test_no_variant_and_no_other_protocol_leaks() -> None:
    assert [name for name, spec in CATALOG.datasets.items() if spec.leaks] == []
    assert not DataSpec(dataset="CIFAR10").leaks
    leaking = {
        name: {path.split(".")[1] for path in protocol.changes if path.endswith(LEAKS)}
        for name, protocol in CATALOG.protocols.items()
    }
    assert {name: names for name, names in leaking.items() if names} == {"instar_published": set(LEAKS)}


def test_the_published_protocol_does_what_ours_does_not() -> None:
    published, ours = spec_of(["instar_published"]), spec_of(["instar"])
    theirs = {"mirror": True, "zca_test": True, "zca_pixels": True}
    assert published == replace(ours, **theirs, mirror_test=True)
    blocks = spec_of(["instar_published"], "dataset_unsup")
    assert blocks == replace(spec_of(["instar"], "dataset_unsup"), **theirs)
    run = overrides.apply(small.config(), CATALOG.protocol(["instar_published"]), CATALOG)
    factors = [rates.classifier_factor(run.classifier, epoch, 20) for epoch in range(20)]
    assert factors == [0.5 ** max(0, (epoch - 10) // 2) for epoch in range(20)]
    text = CATALOG.protocols["instar_published"].description
    assert "TEST images" in text
    assert "test images are mirrored" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zca_test": True}, "zca_test would do nothing without zca"),
        ({"zca_pixels": True}, "zca_pixels would do nothing without zca"),
        ({"zca_smoothing": 1e-3}, "zca_smoothing would do nothing without zca"),
        ({"zca": True, "zca_smoothing": 0.0}, "zca_smoothing must be a number > 0, got 0.0"),
        ({"mirror": True, "augmentation": True}, "mirror cannot be combined with augmentation"),
    ],
)
def test_what_does_not_fit_together(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **change)  # type: ignore[arg-type]


def test_streamed_test_images_are_not_mirrored(tmp_path: Path) -> None:
    import image_files

    image_files.folder(tmp_path / "own", each=3)
    spec = DataSpec(dataset=f"folder:{tmp_path / 'own'}", size=8, mirror_test=True)
    load(spec, tmp_path)
    with pytest.raises(ConfigError, match="mirror_test needs test images that fit in memory"):
        load(spec, tmp_path, resident=0)


def published() -> RunConfig:
    run = overrides.apply(small.config(), CATALOG.protocol(["instar_published"]), CATALOG)
    few = [f"dataset_{role}.{change}" for role in ("sup", "unsup") for change in ("samples=100", "epochs=2")]
    return overrides.apply(run, overrides.parse(few), CATALOG)


def test_a_run_says_so_in_its_notes_and_in_its_record(tmp_path: Path) -> None:
    config = published()
    notes = " ".join(describe.notes(config, plan.phases(config)))
    assert (
        "dataset_sup: the whitening is fitted on test images as well, and test images are mirrored at random" in notes
    )
    assert "dataset_unsup: the whitening is fitted on test images as well," in notes
    small.run(config, tmp_path / "leaking")
    small.run(replace(config, dataset_sup=PLAIN_DIGITS, dataset_unsup=PLAIN_DIGITS), tmp_path / "fair")
    leaking, fair = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("leaking", "fair"))
    assert leaking["test images"] == {
        "dataset_sup": ["the whitening is fitted on test images as well", "test images are mirrored at random"],
        "dataset_unsup": ["the whitening is fitted on test images as well"],
    }
    assert "test images" not in fair
    told = json.loads((tmp_path / "leaking" / "config.json").read_text())["dataset_sup"]
    assert (told["zca_test"], told["mirror_test"]) == (True, True)
    for name in ("zca_test", "zca_smoothing", "zca_pixels", "mirror_test", "mirror"):
        del told[name]
    data = {**serialise.to_json(config), "dataset_sup": told}
    assert not serialise.run_from_json(data, "old").dataset_sup.leaks  # a file from before says that there was none


PLAIN_DIGITS = DataSpec(dataset="Digits", epochs=1, batch_size=20, print_freq=1, samples=100)


def test_the_checklist_of_a_search_says_so(tmp_path: Path) -> None:
    answers = []
    for name, changes in (("fair", {}), ("leaking", {"dataset_sup.zca": True, "dataset_sup.zca_test": True})):
        found = searches.search(
            "2SoftHebbCnnDigits", data="Digits_1", data_unsup="Digits_1", seeds=[0], purpose="sweep",
            overrides={"dataset_sup.samples": 60, "dataset_unsup.samples": 60, **changes}, folder=tmp_path / name,
        )  # fmt: skip
        frame = checklist.compute([found.folder])
        answers.append(frame.set_index("question")["answer"]["labelled data"])
    assert "test images" not in answers[0]
    assert "**the whitening is fitted on test images as well**" in answers[1]


def test_listed_protocols_say_so(inside: Command) -> None:
    text = " ".join(inside("multi_layer.py", "--list", "protocols").stdout.split())
    assert "TEST images" in text
