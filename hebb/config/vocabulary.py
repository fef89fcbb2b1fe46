"""The closed sets of words that a configuration is made of.

A member equals, hashes, prints and is stored in JSON like its word, so a plain string can stand in its place.
"""

from __future__ import annotations

from enum import StrEnum

from hebb.core.choices import choose
from hebb.core.errors import ConfigError

# -- layers ---------------------------------------------------------------------------------------------------


class Arch(StrEnum):
    """Architecture of a layer: fully connected or convolutional."""

    MLP = "MLP"
    CNN = "CNN"


class Learning(StrEnum):
    """How a layer learns: by a layer-local rule, a loss of its own, back-propagation, or as part of a settling net."""

    HEBBIAN = "hebbian"
    LOCAL = "local"
    BACKPROP = "backprop"
    SETTLE = "settle"


class PaddingMode(StrEnum):
    """What the padding of a convolution is filled with."""

    REFLECT = "reflect"
    ZEROS = "zeros"
    REPLICATE = "replicate"
    CIRCULAR = "circular"


class Competition(StrEnum):
    """f of the soft competition f(u)/sum f(u)."""

    EXP = "exp"
    RELU = "relu"
    REPU = "repu"
    SIGMOID = "sigmoid"
    TANH = "tanh"


class Response(StrEnum):
    """How a Hebbian layer compares an input patch with the weights of a neuron (``HebbLayer.response``)."""

    DOT = "dot"
    COSINE = "cosine"
    PROJECTION = "projection"


class RateDecay(StrEnum):
    """Schedule of a Hebbian rate over the updates."""

    LINEAR = "linear"
    EXP = "exp"
    CONSTANT = "constant"
    FLOOR = "floor"


class Normaliser(StrEnum):
    """What divides a change: the largest entry of the layer or of the neuron's own, or the number of samples."""

    LAYER = "layer"
    FILTER = "filter"
    MEAN = "mean"


class WeightInit(StrEnum):
    """Law of the initial weights; ``auto`` is normal behind a batch norm."""

    AUTO = "auto"
    NORMAL = "normal"
    POSITIVE = "positive"


class Control(StrEnum):
    """Arms of a comparison: the network as it learns, and its controls (``hebb.config.controls``)."""

    LEARNED = "learned"
    FROZEN = "frozen"
    HEADS = "heads"
    BACKPROP = "backprop"


class LossSource(StrEnum):
    """Whose loss a layer descends: its own, or that of the next block up which has one."""

    OWN = "own"
    ABOVE = "above"


class Similarity(StrEnum):
    """By what a loss compares two images."""

    COSINE = "cosine"
    DISTANCE = "distance"


# -- settling networks ----------------------------------------------------------------------------------------


class NudgeSign(StrEnum):
    """Sign of the nudge; ``random`` draws it for every batch."""

    RANDOM = "random"
    POSITIVE = "positive"
    NEGATIVE = "negative"


class Solver(StrEnum):
    """Variables of predictive coding that descend while the network settles: the states, or the errors (ePC)."""

    STATE = "state"
    ERROR = "error"


class StepRule(StrEnum):
    """How the step of the neurons falls within a phase."""

    CONSTANT = "constant"
    SLOW = "slow"
    LOOP = "loop"


# -- blocks ---------------------------------------------------------------------------------------------------


class PoolKind(StrEnum):
    """What a pool takes of its window."""

    MAX = "max"
    AVG = "avg"


class Operation(StrEnum):
    """Operations in front of a layer, in the order in which they are applied."""

    BATCHNORM2D = "batchnorm2d"
    FLATTEN = "flatten"
    BATCHNORM1D = "batchnorm1d"
    MAXNORM = "maxnorm"
    NORMNORM = "normnorm"


# -- runs -----------------------------------------------------------------------------------------------------


class ClassifierLoss(StrEnum):
    """What back-propagation descends."""

    CROSS_ENTROPY = "cross_entropy"
    MSE = "mse"


class Optimiser(StrEnum):
    """How weights follow a gradient."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class Schedule(StrEnum):
    """Schedule of the back-prop rate over the epochs."""

    STEP = "step"
    COSINE = "cosine"
    DECAY = "decay"
    CONSTANT = "constant"


class DeviceKind(StrEnum):
    """Where a run computes; ``auto`` is resolved when it starts."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"
    """An Apple GPU."""
    XPU = "xpu"
    """An Intel GPU."""


NUMBERED = (DeviceKind.CUDA, DeviceKind.XPU)
"""Devices of which a machine may have several, as ``cuda:0`` and ``cuda:1``."""


def device(text: str, where: str, more: tuple[str, ...] = ()) -> tuple[DeviceKind, int]:
    """Return the kind and the index in the name of a device: ``cpu``, ``cuda:1``.

    Args:
        text: the name.
        where: the place that an error names.
        more: kinds that are allowed there beside those of a machine.
    """
    kind, colon, index = text.partition(":")
    numbered = kind in NUMBERED
    single = kind in (DeviceKind.CPU, DeviceKind.MPS, *more)
    if not (numbered or single) or (colon and not (numbered and index.isascii() and index.isdecimal())):
        choices = (*more, "cpu", "cuda", "cuda:N", "mps", "xpu", "xpu:N")
        raise ConfigError(where, f"unknown device '{text}'", given=kind, choices=choices)
    return DeviceKind(kind), int(index or 0)


