"""The flags that commands share, and the ``RunConfig`` they describe. Never imports torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from hebb import builtin
from hebb.cli.parsing import Distinct, Parser, Section, count, gigabytes, natural
from hebb.config import compose, grammar, overrides, plan, plugins, serialise, vocabulary
from hebb.config.catalog import Catalog
from hebb.config.catalog import load as read_catalog
from hebb.config.data_spec import DataSpec
from hebb.config.specs import MODES_DEFAULT, NetworkSpec, RunConfig
from hebb.config.vocabulary import DeviceKind, ProbeKind, Resume, TensorFloat
from hebb.core.errors import ConfigError, nearest, said_as, within
from hebb.storage import folders

_NAMED = 4  # blocks that appear in the name of a run
DEFAULT_PRESET = "2SoftHebbCnnDigits"
DEFAULT_DATASET = "Digits"


FIRST = {
    "--preset": f"preset or blocks (default: {DEFAULT_PRESET})",
    "--dataset-sup": f"NAME, folder:PATH or npz:FILE (default: {DEFAULT_DATASET})",
    "--dataset-unsup": "data of Hebbian phases (default: the same)",
    "--set": "values: b0.layer.lr=0.05 dataset_sup.epochs=5",
    "--plugin": "load your own rules, data or modes",
    "--overwrite": "replace what is stored under this name",
    "--data-dir": "where all is stored (default: ./hebb_data)",
    "--dry-run": "print network, phases and updates, then stop",
    "--list": "presets | datasets | methods | protocols | configs",
}
"""Flags that every command which trains puts first, and what it says of them in a line."""


def add_network_flags(parser: Parser) -> None:
    """Add the flags that say which network is trained on which data, and how."""
    network = parser.section(Section.NETWORK)
    network.add_argument(
        "--preset",
        metavar="NAME",
        help="network: a name from preset.json, or blocks written out, such as "
        f"'Soft-c96-k5-p2:bn:triangle_0.7:max_4_2_1 BP:flatten' (default: {DEFAULT_PRESET})",
    )
    network.add_argument(
        "--dataset-sup",
        metavar="NAME",
        help="dataset of the supervised phases: a name of --list datasets, or your own as folder:PATH or npz:FILE "
        f"(default: {DEFAULT_DATASET})",
    )
    network.add_argument(
        "--dataset-unsup", metavar="NAME", help="dataset of the unsupervised phases (default: as --dataset-sup)"
    )
    network.add_argument("--dataset", metavar="NAME", help="sets --dataset-sup and --dataset-unsup at once")
    add_changes_flag(parser, "b0.layer.lr=0.05 'b*.layer.t_invert=0.7' dataset_sup.epochs=2")
    network.add_argument(
        "--protocol",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="apply a named group of changes before --set: optimiser, epochs, stopping rules (--list protocols)",
    )
    add_catalog_flags(parser)
    training = parser.section(Section.TRAINING)
    training.add_argument(
        "--training-mode",
        "--train",
        dest="training_mode",
        metavar="MODE",
        help=f"{' | '.join(plan.MODES)} (default: the preset's own, else {MODES_DEFAULT})",
    )
    training.add_argument(
        "--training-blocks",
        action=Distinct,
        type=int,
        nargs="+",
        metavar="N",
        help="blocks that learn; the others stay random (default: all)",
    )
    training.add_argument(
        "--bp-blockwise",
        action="store_true",
        help="train BP blocks one at a time, as the published code does, instead of end to end",
    )
    _add_readout_flags(parser)


def add_changes_flag(parser: Parser, example: str) -> None:
    """Add ``--set``."""
    add_changes(parser.section(Section.NETWORK), example)


def add_changes(group: argparse._ActionsContainer, example: str) -> None:
    """Add ``--set`` to a group of flags, or to a parser without groups."""
    group.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help=f"change single values: {example}",
    )


def add_plugin_flag(parser: Parser) -> None:
    """Add the flag that loads the user's own code."""
    parser.section(Section.NETWORK).add_argument(
        "--plugin",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH|MODULE",
        help="load Python files or modules that register rules, activations, datasets or modes",
    )


def add_catalog_flags(parser: Parser) -> None:
    """Add the flags that ``load_catalog`` reads."""
    add_plugin_flag(parser)
    parser.section(Section.NETWORK).add_argument(
        "--preset-file", type=Path, metavar="FILE", help="your own preset.json, merged over the shipped one"
    )


