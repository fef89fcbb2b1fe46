"""Frozen, checked descriptions of a run: layer, pool, activation, block, network, run.

Every spec is checked when it is made and never changes afterwards. ``hebb.config.grammar`` reads and writes the text
form, ``hebb.config.serialise`` the JSON form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.fields import ARCHS, LayerFields, Value, plain_values
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES, HebbianRule, LocalRule, Rule, SettlingRule
from hebb.config.settle import SettleSpec, make_settle
from hebb.config.vocabulary import (
    Arch,
    DeviceKind,
    NumberType,
    Operation,
    PoolKind,
    ProbeKind,
    Resume,
    Role,
    TensorFloat,
    set_words,
)
from hebb.core.choices import choose
from hebb.core.errors import ConfigError

MODES_DEFAULT = "successive"
FEATURE_BYTES = {NumberType.FLOAT32: 4, NumberType.BFLOAT16: 2, NumberType.FLOAT16: 2}
"""Number types in which features can be kept, with their size."""
VALIDATION_SHARE = 0.2
"""Share of the training images that ``--validation`` holds out."""


@dataclass(frozen=True, kw_only=True)
class LayerSpec(LayerFields):
    """A layer: method, architecture and the value of every field the method reads.

    ``layer.lr`` is short for the value called ``lr``. If the preset leaves out ``out_channels``, it is 0,
    and the width is the number of classes.
    """

    method: str
    arch: Arch
    values: tuple[tuple[str, Value], ...]

    @property
    def rule(self) -> Rule:
        """The registered rule of this layer."""
        return RULES.get(self.method, f"layer '{self.method}'")

    def __post_init__(self) -> None:
        self.__dict__.update(self.values)  # as attributes: a Hebbian step reads two dozen values

    def coefficient(self, term: str) -> float:
        """Return the factor of a term of the layer's loss: the value of the field called ``term``, else 1."""
        return float(dict(self.values).get(term, 1.0))

    def to_json(self) -> dict[str, Value]:
        """Return the layer as a flat dictionary."""
        return {"method": self.method, "arch": str(self.arch), **plain_values(self.values)}


def make_layer(
    method: str,
    arch: str,
    words: Mapping[str, object],
    defaults: Mapping[str, Mapping[str, Value]],
    where: str,
) -> LayerSpec:
    """Build a layer from the values that are given and the defaults of the others.

    Args:
        method: method name, in any case.
        arch: MLP or CNN.
        words: values by full field name, as text or numbers.
        defaults: per architecture, the layer defaults of ``preset.json``.
        where: place that errors name.

    Raises:
        ConfigError: for an unknown method or field, a bad value, or a method that lacks the architecture.
    """
    if arch not in ARCHS:
        raise ConfigError(where, f"unknown arch '{arch}'", given=str(arch), choices=ARCHS)
    rule = RULES.get(method, where)
    if arch not in rule.archs:
        raise ConfigError(
            where,
            f"{rule.name} has no {arch} form",
            hint="leave out k for a fully connected layer" if arch == Arch.CNN else "give a kernel size k",
        )
    legal = rule.fields_on(arch)
    for name in words:
        if name not in legal:
            raise ConfigError(where, f"{rule.name} on {arch} has no '{name}'", given=name, choices=legal)
    shipped = {**defaults.get(arch, {}), **rule.defaults.get(arch, {})}
    values: dict[str, Value] = {}
    for name, entry in legal.items():
        if name in words:
            zero_width = name == "out_channels" and words[name] == 0
            values[name] = 0 if zero_width else entry.read(words[name], where)
        elif name == "out_channels":
            values[name] = 0
        elif name in shipped:
            values[name] = entry.read(shipped[name], f"layer defaults of {arch}")
        elif entry.default is not None:
            values[name] = entry.default
        else:
            token = f" (token {entry.token})" if entry.token else ""
            raise ConfigError(where, f"{rule.name} on {arch} needs '{name}'{token}")
    if rule.check is not None:
        rule.check(values, where)
    return LayerSpec(method=rule.name, arch=Arch(arch), values=tuple(values.items()))