class NumberType(StrEnum):
    """Number types of features and of products, by torch's names."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class TensorFloat(StrEnum):
    """What a GPU may compute with factors rounded to TF32, 10 bits of mantissa."""

    NONE = "none"
    CONVOLUTIONS = "convolutions"
    """torch's own default."""
    ALL = "all"


class ProbeKind(StrEnum):
    """Readouts of a block."""

    LINEAR = "linear"
    """Linear probe."""
    KNN = "knn"
    """k nearest neighbours."""
    NEURON = "neuron"
    """Labels of the winning neurons."""
    SHORT = "short"
    """The linear probe of a few steps that is published for LPL."""
    GEOMETRY = "geometry"
    """Numbers of the representation (``hebb.probing.geometry``)."""


class Resume(StrEnum):
    """Which stored weights a run starts from."""

    ALL = "all"
    WITHOUT_CLASSIFIER = "without_classifier"


# -- datasets -------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """What the images of a run are for: phases with labels and evaluation, or Hebbian phases."""

    SUP = "sup"
    UNSUP = "unsup"


class Part(StrEnum):
    """The parts of a dataset that ``DataSpec.split`` can name."""

    TRAIN = "train"
    TEST = "test"
    VAL = "val"
    """Another word for ``test``."""
    UNLABELED = "unlabeled"
    TRAIN_UNLABELED = "train+unlabeled"
    SEQUENCES = "sequences"
    """Images in time order; two neighbours are the views of a sample."""


UNLABELLED = (Part.UNLABELED, Part.TRAIN_UNLABELED)
WITHOUT_LABELS = (*UNLABELLED, Part.SEQUENCES)
"""Parts of which some images, or all, have no label of their own."""


class Augmentation(StrEnum):
    """How the training images of a dataset are varied (``hebb.data.augmentation``)."""

    CROP = "crop"
    RESIZED_CROP = "resized crop"
    NOISE = "noise"


# -- searches -------------------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """A sweep reports every configuration; a search selects one on validation accuracy."""

    SWEEP = "sweep"
    SEARCH = "search"


class Algorithm(StrEnum):
    """How the points of a space are chosen."""

    GRID = "grid"
    RANDOM = "random"
    OPTUNA = "optuna"
    HYPEROPT = "hyperopt"


class Sampler(StrEnum):
    """How Optuna suggests a point from the results so far."""

    TPE = "tpe"
    """Tree-structured Parzen estimator over all domains together."""
    GP = "gp"
    """Gaussian process."""
    RANDOM = "random"
    """Random points, which no result changes: what the others are compared with."""
    CMAES = "cmaes"
    """Covariance matrix adaptation."""
    NSGA2 = "nsga2"
    """Genetic algorithm."""


class Scheduler(StrEnum):
    """What stops trials early."""

    NONE = "none"
    ASHA = "asha"
    ASHA_PROMOTION = "asha-promotion"
    """ASHA whose trials pause at a rung until they are promoted."""
    MEDIAN = "median"
    HYPERBAND = "hyperband"

    @property
    def pauses(self) -> bool:
        """Whether trials pause and go on, so that they must not report a step again."""
        return self in (Scheduler.ASHA_PROMOTION, Scheduler.HYPERBAND)


class Launcher(StrEnum):
    """What runs the trials of a search."""

    RAY = "ray"
    SLURM = "slurm"
    """Each trial is a job of Slurm."""
    LOCAL = "local"
    """Each trial is such a job, as a process of this machine."""


class Goal(StrEnum):
    """Whether the largest or the least value of a metric is best."""

    MAX = "max"
    MIN = "min"


class DomainKind(StrEnum):
    """Kinds of domains: the first four list their points, the others draw them."""

    GRID = "grid"
    GEOMETRIC = "geometric"
    JOINT = "joint"
    CHOICE = "choice"
    UNIFORM = "uniform"
    LOGUNIFORM = "loguniform"
    QUNIFORM = "quniform"
    RANDINT = "randint"

    @property
    def listed(self) -> bool:
        """Whether a domain of the kind is a list of points."""
        return self in (DomainKind.GRID, DomainKind.GEOMETRIC, DomainKind.JOINT, DomainKind.CHOICE)


def set_words(spec: object, place: str, **kinds: type[StrEnum]) -> None:
    """Turn words of a frozen spec into members, in place; None stays None. ``place`` leads the names in an error.

    Raises:
        ConfigError: for an unknown word.
    """
    for name, kind in kinds.items():
        word = getattr(spec, name)
        if word is not None:
            object.__setattr__(spec, name, choose(kind, word, f"{place}{name}"))