def add_seed_flag(parser: Parser) -> None:
    """Add the flag for the seed of a single run."""
    parser.section(Section.TRAINING).add_argument(
        "--seed", type=natural, default=0, metavar="N", help="seed of weights, order and dropout (default: 0)"
    )


def add_pack_flag(parser: Parser, purpose: str) -> None:
    """Add the flag that trains several seeds by the same operations; ``purpose`` starts its help text."""
    parser.section(Section.TRAINING).add_argument(
        "--pack-seeds",
        type=count,
        default=1,
        metavar="N",
        help=f"{purpose} useful on a GPU that one network does not fill. On a CPU, seeds one by one are faster. The "
        "last bits of a result depend on its pack (default: 1, no pack)",
    )


def add_run_flags(parser: Parser) -> None:
    """Add the flags that say where a run takes place and where it is stored."""
    add_device_flags(parser)
    machine = parser.section(Section.MACHINE)
    machine.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="number of CPU threads, which decides the last bits of sums (default: one per core; trials that run "
        "at the same time share the cores)",
    )
    machine.add_argument(
        "--compile",
        action="store_true",
        help="compile the Hebbian steps if possible (CUDA graphs on a GPU); changes the last bits",
    )
    machine.add_argument(
        "--tf32",
        default=TensorFloat.CONVOLUTIONS,
        metavar="WHAT",
        help="what a GPU may compute in TF32, with 10 bits of mantissa: none | convolutions | all; changes the last "
        "bits (default: convolutions, as torch)",
    )
    machine.add_argument(
        "--deterministic",
        action="store_true",
        help="use kernels of the GPU that give the same bits each time, where torch has them; some are slower. A CPU "
        "always gives the same bits",
    )
    machine.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="record the updates of a phase as CUDA graphs and replay them, where that can be done: the same "
        "operations in less time for small batches",
    )
    add_cache_flags(parser)
    add_home_flag(parser)
    add_start_flags(parser)
    instead = parser.section(Section.INSTEAD)
    instead.add_argument("--dry-run", action="store_true", help="print network, phases and updates, then stop")
    instead.add_argument(
        "--list",
        dest="listing",
        metavar="WHAT",
        help="describe presets | datasets | methods | protocols | configs, or those named like the words after it",
    )


def print_help(parser: Parser) -> int:
    """Print the help of a command that was called without a word, which would train its defaults for minutes."""
    parser.print_help()
    return 0


def asks_for_list(arguments: Iterable[str]) -> bool:
    """Tell whether ``--list`` is there, which hands a command over to ``hebb.cli.listing``."""
    return "--list" in {word.partition("=")[0] for word in arguments}


def add_device_flags(parser: Parser) -> None:
    """Add the flags that ``device`` reads."""
    machine = parser.section(Section.MACHINE)
    machine.add_argument(
        "--gpu-id",
        "--gpu_id",
        dest="gpu_id",
        metavar="N|cpu",
        help="GPU to use, or cpu (default: GPU 0 if there is one)",
    )
    machine.add_argument(
        "--device",
        metavar="NAME",
        help="the same as --gpu-id, as torch writes it: cpu | cuda | cuda:N; or mps (Apple), xpu | xpu:N (Intel)",
    )


def add_cache_flags(parser: Parser) -> None:
    """Add the flags that ``feature_cache`` reads."""
    machine = parser.section(Section.MACHINE)
    machine.add_argument(
        "--no-feature-cache",
        action="store_true",
        help="recompute the output of frozen blocks in every epoch; the results do not change",
    )
    machine.add_argument(
        "--cache-limit",
        type=gigabytes,
        default=folders.CACHE_LIMIT,
        metavar="GB",
        help="disk space for the output of frozen blocks if it does not fit into memory (default: 20)",
    )
    parser.rule_out("--cache-limit", "--no-feature-cache", "keeps no output")


def add_home_flag(parser: Parser) -> None:
    """Add the flag for the parent folder of everything that is stored."""
    parser.section(Section.STORAGE).add_argument(
        "--data-dir",
        metavar="DIR",
        help="parent folder of datasets, models and searches (default: $HEBB_HOME, else ./hebb_data)",
    )


def add_start_flags(parser: Parser) -> None:
    """Add the flags that say what a new run starts from, what it replaces and how much it prints."""
    storage = parser.section(Section.STORAGE)
    storage.add_argument(
        "--resume",
        nargs="+",
        metavar="WHAT",
        help="start from stored weights: all | without_classifier, a model name or run folder, or both "
        "(default: None, new weights; the model is that of --model-name unless one is given)",
    )
    storage.add_argument("--overwrite", action="store_true", help="replace what is stored under this name")
    add_verbose_flag(parser)


