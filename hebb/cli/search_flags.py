"""The flags of ``ray_search.py``, and how they change a search config. Never imports torch."""

from __future__ import annotations

import argparse
from typing import Any

from hebb.cli import arguments
from hebb.config import search_space
from hebb.config.search_space import SearchSpec
from hebb.core.errors import ConfigError

KEPT = (
    "no_feature_cache",
    "cache_limit",
    "gpu_exp",
    "save",
    "save_model",
    "probe_every",
    "share_blocks",
    "max_failures",
    "preset_file",
)
"""Flags that a continued search keeps as they were, unless they are given anew."""
_CHANGES = ("purpose", "seeds", "space", "algorithm", "num_samples", "search_seed", "time_budget", "max_trials")
_SCHEDULER = ("scheduler", "grace", "reduction")
_BESIDE_RESTORE = (
    *("restore", "extend", "data_dir", "gpu_id", "device", "gpu_exp", "workers", "address", "dashboard"),
    *(
        "no_feature_cache",
        "cache_limit",
        "time_budget",
        "max_trials",
        "max_failures",
        "dry_run",
        "verbose",
        "save",
        "save_model",
    ),
)
_EXTENDING = ("seeds", "space", "num_samples")


def parser(description: str) -> arguments.Parser:
    """Return the parser of the command."""
    made = arguments.Parser(description, prog="ray_search.py")
    arguments.add_network_flags(made)
    _add_space_flags(made)
    _add_budget_flags(made)
    _add_resource_flags(made)
    made.add_argument("--folder-name", metavar="NAME", help="name of the search (default: preset and config)")
    made.add_argument("--model-name", metavar="NAME", help="model that --resume loads (default: the preset's name)")
    made.add_argument(
        "--restore",
        metavar="FOLDER",
        help="continue an interrupted search, by its folder or name: what is finished is not run again",
    )
    made.add_argument(
        "--extend",
        action="store_true",
        help="with --restore: add what --seeds, --num-samples and --space say to the search",
    )
    made.add_argument("--save-model", action="store_true", help="keep the trained model of every trial")
    made.add_argument(
        "--save",
        type=arguments.boolean,
        default=True,
        metavar="BOOL",
        help="keep the run folders of the trials (default: true)",
    )
    made.add_argument(
        "--estimate",
        action="store_true",
        help="time the real steps on this machine, print hours and disk, then stop",
    )
    arguments.add_run_flags(made)
    return made


def _add_space_flags(made: arguments.Parser) -> None:
    """Flags that say what is searched, how, and what is compared."""
    made.add_argument(
        "--config", default="seed", metavar="NAME|FILE", help="search config (default: seed, which is seeds 0 to 3)"
    )
    made.add_argument(
        "--seed", type=int, default=0, metavar="N", help="added to every seed of the search config (default: 0)"
    )
    made.add_argument("--seeds", type=int, nargs="+", metavar="N", help="replicates, in place of those of the config")
    arguments.add_pack_flag(made, "train N seeds of a configuration together in a trial, each as a run of its own;")
    made.add_argument(
        "--space",
        nargs="+",
        action="extend",
        metavar="PATH=DOMAIN",
        help="set domains of the space: 'b0.layer.lr={loguniform: [0.001, 0.1]}'",
    )
    made.add_argument(
        "--search-block", type=int, metavar="N", help="block that bX stands for in the search config (default: 0)"
    )
    made.add_argument("--purpose", metavar="WHAT", help="sweep (compares all) or search (selects a winner)")
    made.add_argument(
        "--algorithm", metavar="NAME", help=f"{' | '.join(search_space.ALGORITHMS)} (default: as the space asks)"
    )
    made.add_argument(
        "--num-samples", type=int, metavar="N", help="points drawn from the space (default: the config's, else 1)"
    )
    made.add_argument("--search-seed", type=int, metavar="N", help="varies the points that are drawn (default: 0)")
    made.add_argument("--scheduler", metavar="NAME", help=f"{' | '.join(search_space.SCHEDULERS)} (default: none)")
    made.add_argument("--grace", type=int, metavar="N", help="step before which a scheduler stops nothing (default: 1)")
    made.add_argument(
        "--reduction", type=int, metavar="N", help="of so many trials a scheduler lets one go on (default: 3)"
    )
    made.add_argument(
        "--metric",
        metavar="NAME",
        help=f"{' | '.join(search_space.METRICS)} (default: test_acc, or val_acc with validation)",
    )
    made.add_argument("--mode", metavar="WAY", help="max | min (default: as the metric asks)")
    made.add_argument(
        "--probe-every",
        type=int,
        default=0,
        metavar="N",
        help="let schedulers hear a quick linear probe after every N-th Hebbian phase (default: 0, none)",
    )
    made.add_argument(
        "--final-seeds",
        type=int,
        metavar="N",
        help="runs of a search's winner on all training images, with seeds the search did not use (default: 3)",
    )
    for kind in ("sup", "unsup"):
        made.add_argument(
            f"--validation-{kind}",
            type=arguments.boolean,
            nargs="?",
            const=True,
            metavar="BOOL",
            help=f"hold out 20 %% of the training images of --dataset-{kind} (default: false; a search config of "
            "purpose search holds them out; it selects on the test set only with --validation-sup false "
            "--metric test_acc)",
        )


