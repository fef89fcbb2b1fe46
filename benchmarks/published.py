"""A whole preset against the published SoftHebb code, on the same images and machine.

    python benchmarks/published.py --published DIR --preset 2SoftHebbCnnCIFAR

DIR is a checkout of the published code (NeuromorphicComputing/SoftHebb on GitHub); it needs the packages `einops` and
`tabulate`, and is run as it is, without saving, on the images of our run, with the same batches, epochs, threads and
evaluations. Our time is that of the whole command `multi_layer.py`, from its start to its end, with its checkpoints;
what stands behind `--` is given to it too. The published time is computed, and labelled so: the median of 200 steps
of each Hebbian phase times their number, plus one classifier epoch and one evaluation times theirs; loading the data
and building the network are not counted. `--whole` runs the published code from end to end instead, which takes
hours.

Accuracy: ours; that which the published code measures for our trained network, which must be the same; that of the
paper; and with `--steps all` or `--whole` that of the published code itself, after its first or its last classifier
epoch.

Expect 4 minutes beside our own for 2SoftHebbCnnCIFAR and 20 for 4SoftHebbCnnCIFAR, where `--classifier-images 5000`
measures less of the published classifier epoch, which is then scaled: 8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb import builtin
from hebb.cli import describe, train
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, plan
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Role
from hebb.core.errors import ConfigError, HebbError
from hebb.storage import folders

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("2SoftHebbCnnCIFAR", "3SoftHebbCnnCIFAR", "4SoftHebbCnnCIFAR")
PAPER = {"2SoftHebbCnnCIFAR": 71.10, "3SoftHebbCnnCIFAR": 77.70, "4SoftHebbCnnCIFAR": 80.31}
"""Mean test accuracy in percent, Journe et al. (2023) and the published notebook."""
ENOUGH = 200
"""Measured steps of a phase below which the result is that of a smoke test."""
VARIANTS = {Role.SUP: "CIFAR10_50", Role.UNSUP: "CIFAR10_1"}
"""The datasets of both."""
SETTABLE = ("epochs", "batch_size", "print_freq")


def main(argv: list[str]) -> int:
    """Time both, and show the parts, the ratio and the accuracies."""
    split = argv.index("--") if "--" in argv else len(argv)
    options = parse(argv[:split])
    threads = harness.set_threads(options.threads)
    ours_argv = ["--preset", options.preset, "--dataset-unsup", "CIFAR10_1", "--dataset-sup", "CIFAR10_50"]
    ours_argv += ["--seed", str(options.seed), "--threads", str(threads), "--device", "cpu", *argv[split + 1 :]]
    run = _checked(ours_argv, options.preset)
    with tempfile.TemporaryDirectory() as folder:
        ours = _ours(ours_argv, run, Path(folder), options)
        answer = _published(run, Path(folder), options)
    parts = [] if options.whole else _parts(answer, plan.phases(run))
    theirs = answer["seconds"] if options.whole else sum(part["seconds"] for part in parts)
    result = {
        "preset": options.preset,
        "ours_s": ours["seconds"],
        "published_s": theirs,
        "published_is": "measured whole" if options.whole else "computed",
        "ratio": theirs / ours["seconds"],
        "smoke_test": _smoke(options, parts, argv[split + 1 :]),
        "accuracy": {
            "ours": ours["accuracy"],
            "ours_first_epoch": ours["first_epoch"],
            "ours_measured_by_published": answer["our_network"],
            "paper": PAPER.get(options.preset),
            "published": answer["accuracy"] if options.whole else None,
            "published_first_epoch": None if options.whole else answer["accuracy"],
        },
        "parts": parts,
    }
    _show(result, threads)
    words = ("preset", "steps", "warm_up", "classifier_images", "whole", "flush", "seed")
    settings: dict[str, Any] = {name: getattr(options, name) for name in words}
    settings |= {"ours": ours_argv, "published_commit": _commit(options.published)}
    harness.write(options.out, "published", threads, settings, [result])
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags in front of ``--``."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--published", type=Path, required=True, metavar="DIR", help="checkout of the published code")
    parser.add_argument("--preset", default=PRESETS[0], choices=PRESETS, help="(default: %(default)s)")
    parser.add_argument(
        "--steps", type=_steps, default=ENOUGH, metavar="N|all", help="measured steps of a Hebbian phase (default: 200)"
    )
    parser.add_argument("--warm-up", type=count, default=20, metavar="N", help="steps before (default: 20)")
    parser.add_argument(
        "--classifier-images",
        type=count,
        metavar="N",
        help="measure the published classifier and evaluation on N images, in whole batches, and scale (default: all)",
    )
    parser.add_argument("--whole", action="store_true", help="run the published code from end to end (hours)")
    parser.add_argument(
        "--flush",
        action="store_true",
        help="let the published code make 0 of subnormal numbers, too; they are slow on Intel",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of both (default: 0)")
    parser.add_argument("--data-dir", metavar="DIR", help="as in multi_layer.py: where CIFAR-10 is found")
    harness.add_flags(parser)
    options = parser.parse(argv)
    options.published = options.published.absolute()
    missing = [name for name in ("multi_layer.py", "presets.json") if not (options.published / name).exists()]
    if missing:
        raise ConfigError("--published", f"{options.published} holds no {missing[0]}: it is no checkout of that code")
    if options.whole and (options.classifier_images or options.steps != ENOUGH):
        raise ConfigError("--whole", "measures every step; leave out --steps and --classifier-images")
    return options


def _steps(text: str) -> int | None:
    return None if text == "all" else count(text)


def _checked(argv: list[str], preset: str) -> RunConfig:
    """Return the run that our command makes; only its epochs, batches and cadence may differ from the preset's."""
    builtin.load()
    presets = catalog.load()
    run = train.resolve(train.parser().parse(argv), presets)
    shipped = {role: presets.dataset(variant, "") for role, variant in VARIANTS.items()}
    data = run.datasets
    same = all(
        replace(data[name], **{field: getattr(shipped[name], field) for field in SETTABLE}) == shipped[name]
        for name in data
    )
    if (
        not same
        or run.network != presets.network(preset)
        or run.mode != "successive"
        or run.training_blocks is not None
    ):
        legal = " ".join(f"dataset_{name}.{field}" for name in data for field in SETTABLE)
        raise ConfigError("--", "what is learnt is that of the preset in both", hint=f"--set takes {legal} here")
    return run