def add_verbose_flag(parser: Parser) -> None:
    """Add the flag that prints more."""
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print a table of the first neurons at each report"
    )


@dataclass(frozen=True)
class Device:
    """The device that the user asked for: kind (``auto``, ``cpu``, ``cuda``) and index."""

    kind: DeviceKind
    index: int = 0


class FeatureCache(TypedDict):
    """The settings of ``train.Place`` for the features of frozen blocks."""

    keep_features: bool
    cache_limit: int


def _add_readout_flags(parser: Parser) -> None:
    """Add the flags of the readouts at the end of a run."""
    readout = parser.section(Section.READOUT)
    readout.add_argument(
        "--probe",
        action=Distinct,
        nargs="+",
        default=[],
        metavar="KIND",
        help=f"read out the blocks at the end: {' | '.join(ProbeKind)} (linear probe, nearest neighbours, neuron "
        "labels, linear probe of 20 epochs, dimensionality and disentanglement)",
    )
    readout.add_argument(
        "--probe-blocks",
        action=Distinct,
        type=int,
        nargs="+",
        metavar="N",
        help="blocks to read out (default: all but the classifier)",
    )
    parser.require_beside("--probe-blocks", "--probe", "says how to read them out")
    readout.add_argument(
        "--curve-points",
        type=natural,
        metavar="N",
        help="measurements of radii, wins and weights inside the epochs of a phase, for learning curves; 0 makes "
        "none, and no result changes (default: about 50)",
    )


def feature_cache(options: argparse.Namespace) -> FeatureCache:
    """Return the settings of ``train.Place`` for the features of frozen blocks."""
    return {"keep_features": not options.no_feature_cache, "cache_limit": options.cache_limit}


def cache_limit(options: argparse.Namespace) -> int | None:
    """Return the bytes of features that may go into files; None with ``--no-feature-cache``."""
    return None if options.no_feature_cache else options.cache_limit


def device(options: argparse.Namespace) -> Device:
    """Return the device of ``--gpu-id`` or ``--device``; raise if they contradict each other."""
    by_id = None if options.gpu_id is None else _device_of_id(options.gpu_id)
    by_name = None if options.device is None else _device_of_name(options.device)
    if by_id is not None and by_name is not None and by_id != by_name:
        raise ConfigError("--device", f"'{options.device}' contradicts --gpu-id {options.gpu_id}")
    return by_id or by_name or Device(DeviceKind.AUTO)


def _device_of_id(text: str) -> Device:
    if text == "cpu":
        return Device(DeviceKind.CPU)
    if not re.fullmatch("[0-9]+", text):
        raise ConfigError("--gpu-id", f"must be an index or cpu, got '{text}'", given=text, choices=("0", "cpu"))
    return Device(DeviceKind.CUDA, int(text))


def _device_of_name(text: str) -> Device:
    return Device(*vocabulary.device(text, "--device"))


_FLAGS = {
    "probes": "--probe",
    "probe_blocks": "--probe-blocks",
    "threads": "--threads",
    "compile": "--compile",
    "tf32": "--tf32",
    "curve_points": "--curve-points",
}
"""Fields that ``RunConfig`` checks, and the flags that set them, for its error messages."""


