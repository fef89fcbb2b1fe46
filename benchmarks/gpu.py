"""Everything that a GPU is wanted for, in parts: methods against the CPU, whole runs, steps, packs, peak memory.

    python benchmarks/gpu.py --split FILE      cut cifar10.npz into parts of at most 16 MiB, below ``--work``
    python benchmarks/gpu.py                   do what is not done yet, for nine minutes, then go on when called again
    python benchmarks/gpu.py --rehearse        the same from start to end on a pretended GPU, with small runs

Made for a bare machine that is lent for minutes: Python, torch and the requirements, no Ray, no network. ``--work`` (an
ignored folder) holds the parts of CIFAR-10 and, one file each, the results. A unit that has a result is not done again,
so the folder may travel from one machine to the next. Each unit is a process of its own with a time limit. A unit that
fails has its error as result, and ``--again`` tries those anew. When every unit has a result, ``record`` below
``--work`` is a folder for ``records/``: the numbers, and a page with the tables.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch

from benchmarks import harness
from benchmarks.harness import Row
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, overrides
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core import files, machine
from hebb.core.errors import ConfigError, HebbError
from hebb.training import train

ROOT = Path(__file__).resolve().parent.parent
PART = 16 << 20
"""Most bytes of a part of the data."""
BUDGET, LIMIT = 540, 480
"""Seconds after which no unit is begun, and those that a unit may take."""
CHUNKS = 6
MEMBERS = (1, 2, 4, 8, 16)
DATA = "cifar10.npz"

WHOLE = {name: name for name in ("2SoftHebbCnnCIFAR", "3SoftHebbCnnCIFAR", "4SoftHebbCnnCIFAR")}
_HEBBIAN = (
    *("Soft", "SoftKrotov", "Hard", "KWTA", "HardKrotov", "Krotov", "Hebb", "Oja", "Sanger"),
    *("BCM", "HardInstar", "TemporalInstar", "ThresholdInstar"),
)
_LOCAL = ("LPL", "ContrastiveLPL", "SupervisedLPL", "LocalBP", "SCFF")
STEPS = {
    **{rule: f"{rule}-c96-k5-p2:bn:triangle:max_4_2_1 BP:flatten" for rule in _HEBBIAN},
    "MLP": "Soft-c2000:flatten BP",
    "SupervisedSoftKrotov": "Soft-c96-k5-p2:bn:triangle:max_4_2_1 SupervisedSoftKrotov:flatten",
    "BP": "BP-c96-k5-p2:bn:relu:max_4_2_1 BP-c128-k3-p1:bn:relu:max_2_2_0 BP:flatten",
    "FA": "FA-c500:flatten:relu FA",
    **{rule: f"{rule}-c96-k5-p2:relu:max_4_2_1:warmup=0 BP:flatten" for rule in _LOCAL},
    "SPHeRe": "SPHeRe-c96-k3-p1:bn_affine:leaky:max_4_2_1 BP:flatten",
    **{rule: f"{rule}-c500:flatten {rule}" for rule in ("EP", "CorInfoMax", "PC", "PCNudge")},
    "CorInfoMaxSparse": "CorInfoMaxSparse-c500:flatten CorInfoMaxSparse-lf0.2-lt0.1",
    "CSM": "CSM-c500:flatten CSM-lm0.1",
}
SMALL = "SoftKrotov-c6-k3-p1:bn:triangle:max_2_2_0 BP:flatten"
SMALL_STEPS = {"Soft": "Soft-c6-k3-p1:bn:triangle BP:flatten", "EP": "EP-c8:flatten EP", "BP": "BP-c8:flatten:relu BP"}


def main(argv: list[str]) -> int:
    """Do the units that have no result yet, and write the record when all have one."""
    options = parse(argv)
    if options.split is not None:
        return split(options.split, options.work / "data")
    if options.unit is not None:
        return one(options)
    if not options.rehearse and not torch.cuda.is_available():
        raise ConfigError("gpu", "torch finds no GPU on this machine", hint="--rehearse pretends one")
    if not options.rehearse:
        join(options.work / "data", options.work / "dataset")
    return work_on(options)


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags."""
    parser = Parser(prog="python benchmarks/gpu.py", description=(__doc__ or "").partition("\n\n")[0])
    work = ROOT / "hebb_data" / "gpu"
    parser.add_argument("--work", type=Path, default=work, metavar="DIR", help=f"parts and results (default: {work})")
    parser.add_argument("--split", type=Path, metavar="FILE", help=f"cut {DATA} into parts, then stop")
    parser.add_argument("--rehearse", action="store_true", help="pretend a GPU, with small runs")
    parser.add_argument("--again", action="store_true", help="do the units anew that failed")
    parser.add_argument("--budget", type=count, default=BUDGET, metavar="S", help=f"seconds (default: {BUDGET})")
    parser.add_argument("--unit", metavar="NAME", help="do this unit alone, in this process")
    return parser.parse(argv)