def _ours(argv: list[str], run: RunConfig, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run our command whole, and return its wall-clock time and its accuracies."""
    name = "benchmark"
    command = [sys.executable, str(ROOT / "multi_layer.py"), *argv, "--model-name", name, "--data-dir", str(folder)]
    environment = {**os.environ, "HEBB_DATASETS": str(folders.Home.find(options.data_dir).datasets)}
    began = time.perf_counter()
    _started(command, "multi_layer.py", env=environment, cwd=folder)
    seconds = time.perf_counter() - began
    rows = folders.read_rows(folders.Home(folder).network(name) / folders.METRICS)
    accuracies = [row["test_acc"] for row in rows if row["test_acc"] is not None]
    return {"seconds": seconds, "accuracy": accuracies[-1], "first_epoch": accuracies[0]}


def _published(run: RunConfig, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let the published code measure itself, in its folder and a process of its own."""
    request = {
        "preset": options.preset,
        "data": {
            role: {"name": VARIANTS[role], **{field: getattr(spec, field) for field in SETTABLE}}
            for role, spec in run.datasets.items()
        },
        "datasets": str(folders.Home.find(options.data_dir).datasets),
        "weights": str(folders.Home(folder).network("benchmark") / folders.CHECKPOINT),
        "threads": run.threads,
        **{
            name: getattr(options, name) for name in ("steps", "warm_up", "classifier_images", "whole", "flush", "seed")
        },
    }
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    worker = Path(__file__).resolve().parent / "published_code.py"
    command = [sys.executable, "-B", str(worker), str(asked), str(answered)]  # -B: leave no trace in the checkout
    _started(command, f"the published code in {options.published}", cwd=options.published)
    answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return answer


def _started(command: list[str], name: str, **places: Any) -> None:
    """Run a command; when it fails, say so with the end of what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **places)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise HebbError("\n".join([f"{name} ended with exit code {done.returncode}", *lines[-2:]]))


def _parts(answer: dict[str, Any], phases: tuple[Phase, ...]) -> list[harness.Row]:
    """Compute the time of every part of the published run: what one takes, times how often it happens."""
    *hebbian, classifier = phases
    if [list(phase.blocks) for phase in hebbian] != [theirs["blocks"] for theirs in answer["hebbian"]]:
        raise HebbError("the published preset has other phases than ours")
    parts = []
    for phase, theirs in zip(hebbian, answer["hebbian"], strict=True):
        if theirs["batches"] * phase.epochs != phase.updates:
            raise HebbError(f"{phase.describe()}: the published code makes other updates than ours")
        # a busy machine draws the mean up, and with it our ratio: the median counts
        one = statistics.median(theirs["seconds"])
        parts.append(_part(f"{phase.describe()}, step", one, phase.updates, len(theirs["seconds"])))
    images = classifier.updates // classifier.epochs
    if answer["classifier"]["batches"] != images:
        raise HebbError(f"{classifier.describe()}: the published code makes other updates than ours")
    one, measured = _pass(answer["classifier"])
    parts.append(_part(f"{classifier.describe()}, epoch", one, classifier.epochs, measured))
    one, measured = _pass(answer["evaluation"])
    return [*parts, _part("evaluation", one, evaluations(classifier.epochs, classifier.print_freq), measured)]


def _part(name: str, one: float, count: int, measured: int) -> harness.Row:
    return {"part": name, "one_s": one, "count": count, "seconds": one * count, "measured": measured}


def _pass(found: dict[str, Any]) -> tuple[float, int]:
    """Return the seconds of a pass over all batches and the number of images measured; a shorter one is scaled."""
    seconds, images = found["seconds"], sum(found["images"])
    if len(seconds) == found["batches"]:
        return sum(seconds), images
    later = seconds[1:]  # the first batch warms up, where it is left out anyway
    return sum(later) / len(later) * found["batches"], images


def evaluations(epochs: int, print_freq: int) -> int:
    """Count the evaluations of a phase: after the first epoch, the last, and every ``print_freq``."""
    return len({1, epochs, *range(print_freq, epochs + 1, print_freq)})


def _smoke(options: argparse.Namespace, parts: list[harness.Row], extra: list[str]) -> list[str]:
    """Say what makes the numbers those of a smoke test."""
    few = [part["measured"] for part in parts if "step" in part["part"] and part["measured"] < ENOUGH]
    reasons = [f"{min(few)} measured steps a phase, not {ENOUGH}"] if few else []
    if options.classifier_images is not None:
        reasons.append("classifier and evaluation of the published code scaled from fewer images")
    return reasons + ([f"multi_layer.py {' '.join(extra)}"] if extra else [])


def _commit(folder: Path) -> str | None:
    """Return the commit of the checkout, where it is one of git."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _show(result: harness.Row, threads: int) -> None:
    out = describe.console()
    if result["parts"]:
        columns = {"part": "part", "one s": "one_s:.4f", "times": "count:,", "seconds": "seconds:,.1f"}
        harness.show(
            "published code, its time computed", result["parts"], {**columns, "measured steps or images": "measured:,"}
        )
    out.print(
        f"{result['preset']}, {threads} thread(s): "
        f"published {result['published_s']:,.1f} s ({result['published_is']}), "
        f"ours {result['ours_s']:,.1f} s (measured whole): ratio {result['ratio']:.2f}",
        soft_wrap=True,
    )
    for reason in result["smoke_test"]:
        out.print(f"not a full measurement: {reason}", soft_wrap=True)
    accuracy = result["accuracy"]
    checked = accuracy["ours_measured_by_published"]
    words = [f"ours {accuracy['ours']:.2f} % (first epoch {accuracy['ours_first_epoch']:.2f} %)"]
    words.append(
        f"our network measured by the published code {checked['accuracy']:.2f} % on {checked['images']:,} images"
    )
    words += [f"paper {accuracy['paper']:.2f} %"] if accuracy["paper"] is not None else []
    for name, when in (("published", "whole"), ("published_first_epoch", "after its first epoch")):
        words += [f"published code {when} {accuracy[name]:.2f} %"] if accuracy[name] is not None else []
    out.print("test accuracy: " + "; ".join(words), soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
