"""What conferences ask of a search, answered from its records alone; what they do not hold is ``not recorded``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.analysis.progress import Follower, RunStatus
from hebb.config import data_spec, domains, serialise
from hebb.config.phase import PhaseKind
from hebb.config.vocabulary import Goal, Purpose, Role
from hebb.core import documents
from hebb.core.words import counted
from hebb.storage import folders, run_names

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "not recorded"
_VERSIONS = ("hebb-learning", "torch", "torchvision", "numpy", "ray", "optuna")
_LACKING = dict.fromkeys(("dataset", "epochs", "batch_size"), UNKNOWN)
_DEFAULTS = {**_LACKING, "samples": None, "classes": None, "validation": 0}
_DATA = {Role.SUP: "labelled data", Role.UNSUP: "data of Hebbian phases"}


@dataclass(frozen=True)
class _Records:
    """The records of a search: its description, and those of the finished runs."""

    folder: Path
    search: Mapping[str, Any]
    configs: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]


def compute(searches: Iterable[Path]) -> pd.DataFrame:
    """Return a line for each search and question: search, question, answer.

    Raises:
        ConfigError: for a folder without a search.
    """
    import pandas as pd

    places = list(dict.fromkeys(folder.absolute() for folder in searches))
    names = [place.name for place in places]
    lines = []
    for folder in places:
        records = _read(folder)
        answers = {
            "numbers": _numbers(records),
            "selection": _selection(records),
            **_front(records),
            "seeds": _seeds(records),
            **_data(records),
            "search space": _space(records),
            "trials": _trials(folder),
            "statistics": "mean and sample standard deviation over seeds; Student's 95 % intervals from 3 seeds on",
            "hardware": _hardware(records),
            "compute": _hours(records),
            "memory": _memory(records),
            "versions": _versions(records),
            "code": _code(records),
            "commands": "; ".join(f"`{line}`" for line in documents.part(records.search, "options").get("commands", ()))
            or UNKNOWN,
        }
        search = folder.name if names.count(folder.name) == 1 else str(folder)
        lines += [{"search": search, "question": name, "answer": text} for name, text in answers.items()]
    return pd.DataFrame(lines)


def markdown(frame: pd.DataFrame) -> str:
    """Write the answers as Markdown, a section for each search."""
    parts = []
    for name, lines in frame.groupby("search", sort=False):
        answers = [f"- **{line.question}**: {line.answer}" for line in lines.itertuples()]
        parts.append("\n".join([f"## {name}", "", *answers, ""]))
    return "\n".join(parts)


def _read(folder: Path) -> _Records:
    path = folder / folders.SEARCH
    folders.check_search(folder, "checklist")
    search = documents.as_object(folders.read_json(path), str(path))
    runs = sorted(path.parent for path in (folder / folders.TRIALS).glob(f"*/{folders.RESULT}"))

    def objects(name: str) -> list[Mapping[str, Any]]:
        paths = [run / name for run in runs if (run / name).exists()]
        return [documents.as_object(folders.read_json(path), str(path)) for path in paths]

    return _Records(folder, search, objects(folders.CONFIG), objects(folders.RESULT), objects(folders.ENVIRONMENT))


def _base(records: _Records) -> Mapping[str, Any]:
    return serialise.complete(documents.part(records.search, "base"))


def _numbers(records: _Records) -> str:
    stop = documents.part(_base(records), "stop")
    rules = [f"{name} {value}" for name, value in stop.items() if value is not None]
    early = f"; Hebbian phases may end early ({', '.join(rules)}), by the norms of their weights" if rules else ""
    return f"of the last epoch of each run; the best epoch, on validation or test images, is never taken{early}"


def _selection(records: _Records) -> str:
    search, metric = records.search, records.search.get("metric")
    ways = {Goal.MAX: "largest", Goal.MIN: "least"}
    several = [(metric, search.get("mode")), *((o.get("metric"), o.get("mode")) for o in search.get("others") or ())]
    share = documents.part(_base(records), "dataset_sup").get("validation") or 0
    images = f"{100 * share:g} % of the training images, held out" if share else "no validation images are held out"
    names = [name for name, _ in several]
    compared = [f"{name} ({ways.get(mode, UNKNOWN)} mean over seeds)" for name, mode in several]
    text = f"by {' and '.join(compared)}"
    bounds = documents.part(search, "spec").get("constraints") or ()
    text += f", under the constraints {', '.join(map(str, bounds))}" if bounds else ""
    if search.get("purpose") != Purpose.SEARCH:
        return f"none: a sweep, which shows every configuration, {text}; {images}"
    test = "; **selected on test images**" if any(str(name).startswith("test") for name in names) else ""
    final = search.get("final_seeds") or ()
    points = " ".join(map(str, search.get("final_points") or ())) or "all of them"
    best = f"points of the Pareto front ({points}) are" if len(several) > 1 else "the winner is"
    again = f"; {best} trained again on all training images with {len(final)} other seeds" if final else ""
    return f"{text}; {images}{test}{again}"


def _front(records: _Records) -> dict[str, str]:
    """Say what is on the Pareto front of a search by several metrics."""
    if not records.search.get("others"):
        return {}
    progress = Follower(records.folder).look()
    points = []
    for number, point in enumerate(progress.front, 1):
        values = ", ".join(f"{one.metric} {point.means[one.metric]:.6g}" for one in progress.objectives)
        points.append(f"{number}. {point.label} ({values})")
    complete = counted(len(progress.complete), "configuration")
    among = f"of {complete} that finished on every seed, within every bound"
    return {"Pareto front": f"{among}: {'; '.join(points) or 'none'}"}


def _seeds(records: _Records) -> str:
    search = records.search
    seeds = " ".join(map(str, search.get("seeds", ()))) or UNKNOWN
    final = " ".join(map(str, search.get("final_seeds") or ()))
    split = _base(records).get("split_seed", UNKNOWN)
    text = f"{seeds} for every configuration" + (f"; {final} for final runs" if final else "")
    return f"{text}; splits by seed {split}, the same in every run"


def _data(records: _Records) -> dict[str, str]:
    """Describe the data by their role; both roles may be one, and no run may learn from one of them."""
    phases = [phase for config in records.configs for phase in config.get("phases") or ()]
    learnt = {phase.get("data") for phase in phases if phase.get("kind") != PhaseKind.CALIBRATE}
    varied = _varied(records)
    answers = {}
    for role, name in _DATA.items():
        if role == Role.UNSUP and learnt and role.value not in learnt:
            continue
        data = documents.part(_base(records), f"dataset_{role}")
        digests = Counter(
            str(documents.part(e, "data_sha256")[role])
            for e in records.environments
            if role in documents.part(e, "data_sha256")
        )
        stored: dict[str, object] = {**_DEFAULTS, **data}
        values = {name: varied.get(f"dataset_{role}.{name}", stored[name]) for name in stored}
        images = _images(values["samples"])
        parts = [
            str(values["dataset"]),
            images + (f", classes {values['classes']}" if values["classes"] else ""),
            _share(values["validation"]),
            f"epochs {values['epochs']}, batch size {values['batch_size']}",
            "digest " + (", ".join(digest[:16] for digest in digests) or UNKNOWN),
            *(f"**{text}**" for text in data_spec.leaks(data.get("zca_test"), data.get("mirror_test"))),
        ]
        answers[name] = "; ".join(parts)
    return answers


def _varied(records: _Records) -> dict[str, object]:
    """Return the paths that the space of the search sets: a single value as it is, else the word ``varied``."""
    space = documents.part(documents.part(records.search, "spec"), "space")
    varied: dict[str, object] = {}
    for axis in domains.parse(space, "search.json, space"):
        for path in axis.paths():
            listed = [point.get(path) for point in axis.options]
            varied[path] = listed[0] if axis.listed and len(listed) == 1 else "varied"
    return varied


def _images(samples: object) -> str:
    if samples == "varied":
        return "a varied number of training images"
    return "all training images" if samples is None else f"{samples:,} training images"


def _share(validation: object) -> str:
    """Say how many of the training images are held out."""
    if validation == "varied":
        return "a varied share of them held out for validation"
    return f"{100 * float(str(validation or 0)):g} % of them held out for validation"


def _space(records: _Records) -> str:
    spec = documents.part(records.search, "spec")
    space, plan = documents.part(spec, "space"), documents.part(spec, "search")
    axes = [f"`{path}` {_domain(domain)}" for path, domain in space.items()]
    how = [f"{name} {value}" for name, value in plan.items() if value is not None]
    model = [
        f"{name} {value}" for name, value in documents.part(records.search, "searcher").items() if value is not None
    ]
    scheduler = documents.part(spec, "scheduler").get("name", UNKNOWN)
    parts = [
        ", ".join(how) or UNKNOWN,
        *([f"suggested by {', '.join(model)}"] if model else []),
        f"scheduler {scheduler}",
    ]
    return f"{'; '.join(axes) or 'nothing but the seed'} ({'; '.join(parts)})"


def _domain(domain: object) -> str:
    if not isinstance(domain, dict):
        return str(domain)
    return ", ".join(f"{kind} {values}" for kind, values in domain.items())


def _trials(folder: Path) -> str:
    progress = Follower(folder).look()
    tally, points = progress.tally, len({run_names.configuration(run.name) for run in progress.runs})
    others = tally.others()
    final = sum(run.state == RunStatus.FINISHED for run in progress.final)
    runs = f"{tally.finished} of {counted(tally.total, 'run')} finished{f', {others}' if others else ''}"
    return f"{counted(points, 'configuration')}; {runs}" + (f"; and {counted(final, 'final run')}" if final else "")


def _counted(values: Iterable[object]) -> str:
    """List values with the number of runs that have each, where they differ."""
    counts = Counter(str(value) for value in values if value not in (None, ""))
    texts = [text if len(counts) == 1 else f"{text} ({counted(number, 'run')})" for text, number in counts.items()]
    return ", ".join(texts) or UNKNOWN


def _hardware(records: _Records) -> str:
    machines = [documents.part(environment, "machine") for environment in records.environments]
    gpus = _counted(m.get("gpu") or "none" for m in machines)
    devices = _counted(config.get("device") for config in records.configs)
    threads = _counted(config.get("threads") for config in records.configs)
    hosts = len({m.get("host") for m in machines if m.get("host")})
    parts = [
        counted(hosts, "machine") if hosts else f"machines {UNKNOWN}",
        f"processor {_counted(m.get('processor') for m in machines)}",
        f"cores {_counted(m.get('cores') for m in machines)}",
        f"GPU {gpus}",
        f"runs on {devices}, CPU threads of each {threads}",
    ]
    return "; ".join(parts)


def _hours(records: _Records) -> str:
    seconds = [float(r["seconds"]) for r in records.results if isinstance(r.get("seconds"), int | float)]
    if not seconds:
        return UNKNOWN
    total, lacking = math.fsum(seconds), len(records.results) - len(seconds)
    each = f", {total / len(seconds):.3g} s each" if len(seconds) > 1 else ""
    text = f"{total / 3600:.3g} hours over {counted(len(seconds), 'finished run')}{each}"
    text += f"; {lacking} without a time" if lacking else ""
    again = sum(bool(environment.get("continued")) for environment in records.environments)
    text += f"; of {counted(again, 'continued run')} only the last session" if again else ""
    return f"{text}; unfinished runs and earlier experiments {UNKNOWN}"


def _memory(records: _Records) -> str:
    """Say how much memory the largest run took, as far as the runs could tell."""
    peaks = [int(r["peak_memory"]) for r in records.results if isinstance(r.get("peak_memory"), int)]
    if not peaks:
        return UNKNOWN
    devices = _counted(config.get("device") for config in records.configs)
    share = f"{len(peaks)} of {counted(len(records.results), 'finished run')} that can tell"
    return f"{max(peaks) / 1e6:,.0f} MB, the largest of the {share}, on {devices}"


def _versions(records: _Records) -> str:
    packages = [f"Python {_counted(e.get('python') for e in records.environments)}"]
    for name in _VERSIONS:
        versions = _counted(documents.part(environment, "versions").get(name) for environment in records.environments)
        if versions != UNKNOWN:
            packages.append(f"{name} {versions}")
    systems = _counted(documents.part(e, "machine").get("system") for e in records.environments)
    return ", ".join([*packages, f"on {systems}"])


def _code(records: _Records) -> str:
    commits = _counted(environment.get("commit") for environment in records.environments)
    dirty = sum(bool(environment.get("dirty")) for environment in records.environments)
    text = f"commit {commits}" + (f", with uncommitted changes in {counted(dirty, 'run')}" if dirty else "")
    plugins = {str(p["sha256"]): Path(str(p["name"])).name for c in records.configs for p in c.get("plugins") or ()}
    listed = ", ".join(f"{name} (source {digest[:16]})" for digest, name in plugins.items())
    return f"{text}; plugins: {listed or 'none'}"
