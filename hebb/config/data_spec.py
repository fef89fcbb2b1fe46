"""Which images a phase trains on, and how."""

from __future__ import annotations

from dataclasses import dataclass

from hebb.config.registry import DATASETS
from hebb.config.vocabulary import WITHOUT_LABELS, Part
from hebb.core.errors import ConfigError

SMOOTHING = 0.1
"""The ``zca_smoothing`` of a whitening that does not say another one."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A dataset, and how one kind of phase goes through it.

    Attributes:
        dataset: registered name.
        epochs: passes over the training images in a phase.
        batch_size: images per update.
        print_freq: epochs between two evaluations; the first and the last epoch are always evaluated.
        samples: number of training images (a subset drawn by ``split_seed``); None takes all.
        classes: labels that are kept, in training and test; None keeps all.
        augmentation: vary the training images anew in every epoch, in the way of the dataset's entry.
        noise_std: standard deviation of the Gaussian noise where that way is noise (MNIST), in units of the
            pixel range.
        mirror: mirror each training image with probability 1/2 in every epoch, and vary it in no other way.
        zca: ZCA whitening fitted on the images that are trained on.
        zca_smoothing: added to the eigenvalues of the covariance, so that directions of little variance are not blown
            up; the pixels have a variance of 1.
        zca_pixels: standardise each pixel by a mean and deviation of its own, and not by those of its channel.
        zca_test: fit it on the test images, too, which so leak into what is learnt.
        mirror_test: mirror each test image with probability 1/2, once, as ``split_seed`` draws it.
        split: part of the dataset that trains (``train``, ``unlabeled``, ``train+unlabeled``, ``sequences``, ``test``,
            ``val``).
        size: side in pixels to which images are resized; None takes the native size.
        validation: share of the training images held out for validation.
        held: train only on the images that ``validation`` holds out, so that a classifier learns from images that the
            blocks below have not seen.
        standardise: subtract the mean and divide by the deviation of each channel.
        deviations: subtract each channel's mean and divide by this many of its deviations, those of the settling
            networks' published protocol; 0: do not.
        zoom: images that are not varied are enlarged by this factor and cut to their centre.
        view_area: least share of an image's area in a view, for rules that compare two of them (``hebb.data.views``).
        view_flip: probability that a view is a mirror image.
        view_colour: probability that the colours of a view are changed.
        view_gray: probability that a view has none.
        view_blur: probability that a view is blurred.
    """

    dataset: str
    epochs: int = 1
    batch_size: int = 64
    print_freq: int = 10
    samples: int | None = None
    classes: tuple[int, ...] | None = None
    augmentation: bool = False
    noise_std: float = 0.0
    mirror: bool = False
    zca: bool = False
    zca_smoothing: float = SMOOTHING
    zca_pixels: bool = False
    zca_test: bool = False
    mirror_test: bool = False
    split: str = "train"
    size: int | None = None
    validation: float = 0.0
    held: bool = False
    standardise: bool = False
    deviations: float = 0.0
    zoom: float = 1.0
    view_area: float = 0.08
    view_flip: float = 0.5
    view_colour: float = 0.8
    view_gray: float = 0.2
    view_blur: float = 0.5

    def __post_init__(self) -> None:
        where = f"dataset '{self.dataset}'"
        entry = DATASETS.get(self.dataset, where)
        object.__setattr__(self, "dataset", entry.name)
        for name in ("epochs", "batch_size", "print_freq"):
            if getattr(self, name) < 1:
                raise ConfigError(where, f"{name} must be a whole number >= 1, got {getattr(self, name)}")
        if self.samples is not None and self.samples < 1:
            raise ConfigError(where, f"samples must be a whole number >= 1, got {self.samples}")
        if self.size is not None and self.size < 1:
            raise ConfigError(where, f"size must be a whole number of pixels >= 1, got {self.size}")
        if not 0 <= self.noise_std < float("inf"):
            raise ConfigError(where, f"noise_std must be a number >= 0, got {self.noise_std}")
        if not 0 <= self.validation < 1:
            raise ConfigError(where, f"validation must be a share >= 0 and < 1, got {self.validation}")
        if self.standardise and (entry.mean or self.zca):
            other = "zca does it" if self.zca else f"the images of {entry.name} are always standardised"
            raise ConfigError(where, f"standardise would do nothing: {other}", hint="leave it out")
        if not 0 <= self.deviations < float("inf"):
            raise ConfigError(where, f"deviations must be a number >= 0, got {self.deviations}")
        if self.deviations and entry.statistics is None:
            raise ConfigError(
                where, f"deviations divides by published statistics, and {entry.name} has none", hint="leave it out"
            )
        if self.deviations and self.zca:
            raise ConfigError(where, "zca whitens the pixels, so deviations would do nothing", hint="leave one out")
        if self.deviations and self.standardise:
            raise ConfigError(where, "standardise and deviations divide by different deviations", hint="leave one out")
        if self.mirror and self.augmentation:
            raise ConfigError(where, "mirror cannot be combined with augmentation", hint="leave one of the two out")
        for name in ("zca_test", "zca_pixels"):
            if getattr(self, name) and not self.zca:
                raise ConfigError(
                    where, f"{name} would do nothing without zca", hint=f"leave it out, or set {name}=false"
                )
        if not 0 < self.zca_smoothing < float("inf"):
            raise ConfigError(where, f"zca_smoothing must be a number > 0, got {self.zca_smoothing}")
        if self.zca_smoothing != SMOOTHING and not self.zca:
            hint = f"leave it out, or set zca_smoothing={SMOOTHING}"
            raise ConfigError(where, "zca_smoothing would do nothing without zca", hint=hint)
        if self.zca and self.zoom > 1:
            raise ConfigError(
                where, "zoom would cut off the border of images that zca has whitened", hint="leave it out"
            )
        if not 1 <= self.zoom <= 10:
            raise ConfigError(where, f"zoom must be a factor >= 1 and <= 10, got {self.zoom}")
        if not 0 < self.view_area <= 1:
            raise ConfigError(where, f"view_area must be a share > 0 and <= 1, got {self.view_area}")
        for name in ("view_flip", "view_colour", "view_gray", "view_blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(where, f"{name} must be a probability, got {getattr(self, name)}")
        if self.split not in entry.splits:
            raise ConfigError(where, f"has no split '{self.split}'", given=self.split, choices=entry.splits)
        if self.classes is not None and self.split in WITHOUT_LABELS:
            raise ConfigError(where, f"split '{self.split}' has no labels to choose classes by")
        if self.split == Part.SEQUENCES and self.held:
            raise ConfigError(where, "held would take single images out of a sequence")
        for label in self.classes or ():
            if not 0 <= label < entry.classes:
                raise ConfigError(where, f"class {label} does not exist; there are 0 to {entry.classes - 1}")
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ConfigError(where, f"classes must be distinct labels, at least one, got {self.classes}")

    @property
    def varied(self) -> bool:
        """Whether every epoch has training images of its own."""
        return self.augmentation or self.mirror

    @property
    def leaks(self) -> tuple[str, ...]:
        """What is done with test images that a fair protocol leaves alone."""
        return leaks(self.zca_test, self.mirror_test)

    def pool_samples(self) -> int:
        """Count the images from which training and validation are taken."""
        available = DATASETS.get(self.dataset, "dataset").train_samples(self.classes, self.split)
        return available if self.samples is None else min(self.samples, available)

    def train_samples(self) -> int:
        """Count the images of one epoch.

        With ``classes`` and ``validation`` it may be a few more or less: which images are held out is drawn from all
        classes, so that it does not depend on ``classes``.
        """
        total = self.pool_samples()
        held = held_out(total, self.validation)
        return held if self.held else total - held

    def updates_per_epoch(self) -> int:
        """Count the batches of one epoch; the last one may be smaller."""
        return batches(self.train_samples(), self.batch_size)


def leaks(zca_test: object, mirror_test: object) -> tuple[str, ...]:
    """Say what these two settings do with test images; nothing where neither is set."""
    whitened = ("the whitening is fitted on test images as well",) if zca_test else ()
    mirrored = ("test images are mirrored at random",) if mirror_test else ()
    return whitened + mirrored


def batches(images: int, size: int) -> int:
    """Return the number of batches that ``images`` images make; the last one may be smaller."""
    return -(-images // size)


def held_out(count: int, share: float) -> int:
    """Count the validation images among the first ``count`` of the shuffled training images.

    Image number i is held out when floor((i+1) share) > floor(i share), so that the choice of an image does
    not depend on how many are used.
    """
    return int(count * share + 1e-9)