# -- data -----------------------------------------------------------------------------------------------------


def split(source: Path, folder: Path) -> int:
    """Cut a file into parts, and write how many there are and the digest of the whole."""
    content = source.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [content[start : start + PART] for start in range(0, len(content), PART)]
    for i, piece in enumerate(pieces):
        (folder / f"part-{i:02}").write_bytes(piece)
    whole = {"parts": len(pieces), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "whole.json").write_text(json.dumps(whole))
    print(f"data: {len(pieces)} parts of at most 16 MiB in {folder}")
    return 0


def join(parts: Path, folder: Path) -> None:
    """Put the parts together, once; raise for parts that are missing or broken."""
    target = folder / DATA
    if target.exists():
        return
    if not (parts / "whole.json").exists():
        raise ConfigError("gpu", f"{parts} holds no parts of {DATA}", hint=f"--split {DATA} cuts it")
    whole = json.loads((parts / "whole.json").read_text())
    paths = [parts / f"part-{i:02}" for i in range(whole["parts"])]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise ConfigError("gpu", f"{parts} lacks {' '.join(missing)}", hint="bring them, three a call, and call again")
    content = b"".join(path.read_bytes() for path in paths)
    if hashlib.sha256(content).hexdigest() != whole["sha256"]:
        raise ConfigError("gpu", f"the parts in {parts} do not make the file that was cut", hint="cut it anew")
    folder.mkdir(parents=True, exist_ok=True)
    with files.replaced(target) as (temporary,):
        temporary.write_bytes(content)


# -- units ----------------------------------------------------------------------------------------------------


def units(*, rehearse: bool) -> dict[str, Callable[[], Row]]:
    """Return every unit by name; a unit returns numbers."""
    whole, steps, members, chunks = (
        ({"small": SMALL}, SMALL_STEPS, (1, 2), 1) if rehearse else (WHOLE, STEPS, MEMBERS, CHUNKS)
    )
    scale = _small if rehearse else _real

    def unit(work: Callable[..., Row], network: str, whole: bool, **more: Any) -> Row:
        return work(scale(network, whole), **more)

    largest = next(reversed(whole.values()))
    return {
        **{f"methods-{i}": partial(methods, i, chunks, few=rehearse) for i in range(chunks)},
        **{
            f"whole-{name}-{_word(graphs=graphs)}": partial(unit, whole_run, network, True, graphs=graphs)
            for name, network in whole.items()
            for graphs in (False, True)
        },
        **{f"steps-{name}": partial(unit, step, network, False) for name, network in steps.items()},
        **{f"pack-{number}": partial(unit, pack, largest, True, members=number) for number in members},
    }


def _word(*, graphs: bool) -> str:
    return "graphs" if graphs else "loop"


def _real(network: str, whole: bool) -> RunConfig:
    """Return a run on CIFAR-10: a preset with its published data, or one epoch of 10,000 images in batches of 10."""
    return _config(network, "CIFAR10_1", "CIFAR10_50" if whole else "CIFAR10_1", () if whole else _only(10000, 1))


def _small(network: str, whole: bool) -> RunConfig:
    """Return a run of seconds on a pretended GPU."""
    return _config(network, "Digits_1", "Digits_1", _only(240, 2 if whole else 1))


def _only(samples: int, epochs: int) -> tuple[str, ...]:
    return tuple(
        f"dataset_{role}.{value}"
        for role in ("sup", "unsup")
        for value in (f"samples={samples}", f"epochs={epochs}", "batch_size=10")
    )


def _config(network: str, unsup: str, sup: str, changes: tuple[str, ...]) -> RunConfig:
    builtin.load()
    presets = catalog.load()
    data = presets.dataset(sup, "gpu"), presets.dataset(unsup, "gpu")
    run = RunConfig(
        network=presets.network(network),
        mode="successive",
        dataset_sup=data[0],
        dataset_unsup=data[1],
        device=DeviceKind.CUDA,
        curve_points=0,
    )
    return overrides.apply(run, overrides.parse(changes), presets)