@dataclass(frozen=True, kw_only=True)
class ActivationSpec:
    """An activation and its parameter: 1 if the activation takes none, None for the activation's own default."""

    name: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        entry = ACTIVATIONS.get(self.name, f"activation '{self.name}'")
        object.__setattr__(self, "name", entry.name)
        if self.parameter is None:
            object.__setattr__(self, "parameter", entry.default)
        assert self.parameter is not None
        where = f"activation '{self.name}_{self.parameter:g}'"
        if entry.parameter is None and self.parameter != 1:
            raise ConfigError(where, f"{self.name} takes no parameter")
        if not 0 < self.parameter < float("inf"):
            raise ConfigError(where, f"its parameter must be a number > 0, got {self.parameter}")


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """A square pool: ``max`` or ``avg`` (which counts the padding), sizes in pixels."""

    kind: PoolKind
    kernel_size: int
    stride: int
    padding: int

    def __post_init__(self) -> None:
        where = f"pool '{self.kind}_{self.kernel_size}_{self.stride}_{self.padding}'"
        object.__setattr__(self, "kind", choose(PoolKind, self.kind, where))
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            if getattr(self, name) < least:
                raise ConfigError(where, f"{name} must be a whole number >= {least}, got {getattr(self, name)}")
        if self.padding > self.kernel_size // 2:
            most = self.kernel_size // 2
            raise ConfigError(where, f"padding must be at most half the kernel ({most}), got {self.padding}")


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """A block: a layer and the steps before and after it.

    Order of the steps: att_dropout, operations, dropout, layer, affine norm, activation, batch norm, pool, residual.

    Attributes:
        operations: operations before the layer, in the order of ``Operation``.
        dropout: probability that an input element of the layer becomes 0; the other elements are scaled up.
        att_dropout: largest probability that an element becomes 0; pixels of low contrast drop out more often.
        affine_norm: whether a batch norm follows the layer whose scale and shift learn with the weights.
        batch_norm: whether a batch norm follows the activation.
        residual: whether the block's input is added to its output: averaged over pixels to the size of the output, with
            zeros in the further channels. A loss of the block's own does not see it.
        resume: stored block to start from, ``MODEL/bN``; None starts from the initialisation.
    """

    layer: LayerSpec
    operations: tuple[Operation, ...] = ()
    activation: ActivationSpec | None = None
    pool: PoolSpec | None = None
    dropout: float = 0.0
    att_dropout: float = 0.0
    affine_norm: bool = False
    batch_norm: bool = False
    residual: bool = False
    resume: str | None = None

    def __post_init__(self) -> None:
        if self.affine_norm and self.hebbian:
            raise ConfigError(
                "affine_norm",
                f"has a scale and a shift, which {self.layer.method} does not train",
                hint="use bn or bn_after, which have none",
            )
        if self.resume is not None and not re.fullmatch(r"[\w+.,=@-]+/b[0-9]+", self.resume):
            raise ConfigError("resume", f"'{self.resume}' does not name a stored block", hint="as in MODEL/b0")
        for word in self.operations:
            choose(Operation, word, "operation")
        ordered = tuple(operation for operation in Operation if operation in self.operations)
        if len(ordered) != len(self.operations):
            raise ConfigError("operation", f"given twice in '{' '.join(self.operations)}'")
        object.__setattr__(self, "operations", ordered)
        for name in ("dropout", "att_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, f"must be a probability < 1, got {getattr(self, name)}")

    @property
    def hebbian(self) -> bool:
        """Whether the layer learns by a Hebbian rule."""
        return isinstance(self.layer.rule, HebbianRule)

    @property
    def local(self) -> bool:
        """Whether the layer has a loss of its own, which an optimiser descends."""
        return isinstance(self.layer.rule, LocalRule)

    @property
    def learns_locally(self) -> bool:
        """Whether the layer learns by itself, from a Hebbian rule or a loss of its own."""
        return self.hebbian or self.local

    @property
    def settles(self) -> bool:
        """Whether the layer is part of a settling network, whose layers all learn together."""
        return isinstance(self.layer.rule, SettlingRule)

    @property
    def supervised(self) -> bool:
        """Whether the layer needs labels to learn."""
        return not self.learns_locally or self.layer.rule.labels

    @property
    def normalised(self) -> bool:
        """Whether the block keeps batch statistics."""
        return self.batch_norm or self.affine_norm or any(name.startswith("batchnorm") for name in self.operations)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A network: its name, its blocks in order and its preferred training mode.

    In a settling network all blocks have the same method, and ``settle`` holds the settings of the network.
    """

    name: str
    blocks: tuple[BlockSpec, ...]
    mode: str | None = None
    settle: SettleSpec | None = None

    def __post_init__(self) -> None:
        where = f"network '{self.name}'"
        if not self.blocks:
            raise ConfigError(where, "has no block")
        if self.settles:
            _check_settling(self.blocks)
            settings = {} if self.settle is None else self.settle.to_json()
            object.__setattr__(self, "settle", make_settle(self.settling_rule, settings, f"{where}, settle"))
        elif self.settle is not None:
            raise ConfigError(
                f"{where}, settle",
                "needs a block with a settling method",
                hint="leave it out, or use one of "
                + " ".join(rule.name for rule in RULES.entries() if isinstance(rule, SettlingRule)),
            )

    @property
    def settles(self) -> bool:
        """Whether this is a settling network, whose blocks all learn together."""
        return any(block.settles for block in self.blocks)

    @property
    def settling_rule(self) -> SettlingRule:
        """The method of a settling network, the same in all blocks."""
        rule = self.blocks[0].layer.rule
        if not isinstance(rule, SettlingRule):
            raise TypeError(f"{self.name} does not settle")
        return rule

    @property
    def preferred_mode(self) -> str | None:
        """The network's own mode, else that of the first rule that has one; None: neither has."""
        of_rules = (block.layer.rule.mode for block in self.blocks)
        return self.mode or next((mode for mode in of_rules if mode is not None), None)


def _check_settling(blocks: Sequence[BlockSpec]) -> None:
    """Raise if the blocks of a settling network differ in method or have parts around the layer."""
    method = next(block.layer.method for block in blocks if block.settles)
    for i, block in enumerate(blocks):
        where = f"b{i}"
        if block.layer.method != method:
            raise ConfigError(
                where,
                f"must be {method}, like every block of this settling network, got {block.layer.method}",
                hint=f"write {method} in every block",
            )
        parts = {
            "an operation": [name for name in block.operations if i or name != "flatten"],
            "an activation": block.activation,
            "a pool": block.pool,
            "dropout": block.dropout or block.att_dropout,
            "a batch norm": block.batch_norm or block.affine_norm,
            "a residual": block.residual,
        }
        for part, present in parts.items():
            if present:
                raise ConfigError(where, f"{part} cannot be part of a settling network", hint="only flatten in b0 can")
        if i == 0 and block.layer.lr_feedback:
            raise ConfigError(where, "cannot have feedback weights: nothing settles below it", hint="leave out lf")


@dataclass(frozen=True, kw_only=True)
class PluginSpec:
    """A plugin that a run needs: its module or the absolute path of its file, and its digest.

    Only the digest decides the bits. If the file has moved, ``--plugin`` gives its new place.
    """

    name: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.name or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ConfigError("plugins", f"must be a name and a SHA-256 digest, got '{self.name}' '{self.sha256}'")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the bits of a run. It holds no path except those of its plugins.

    Attributes:
        network: the blocks.
        mode: training mode, a name of ``hebb.config.plan.MODES``.
        dataset_sup: data of the supervised phases and of the evaluation; its images set the shapes.
        dataset_unsup: data of the unsupervised phases.
        training_blocks: blocks that learn; None means all. The others stay at their initialisation.
        bp_blockwise: train one BP block at a time, with the others frozen, instead of all end to end.
        classifier: the back-prop optimiser.
        stop: when Hebbian phases end early.
        seed: varies initialisation, order, dropout and augmentation.
        pack: distinct seeds that train together, this run's among them; they decide the last bits. Empty: no pack.
        split_seed: varies only the subset and the validation split.
        threads: CPU threads; sums are split among them, so they decide the last bits.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``; ``auto`` is resolved when the run starts.
        feature_dtype: number type in which features of frozen blocks are kept.
        compute_dtype: number type of the products of all layers but a classifier that back-prop trains, and of their
            gradients; weights, statistics and updates, and heads and projectors of local losses, are float32.
        compile: whether Hebbian steps are compiled (``hebb.nn.compiled``), which changes the last bits.
        tf32: which products a GPU may compute in TF32: ``none``, ``convolutions`` or ``all``; a CPU knows none.
        deterministic: whether a GPU uses deterministic kernels, where torch has them; a CPU always does.
        cuda_graphs: whether updates are recorded and replayed (``hebb.training.graphs``), as far as they can be.
        probes: readouts at the end of the run.
        probe_blocks: blocks that the probes read; None means all but the classifier.
        probe_samples: largest number of training images on which a probe is fitted.
        curve_points: measurements inside the epochs of a phase (``hebb.training.curves``), which change no bit; 0 makes
            none. None makes about 50, and at most one in ten updates.
        resume: which stored weights the run starts from, ``all`` or ``without_classifier``; None: new weights.
        resume_sha256: digest of the checkpoint that the run starts from.
        plugins: plugins that the run needs.
    """

    network: NetworkSpec
    mode: str
    dataset_sup: DataSpec
    dataset_unsup: DataSpec
    training_blocks: tuple[int, ...] | None = None
    bp_blockwise: bool = False
    classifier: ClassifierSpec = field(default_factory=ClassifierSpec)
    stop: StopSpec = field(default_factory=StopSpec)
    seed: int = 0
    pack: tuple[int, ...] = ()
    split_seed: int = 0
    threads: int = 1
    device: DeviceKind = DeviceKind.AUTO
    feature_dtype: NumberType = NumberType.FLOAT32
    compute_dtype: NumberType = NumberType.FLOAT32
    compile: bool = False
    tf32: TensorFloat = TensorFloat.CONVOLUTIONS
    deterministic: bool = False
    cuda_graphs: bool = False
    probes: tuple[ProbeKind, ...] = ()
    probe_blocks: tuple[int, ...] | None = None
    probe_samples: int = 10000
    curve_points: int | None = None
    resume: Resume | None = None
    resume_sha256: str | None = None
    plugins: tuple[PluginSpec, ...] = ()

    @property
    def datasets(self) -> dict[Role, DataSpec]:
        """The data of each role."""
        return {Role.SUP: self.dataset_sup, Role.UNSUP: self.dataset_unsup}

    def __post_init__(self) -> None:
        last = len(self.network.blocks) - 1
        for block in self.training_blocks or ():
            if not 0 <= block <= last:
                raise ConfigError(
                    "--training-blocks",
                    f"block {block} does not exist; {self.network.name} has blocks 0 to {last}",
                    choices=[str(i) for i in range(last + 1)],
                )
        if self.training_blocks is not None:
            if not self.training_blocks:
                raise ConfigError("--training-blocks", "names no block; leave it out to train all")
            object.__setattr__(self, "training_blocks", tuple(sorted(set(self.training_blocks))))
        for block in self.probe_blocks or ():
            if not 0 <= block <= last:
                raise ConfigError("probe_blocks", f"block {block} does not exist; there are 0 to {last}")
        set_words(
            self,
            "",
            device=DeviceKind,
            feature_dtype=NumberType,
            compute_dtype=NumberType,
            tf32=TensorFloat,
            resume=Resume,
        )
        object.__setattr__(self, "probes", tuple(choose(ProbeKind, probe, "probes") for probe in self.probes))
        if self.compute_dtype == NumberType.FLOAT16:
            raise ConfigError("compute_dtype", "must be float32 or bfloat16, got float16")
        if self.resume is None and self.resume_sha256 is not None:
            raise ConfigError("resume_sha256", "names a checkpoint, but 'resume' does not say what to load from it")
        limits = {"seed": (0, 2**63), "split_seed": (0, 2**63), "threads": (1, 4096), "probe_samples": (1, 2**31)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) < high:
                raise ConfigError(name, f"must be a whole number >= {low} and < {high}, got {getattr(self, name)}")
        if self.curve_points is not None and self.curve_points < 0:
            raise ConfigError("curve_points", f"must be a whole number >= 0, got {self.curve_points}")
        if self.pack and (len(set(self.pack)) < max(2, len(self.pack)) or self.seed not in self.pack):
            raise ConfigError("seed", f"{self.seed} is not one of the pack's: {' '.join(map(str, self.pack))}")
        name, blocks = self.network.name, self.network.blocks
        if self.compile and not any(block.hebbian for block in blocks):
            raise ConfigError("compile", f"needs Hebbian layers, but {name} has none", hint="leave it out")
        if self.compute_dtype != NumberType.FLOAT32:
            if self.network.settles:
                raise ConfigError("compute_dtype", f"must be float32, because {name} settles", hint="leave it out")
            if not last and not blocks[0].learns_locally:
                problem = f"must be float32, because {name} has only a classifier"
                raise ConfigError("compute_dtype", problem, hint="leave it out")

    @property
    def classes(self) -> int:
        """Number of labels of the supervised dataset."""
        return DATASETS.get(self.dataset_sup.dataset, "dataset_sup").classes

    @property
    def validated(self) -> bool:
        """Whether part of the labelled training images is held out."""
        return self.dataset_sup.validation > 0 and not self.dataset_sup.held
