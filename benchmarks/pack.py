"""Several seeds trained together as a pack, against one of them, and against all of them one after the other.

    python benchmarks/pack.py --preset 4SoftHebbCnnCIFAR --device cuda

Whole runs in one process, without files: the pack, then each of its seeds by itself, in turns. Two ratios: the time of
the pack to that of one run (below the number of seeds where packing pays), and to that of all runs one after the other
(below 1 there). Phase by phase only epochs are compared; the whole run includes features, evaluations and the
start. Expect no gain on a CPU, which one network keeps busy already.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, overrides, plan
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.nn import model
from hebb.storage import folders
from hebb.storage.folders import Row
from hebb.training import train


def main(argv: list[str]) -> int:
    """Measure pack and single runs."""
    options = parse(argv)
    if options.seeds < 2:
        raise ConfigError("--seeds", "a pack has two or more")
    threads = harness.set_threads(options.threads)
    run = config(options, threads)
    rows = measure(run, options)
    columns = {"what": "what", "pack s": "pack_s:.2f", "one s": "one_s:.2f", "one after the other s": "sequence_s:.2f"}
    columns |= {"ratio to one": "ratio:.2f", "ratio to all": "ratio_sequence:.2f"}
    harness.show(f"{options.seeds} seeds of {run.network.name} on {run.device}", rows, columns)
    settings = {name: str(value) for name, value in vars(options).items() if name != "out"}
    harness.write(options.out, "pack", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="2SoftHebbCnnCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-sup", default="CIFAR10_50", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-unsup", default="CIFAR10_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--set", dest="changes", nargs="+", default=[], metavar="PATH=VALUE", help="change the run")
    parser.add_argument("--seeds", type=count, default=4, metavar="N", help="members (default: 4)")
    parser.add_argument("--repeats", type=count, default=1, metavar="N", help="turns (default: 1)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    harness.add_flags(parser)
    return parser.parse(argv)


def config(options: argparse.Namespace, threads: int) -> RunConfig:
    """Return the run of the first seed by itself."""
    builtin.load()
    presets = catalog.load()
    run = RunConfig(
        network=presets.network(options.preset),
        mode="successive",
        dataset_sup=presets.dataset(options.dataset_sup, "--dataset-sup"),
        dataset_unsup=presets.dataset(options.dataset_unsup, "--dataset-unsup"),
        threads=threads,
        device=options.device,
    )
    return overrides.apply(run, overrides.parse(options.changes), presets)


def measure(run: RunConfig, options: argparse.Namespace) -> list[harness.Row]:
    """Return the times of every phase, and of the whole."""
    seeds = tuple(range(options.seeds))
    place = train.Place(datasets=folders.Home.find(None).datasets)
    rows: dict[str, list[list[Row]]] = {}

    def go(name: str, members: tuple[int, ...]) -> None:
        together = members if len(members) > 1 else ()
        configs = [replace(run, seed=seed, pack=together) for seed in members]
        results = train.run_pack(configs, places=[place] * len(members))
        rows.setdefault(name, []).append(results[0].rows)

    functions = {"pack": lambda: go("pack", seeds)}
    functions |= {f"seed {seed}": lambda seed=seed: go(f"seed {seed}", (seed,)) for seed in seeds}  # type: ignore[misc]
    wall = harness.in_turns(functions, model.device_of(run), options.repeats, warm_up=0)
    table = []
    for index, phase in enumerate(plan.phases(run)):
        data = run.datasets[phase.data]
        spent = {name: [_seconds(of_one, index, data.train_samples()) for of_one in rows[name]] for name in rows}
        table.append(_row(f"epochs of {phase.describe()}", spent))
    return [*table, _row("whole run", wall)]


def _seconds(rows: list[Row], index: int, images: int) -> float:
    """Return the seconds of the epochs of a phase."""
    return sum(images / float(row["images_per_second"]) for row in rows if row["phase"] == index)


def _row(what: str, seconds: dict[str, list[float]]) -> harness.Row:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    together = medians.pop("pack")
    one, sequence = statistics.median(medians.values()), sum(medians.values())
    return {
        "what": what,
        "pack_s": together,
        "one_s": one,
        "sequence_s": sequence,
        "ratio": together / one,
        "ratio_sequence": together / sequence,
        "all_s": seconds,
    }


if __name__ == "__main__":
    run_command(main)
