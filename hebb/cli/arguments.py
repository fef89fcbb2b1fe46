"""The flags that the commands share, and how they become a ``RunConfig``. Never imports torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hebb import builtin
from hebb.config import catalog, overrides, plan, plugins, serialise
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.fields import read_number
from hebb.config.specs import MODES_DEFAULT, PROBES, RunConfig
from hebb.core.errors import ConfigError
from hebb.storage import folders

DEFAULT_PRESET = "2SoftHebbCnnDigits"
DEFAULT_DATASET = "Digits"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ``ConfigError`` with the nearest flag."""

    def __init__(self, description: str, **options: object) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ConfigError("command line", message, hint=f"{self.prog} --help lists the flags")

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parse; an unknown flag names the nearest legal one."""
        found, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            raise ConfigError(
                "command line",
                f"unknown argument '{unknown[0]}'",
                given=unknown[0].partition("=")[0],
                choices=flags,
            )
        return found


def boolean(text: str) -> bool:
    """Read true or false."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"true or false is wanted, not '{text}'")
    return words[text.lower()]


def gigabytes(text: str) -> int:
    """Read a size in GB (10^9 bytes) as bytes."""
    found = read_number(text, float)
    if found is None or found < 0:
        raise argparse.ArgumentTypeError(f"a number of gigabytes is wanted, not '{text}'")
    return int(found * 10**9)


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is wanted, not '{text}'")
    return int(text)


def add_network_flags(parser: Parser) -> None:
    """Flags that say what is trained on what."""
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="network: a name of preset.json, or the network written out, as in "
        f"'Soft-c96-k5-p2:bn:triangle_0.7:max_4_2_1 BP:flatten' (default: {DEFAULT_PRESET})",
    )
    parser.add_argument(
        "--dataset-sup", metavar="NAME", help=f"dataset of the supervised phases (default: {DEFAULT_DATASET})"
    )
    parser.add_argument(
        "--dataset-unsup", metavar="NAME", help="dataset of the unsupervised phases (default: that of --dataset-sup)"
    )
    parser.add_argument("--dataset", metavar="NAME", help="both datasets at once")
    parser.add_argument(
        "--training-mode",
        "--train",
        dest="training_mode",
        metavar="MODE",
        help=f"{' | '.join(plan.MODES)} (default: the preset's own, else {MODES_DEFAULT})",
    )
    parser.add_argument(
        "--training-blocks",
        type=int,
        nargs="+",
        metavar="N",
        help="blocks that learn; the others stay random (default: all)",
    )
    parser.add_argument(
        "--bp-blockwise",
        action="store_true",
        help="train each BP block alone, as the published code does, not end to end",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="named groups of such changes, made before --set: optimiser, epochs, stopping rules (--list protocols)",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="change single values: b0.layer.lr=0.05 'b*.layer.t_invert=0.7' dataset_sup.epochs=2",
    )
    _add_probe_flags(parser)
    parser.add_argument(
        "--plugin",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH|MODULE",
        help="Python files or modules that register rules, activations, datasets or modes of your own",
    )
    parser.add_argument(
        "--preset-file", type=Path, metavar="FILE", help="a preset.json of your own, laid over the shipped one"
    )


def add_pack_flag(parser: Parser, what: str) -> None:
    """The flag that trains several seeds by the same operations."""
    parser.add_argument(
        "--pack-seeds",
        type=count,
        default=1,
        metavar="N",
        help=f"{what} for a GPU, which one network leaves idle: on a CPU seeds one by one are faster, and the last "
        "bits of a number depend on its pack (default: 1, none)",
    )


def add_run_flags(parser: Parser) -> None:
    """Flags that say where a run takes place."""
    parser.add_argument(
        "--gpu-id",
        "--gpu_id",
        dest="gpu_id",
        metavar="N|cpu",
        help="GPU to use, or cpu (default: GPU 0 where there is one)",
    )
    parser.add_argument("--device", metavar="cpu|cuda|cuda:N", help="the same in torch's words")
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: one per core; it decides the last bits of a sum)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the Hebbian steps (CUDA graphs on a GPU); it changes last bits; left out where nothing compiles",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="parent folder of datasets, models and searches (default: $HEBB_HOME, else ./hebb_data)",
    )
    parser.add_argument(
        "--resume",
        nargs="+",
        metavar="WHAT",
        help="start from stored weights: all | without_classifier, or a model name or run folder, or both "
        "(default: None; the model is that of --model-name)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is stored under this name")
    parser.add_argument(
        "--no-feature-cache",
        action="store_true",
        help="compute the output of frozen blocks anew at every epoch; the numbers stay the same",
    )
    parser.add_argument(
        "--cache-limit",
        type=gigabytes,
        default=folders.CACHE_LIMIT,
        metavar="GB",
        help="how much of it may lie in files when it does not fit into memory (default: 20)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print network, phases and updates, then stop")
    parser.add_argument(
        "--list",
        dest="listing",
        metavar="WHAT",
        help="presets | datasets | methods | protocols | configs: describe them, then stop",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="at each report, a table of the first neurons")


@dataclass(frozen=True)
class Device:
    """A device as asked for: kind (``auto``, ``cpu``, ``cuda``) and index."""

    kind: str
    index: int = 0