def methods(chunk: int, chunks: int, *, few: bool) -> Row:
    """Compare networks of every method with the CPU's, and graphs with the loop, which must give the same bits."""
    networks, small = _of_tests("networks"), _of_tests("small")
    rows = []
    for name in list(networks.NETWORKS)[chunk::chunks][: 3 if few else None]:
        config = networks.config(networks.NETWORKS[name], "tf32=none", *_only(95, 2))
        host = networks.on_cpu(config)
        loop = networks.on_gpu(config)
        notes = Notes()
        place = train.Place(datasets=networks.nowhere())
        graphs = train.run(replace(config, device=DeviceKind.CUDA, cuda_graphs=True), notes, place=place)
        again = small.run(replace(config, device=DeviceKind.CUDA))
        rows.append(
            {
                "network": name,
                "farthest": _farthest(host, loop),
                "repeats": _farthest(loop, again) == 0,
                "graphs": _farthest(loop, graphs) == 0,
                "notes": notes.lines,
            }
        )
    return {"rows": rows}


class Notes(train.Report):
    """Keeps the lines that a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


def _of_tests(name: str) -> Any:
    """Return a module of the tests."""
    for folder in (ROOT / "tests", ROOT / "tests" / "devices"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return importlib.import_module(name)


def _farthest(one: train.Result, other: train.Result) -> float:
    """Return the largest difference of two weights, in units of the largest weight of a tensor."""
    mine, its = one.network.state_dict(), other.network.state_dict()
    pairs = [(tensor.cpu().double(), its[name].cpu().double()) for name, tensor in mine.items()]
    return max(float((a - b).abs().max()) / max(float(a.abs().max()), 1e-6) for a, b in pairs)


def _run(config: RunConfig, members: int = 1) -> Row:
    """Train a run or a pack, and return its seconds, phases, accuracy, notes and peak memory."""
    notes = Notes()
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats(device)
    place = train.Place(datasets=_datasets)
    seeds = tuple(range(members)) if members > 1 else ()
    configs = [replace(config, seed=seed, pack=seeds) for seed in range(members)]
    began = harness.now(device)
    results = train.run_pack(configs, [notes, *(train.Report() for _ in configs[1:])], places=[place] * members)
    seconds = harness.now(device) - began
    rows = results[0].rows
    return {
        "seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(device),
        "test_acc": [result.rows[-1].get("test_acc") for result in results],
        "phases": [
            {key: row.get(key) for key in ("phase", "kind", "blocks", "epoch", "images_per_second")} for row in rows
        ],
        "notes": notes.lines,
    }


def whole_run(config: RunConfig, *, graphs: bool) -> Row:
    """Time a whole run, as a user waits for it."""
    return _run(replace(config, cuda_graphs=graphs))


def step(config: RunConfig) -> Row:
    """Time the updates of each phase by the loop and by graphs, after a run of each that warms up."""
    answers: Row = {}
    for graphs in (False, True):
        run = replace(config, cuda_graphs=graphs)
        _run(run)
        answers[_word(graphs=graphs)] = _run(run)
    return answers


def pack(config: RunConfig, members: int) -> Row:
    """Time a pack; of one member: a run."""
    return _run(config, members)


# -- work -----------------------------------------------------------------------------------------------------


_datasets = Path("nowhere")


@contextlib.contextmanager
def _gpus(*, rehearse: bool) -> Iterator[None]:
    """Use the machine's GPU, or pretend one."""
    if not rehearse:
        yield
        return
    with _of_tests("pretended").gpus():
        yield


def one(options: argparse.Namespace) -> int:
    """Do a unit in this process, and write its result."""
    global _datasets
    _datasets = options.work / "dataset"
    result: Row
    with _gpus(rehearse=options.rehearse):
        try:
            numbers = units(rehearse=options.rehearse)[options.unit]()
            result = {"done": True, "gpu": machine.gpu_name(), "torch": torch.__version__, **numbers}
        except (HebbError, RuntimeError) as error:
            traceback.print_exc()
            result = {"done": False, "error": f"{type(error).__name__}: {error}"}
    _write(options.work / "results" / f"{options.unit}.json", result)
    return 0 if result["done"] else 1