def _add_budget_flags(made: arguments.Parser) -> None:
    """Flags that say when a search ends."""
    made.add_argument("--time-budget", metavar="TIME", help="stop after 90s, 30m, 1.5h, 2d; --restore goes on")
    made.add_argument("--max-trials", type=int, metavar="N", help="begin so many trials at most; --restore goes on")
    made.add_argument(
        "--max-failures",
        type=int,
        default=1,
        metavar="N",
        help="try a trial again so often when its worker dies or raises an error (default: 1)",
    )


def _add_resource_flags(made: arguments.Parser) -> None:
    """Flags that say where trials run."""
    made.add_argument("--gpu-exp", type=int, default=1, metavar="N", help="trials that share one GPU (default: 1)")
    made.add_argument(
        "--workers", type=int, metavar="N", help="trials at the same time (default: as many as the cores allow)"
    )
    made.add_argument(
        "--share-blocks",
        type=arguments.boolean,
        default=True,
        metavar="BOOL",
        help="train first blocks that several trials have in common once, with the same results (default: true)",
    )
    made.add_argument(
        "--address", metavar="HOST:PORT", help="run on this Ray cluster, or 'auto' (default: Ray on this machine)"
    )
    made.add_argument("--dashboard", action="store_true", help="show Ray's dashboard, on the loopback address alone")


def check(options: argparse.Namespace) -> None:
    """Refuse numbers and combinations that mean nothing."""
    if options.gpu_exp < 1:
        raise ConfigError("command line", "--gpu-exp starts at 1")
    for name, least in (("seed", 0), ("final_seeds", 0), ("probe_every", 0), ("max_failures", 0), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')}", f"starts at {least}, not {value}")
    if options.metric is not None and options.metric not in search_space.METRICS:
        raise ConfigError(
            "--metric", f"unknown metric '{options.metric}'", given=options.metric, choices=search_space.METRICS
        )
    if options.mode not in (None, "max", "min"):
        raise ConfigError("--mode", f"unknown mode '{options.mode}'", given=options.mode, choices=("max", "min"))
    if options.extend and options.restore is None:
        raise ConfigError("--extend", "goes with --restore FOLDER, which names the search")
    if options.address is not None and options.dashboard:
        raise ConfigError("--dashboard", "is for Ray on this machine; a cluster has its own")


def check_restore(options: argparse.Namespace) -> None:
    """Refuse flags that a continued search would ignore."""
    standard = vars(parser("").parse([]))
    allowed = (*_BESIDE_RESTORE, *(_EXTENDING if options.extend else ()))
    for name, value in vars(options).items():
        if name in allowed or value == standard[name]:
            continue
        flag = f"--{name.replace('_', '-')}"
        if name in _EXTENDING:
            raise ConfigError(
                flag, "changes the search that --restore continues", hint="--extend adds it to the search"
            )
        raise ConfigError("--restore", f"{flag} has no place beside it: it continues the search as it was started")


def spec(options: argparse.Namespace) -> SearchSpec:
    """Read the search config, with what the flags change in it."""
    data, path = search_space.read(options.config)
    found = search_space.parse(data, path.stem, str(path))
    given = [name for name in (*_CHANGES, *_SCHEDULER) if getattr(options, name) is not None]
    if not given:
        return found
    flags = " ".join(f"--{name.replace('_', '-')}" for name in given)
    return search_space.parse(_changed(data, options, given), found.name, flags)


def _changed(data: dict[str, Any], options: argparse.Namespace, given: list[str]) -> dict[str, Any]:
    """Return the data of a search config with the given flags in it."""
    made = {**data, "space": {**(data.get("space") or {})}, "search": {**(data.get("search") or {})}}
    old = data.get("scheduler")
    scheduler = {"name": old} if isinstance(old, str) else {**(old or {"name": "none"})}
    names = {"algorithm": "algorithm", "num_samples": "samples", "search_seed": "seed"}
    names |= {"time_budget": "time", "max_trials": "trials"}
    for name in given:
        value = getattr(options, name)
        if name in ("purpose", "seeds"):
            made[name] = value
        elif name == "space":
            made["space"] |= domains_of(value)
        elif name in names:
            made["search"][names[name]] = value
        elif name == "scheduler":
            scheduler = {"name": value}
        else:
            scheduler[name] = value
    return {**made, "scheduler": scheduler} if set(given) & set(_SCHEDULER) else made


def domains_of(texts: list[str]) -> dict[str, Any]:
    """Read ``PATH=DOMAIN`` texts, whose domains are YAML."""
    found = {}
    for text in texts:
        path, separator, domain = text.partition("=")
        if not separator or not path or not domain:
            hint = "for example 'b0.layer.lr={grid: [0.01, 0.1]}'"
            raise ConfigError("--space", f"'{text}' is not of the form path=domain", hint=hint)
        found[path] = search_space.read_yaml(domain, f"--space {path}")
    return found