def _add_probe_flags(parser: Parser) -> None:
    """Flags of the readouts at the end of a run."""
    parser.add_argument(
        "--probe",
        nargs="+",
        default=[],
        metavar="KIND",
        help=f"read out the blocks at the end: {' | '.join(PROBES)} (linear probe, nearest neighbours, neuron labels, "
        "linear probe of 20 epochs, dimensionality and disentanglement)",
    )
    parser.add_argument(
        "--probe-blocks", type=int, nargs="+", metavar="N", help="blocks to read out (default: all but the classifier)"
    )


def feature_cache(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of ``train.Place`` for the features of frozen blocks."""
    return {"keep_features": not options.no_feature_cache, "cache_limit": options.cache_limit}


def cache_limit(options: argparse.Namespace) -> int | None:
    """Return the bytes of features that may lie in files; None with ``--no-feature-cache``."""
    return None if options.no_feature_cache else options.cache_limit


def device(options: argparse.Namespace) -> Device:
    """Read ``--gpu-id`` and ``--device``."""
    found = []
    if options.gpu_id is not None:
        text = options.gpu_id
        if text != "cpu" and not re.fullmatch("[0-9]+", text):
            raise ConfigError("--gpu-id", f"an index or cpu is wanted, not '{text}'", given=text, choices=("0", "cpu"))
        found.append(Device("cpu") if text == "cpu" else Device("cuda", int(text)))
    if options.device is not None:
        kind, colon, index = options.device.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not re.fullmatch("[0-9]+", index)) or (kind == "cpu" and colon):
            raise ConfigError(
                "--device", f"unknown device '{options.device}'", given=kind, choices=("cpu", "cuda", "cuda:N")
            )
        found.append(Device(kind, int(index or 0)))
    if len(found) == 2 and found[0] != found[1]:
        raise ConfigError("--device", f"'{options.device}' contradicts --gpu-id {options.gpu_id}")
    return found[0] if found else Device("auto")


def run_config(
    options: argparse.Namespace, known: Catalog, *, seed: int, validation: tuple[float, float], threads: int
) -> RunConfig:
    """Build the config that the flags describe.

    Args:
        options: parsed flags.
        known: presets and datasets.
        seed: the run's seed.
        validation: share of the training images held out from the supervised and the unsupervised data.
        threads: CPU threads where ``--threads`` is not given.
    """
    if options.dataset is not None and (options.dataset_sup, options.dataset_unsup) != (None, None):
        raise ConfigError("--dataset", "sets both datasets: leave out --dataset-sup and --dataset-unsup")
    both = options.dataset
    sup_flag, unsup_flag = ("--dataset", "--dataset") if both is not None else ("--dataset-sup", "--dataset-unsup")
    sup_name = _first(both, options.dataset_sup, DEFAULT_DATASET)
    unsup_name = _first(both, options.dataset_unsup, sup_name)
    network = known.network(_first(options.preset, DEFAULT_PRESET))
    mode = _first(options.training_mode, network.preferred_mode, MODES_DEFAULT)
    if mode not in plan.MODES:
        raise ConfigError("--training-mode", f"unknown mode '{mode}'", given=mode, choices=plan.MODES)
    blocks = options.training_blocks
    config = RunConfig(
        network=network,
        mode=mode,
        dataset_sup=_held_out(known.dataset(sup_name, sup_flag), validation[0]),
        dataset_unsup=_held_out(known.dataset(unsup_name, unsup_flag), validation[1]),
        training_blocks=None if blocks is None else tuple(blocks),
        bp_blockwise=options.bp_blockwise,
        probes=tuple(dict.fromkeys(options.probe)),
        probe_blocks=None if options.probe_blocks is None else tuple(options.probe_blocks),
        seed=seed,
        threads=threads if options.threads is None else options.threads,
        device=device(options).kind,
        compile=options.compile,
    )
    config = overrides.apply(config, known.protocol(options.protocol), known, where="--protocol,")
    config = overrides.apply(config, overrides.parse(options.changes), known)
    return replace(config, plugins=plugins.of_run(config))


def _held_out(spec: DataSpec, share: float) -> DataSpec:
    return replace(spec, validation=share) if share else spec


def _first(*given: str | None) -> str:
    """Return the first that was given; an empty string was given."""
    return next(word for word in given if word is not None)


def plain_name(config: RunConfig) -> str:
    """Name a run after its preset, or a network written inline after its configuration."""
    name = config.network.name
    return name if re.fullmatch(r"[\w+.,=@-]+", name) else f"inline-{serialise.digest(config)}"


def resumed(
    config: RunConfig, words: Iterable[str] | None, home: folders.Home, model_name: str
) -> tuple[RunConfig, Path | None]:
    """Read ``--resume``: what is loaded, and from which checkpoint."""
    given = list(words or [])
    if not given or given == ["None"]:
        return config, None
    kinds = [word for word in given if word in ("all", "without_classifier")]
    sources = [word for word in given if word not in kinds]
    if len(kinds) > 1 or len(sources) > 1:
        raise ConfigError(
            "--resume",
            f"'{' '.join(given)}' is more than one thing to load",
            hint="--resume all | without_classifier, then a model name or run folder if it is another one's",
        )
    path = folders.checkpoint_of(sources[0] if sources else model_name, home)
    return replace(config, resume=kinds[0] if kinds else config.resume or "all"), path


def load_catalog(options: argparse.Namespace) -> Catalog:
    """Register what can be named, plugins too, then read the presets, and those of ``--preset-file``."""
    builtin.load()
    plugins.load(options.plugin)
    return catalog.load(options.preset_file)