def _write(path: Path, content: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def work_on(options: argparse.Namespace) -> int:
    """Do the units without a result while there is time."""
    results, began = options.work / "results", time.monotonic()
    paths = {name: results / f"{name}.json" for name in units(rehearse=options.rehearse)}
    for name, path in paths.items():
        if path.exists() and (json.loads(path.read_text())["done"] or not options.again):
            continue
        left = options.budget - (time.monotonic() - began)
        if left <= 0:
            break
        _spawn(options, name, path, min(LIMIT, left + 30))
    done = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    failed = [name for name, result in done.items() if not result["done"]]
    print(f"gpu: {len(done) - len(failed)} of {len(paths)} units done, failed: {' '.join(failed) or 'none'}")
    if len(done) < len(paths):
        print("gpu: call again to go on")
        return 0
    record(done, options.work / "record", rehearse=options.rehearse)
    return 1 if failed else 0


def _spawn(options: argparse.Namespace, name: str, path: Path, limit: float) -> None:
    """Do a unit in a process of its own; one that does not end has that as its result."""
    line = [sys.executable, __file__, "--work", str(options.work), "--unit", name]
    line += ["--rehearse"] if options.rehearse else []
    began, word = time.monotonic(), "failed"
    try:
        code = subprocess.run(line, timeout=limit, check=False).returncode
    except subprocess.TimeoutExpired:
        code = None
        if limit < LIMIT:  # less time than a unit may take
            word = "begun anew by the next call"
        else:
            _write(path, {"done": False, "error": f"took more than {limit:.0f} s"})
    if code not in (0, None) and not path.exists():
        _write(path, {"done": False, "error": f"the process ended with {code}"})
    print(f"gpu: {name}: {time.monotonic() - began:.0f} s" + ("" if code == 0 else f", {word}"), flush=True)


# -- record ---------------------------------------------------------------------------------------------------


def record(done: dict[str, Row], folder: Path, *, rehearse: bool) -> None:
    """Write the numbers and a page with the tables."""
    _write(folder / "gpu.json", {**harness.circumstances(0), "units": done})
    first = next((result for result in done.values() if result["done"]), {})
    lines = [f"# {first.get('gpu')}, torch {first.get('torch')}", ""]
    if rehearse:
        lines += ["A rehearsal on a pretended GPU: no number here is a time of a GPU.", ""]
    lines += _methods_table(done) + _runs_table(done) + _steps_table(done) + _packs_table(done)
    lines += [f"- {name} failed: {result['error']}" for name, result in done.items() if not result["done"]]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    print(f"record: {folder}")


def _of(done: dict[str, Row], kind: str) -> Iterator[tuple[str, Row]]:
    for name, result in done.items():
        if name.startswith(f"{kind}-") and result["done"]:
            yield name.removeprefix(f"{kind}-"), result


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> list[str]:
    lines = [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def _methods_table(done: dict[str, Row]) -> list[str]:
    rows = [row for _, result in _of(done, "methods") for row in result["rows"]]
    cells = [(r["network"], f"{r['farthest']:.1e}", r["repeats"], r["graphs"], "; ".join(r["notes"])) for r in rows]
    header = ("network", "farthest from the CPU", "repeats its bits", "graphs give the loop's bits", "notes")
    return _table("Methods", header, cells)


def _runs_table(done: dict[str, Row]) -> list[str]:
    cells = [
        (name, f"{result['seconds']:.1f}", f"{result['peak_bytes'] / 1e6:.0f}", result["test_acc"])
        for name, result in _of(done, "whole")
    ]
    return _table("Whole runs", ("run", "seconds", "peak MB", "test accuracy, %"), cells)


def _steps_table(done: dict[str, Row]) -> list[str]:
    cells = []
    for name, result in _of(done, "steps"):
        for loop, graphs in zip(result["loop"]["phases"], result["graphs"]["phases"], strict=True):
            speeds = [row["images_per_second"] for row in (loop, graphs)]
            if all(speeds):
                times = [f"{1e7 / speed:.0f}" for speed in speeds]
                cells.append((name, f"{loop['kind']} {loop['blocks']}", *times, f"{speeds[1] / speeds[0]:.2f}"))
    return _table("Updates of ten images, us", ("network", "phase", "loop", "graphs", "gain"), cells)


def _packs_table(done: dict[str, Row]) -> list[str]:
    packs = dict(_of(done, "pack"))
    alone = packs.get("1", {}).get("seconds")
    cells = [
        (n, f"{r['seconds']:.1f}", f"{r['seconds'] / alone:.2f}" if alone else "", f"{r['peak_bytes'] / 1e6:.0f}")
        for n, r in packs.items()
    ]
    return _table("Packs", ("seeds", "seconds", "times one", "peak MB"), cells)


if __name__ == "__main__":
    run_command(main)