def run_config(
    options: argparse.Namespace, catalog: Catalog, *, seed: int, validation: tuple[float, float], threads: int
) -> RunConfig:
    """Build the config that the flags describe.

    Args:
        options: parsed flags.
        catalog: presets and datasets.
        seed: the run's seed.
        validation: shares of the training images that are held out: of the supervised data, of the unsupervised data.
        threads: CPU threads if ``--threads`` is not given.
    """
    if options.dataset is not None and (options.dataset_sup, options.dataset_unsup) != (None, None):
        raise ConfigError("--dataset", "sets both datasets: leave out --dataset-sup and --dataset-unsup")
    both = options.dataset
    sup_flag, unsup_flag = ("--dataset", "--dataset") if both is not None else ("--dataset-sup", "--dataset-unsup")
    sup_name = _first(both, options.dataset_sup, DEFAULT_DATASET)
    unsup_name = _first(both, options.dataset_unsup, sup_name)
    with within("--preset"):
        network = catalog.network(_first(options.preset, DEFAULT_PRESET))
    blocks = options.training_blocks
    changes = overrides.parse(options.changes)
    for name, flag in (("seed", "--seed"), ("curve_points", "--curve-points"), ("tf32", "--tf32")):
        value = getattr(options, name, None)
        if name in changes and name in options.given and changes[name] != str(value):
            raise ConfigError(
                f"--set {name}", f"{changes[name]} contradicts {flag} {value}", hint="leave out one of them"
            )
    with said_as(_FLAGS):
        return compose.run_config(
            catalog,
            network,
            (
                _held_out(catalog.dataset(sup_name, sup_flag), validation[0]),
                _held_out(catalog.dataset(unsup_name, unsup_flag), validation[1]),
            ),
            mode=options.training_mode,
            protocols=options.protocol,
            changes=changes,
            names={"mode": "--training-mode", "protocol": "--protocol", "changes": "--set"},
            training_blocks=None if blocks is None else tuple(blocks),
            bp_blockwise=options.bp_blockwise,
            probes=tuple(options.probe),
            probe_blocks=None if options.probe_blocks is None else tuple(options.probe_blocks),
            seed=seed,
            threads=threads if options.threads is None else options.threads,
            device=device(options).kind,
            compile=options.compile,
            tf32=options.tf32,
            deterministic=options.deterministic,
            cuda_graphs=options.cuda_graphs,
            curve_points=options.curve_points,
        )


def _held_out(spec: DataSpec, share: float) -> DataSpec:
    return replace(spec, validation=share) if share else spec


def _first(*words: str | None) -> str:
    """Return the first word that is not None; it may be empty."""
    return next(word for word in words if word is not None)


def plain_name(config: RunConfig, folder: Callable[[str], Path]) -> str:
    """Name a run after its preset; one whose network was written out, after its first tokens and a digest of the run.

    A ``folder`` of that name from an earlier version, which was the digest alone, keeps it.
    """
    name = config.network.name
    if re.fullmatch(r"[\w+.,=@-]+", name):
        return name
    digest = serialise.digest(config)
    earlier = f"inline-{digest}"
    place = folder(earlier)
    stored = place.exists() or any(place.parent.glob(f"{place.name}-s[0-9]*"))  # the members of a pack
    return earlier if stored else f"{_blocks_in_short(config.network)}-{digest}"


def _blocks_in_short(network: NetworkSpec) -> str:
    """Return the method and the width of each block, ``Hard-c64+BP``; of many the first and the last ones."""
    defaults = read_catalog().defaults
    layers = [grammar.format_block(block, defaults).partition(":")[0].split("-") for block in network.blocks]
    words = ["-".join([method, *(token for token in tokens[:1] if token[0] == "c")]) for method, *tokens in layers]
    if len(words) > _NAMED:
        words[_NAMED // 2 : -_NAMED // 2] = [f"{len(words) - _NAMED}more"]
    return re.sub(r"[^\w+.,=@-]", "_", "+".join(words))


def resumed(
    config: RunConfig, words: Iterable[str] | None, home: folders.Home, model_name: str
) -> tuple[RunConfig, Path | None]:
    """Read ``--resume``: which weights are loaded, and from which checkpoint."""
    words = list(words or [])
    if not words or words == ["None"]:
        return config, None
    parts = [Resume(word) for word in words if word in tuple(Resume)]
    sources = [word for word in words if word not in tuple(Resume)]
    if len(parts) > 1 or len(sources) > 1:
        close = next(filter(None, (nearest(word, Resume) for word in sources)), None) if not parts else None
        advice = f" (did you mean '{close}'?)" if close else ""
        raise ConfigError(
            "--resume",
            f"must be all or without_classifier, and at most one model, got '{' '.join(words)}'{advice}",
            hint="the model is a name or a run folder; without one it is this run's own",
        )
    checkpoint = folders.checkpoint_of(sources[0] if sources else model_name, home)
    return replace(config, resume=parts[0] if parts else config.resume or Resume.ALL), checkpoint


def load_plugins(options: argparse.Namespace) -> None:
    """Register the package's own entries, then those of installed plugins and of ``--plugin``."""
    builtin.load()
    plugins.load(options.plugin)


def load_catalog(options: argparse.Namespace) -> Catalog:
    """Load the plugins, then the shipped presets with ``--preset-file`` merged over them."""
    load_plugins(options)
    file = getattr(options, "preset_file", None)
    with said_as({str(file): f"--preset-file {file}"}):
        return read_catalog(file)
