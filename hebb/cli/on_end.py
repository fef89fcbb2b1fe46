"""A command of the user's at the end of a search or a run: a mail, a message, the next job.

A shell runs it, with these environment variables; what is not known is empty.

HEBB_STATUS               finished, failed (something of it), or interrupted
HEBB_KIND                 search or run
HEBB_NAME, HEBB_FOLDER    its name, and its folder
HEBB_METRIC, HEBB_BEST    what is compared, and the best mean over all seeds; of a run its own value
HEBB_CONFIGURATION        the configuration with that mean; of a run its network
HEBB_METRICS              all that is compared, and the better direction of each, as JSON: {"test_acc": "max", ...}
HEBB_FRONT                the points of the Pareto front, as JSON: a list of {"configuration": ..., "values": {...}},
                          best by the first metric first; by one metric the best alone
HEBB_DONE, HEBB_TOTAL     runs that ran to the end, and all runs
HEBB_FAILED               runs that failed
HEBB_SECONDS              how long this session took
HEBB_ERROR                what ended it, in a line

Its failure is reported and changes no exit code.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hebb.cli.parsing import Parser, Section
from hebb.core import documents, streams
from hebb.core.errors import ConfigError, InterruptedRunError, cause_of
from hebb.storage import folders

FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
_LONGEST = 500  # characters of an error


def add_flag(parser: Parser) -> None:
    """Add the flag of the command."""
    parser.section(Section.MACHINE).add_argument(
        "--on-end",
        metavar="COMMAND",
        help="run this in a shell at the end, also after an error; it is told HEBB_STATUS, HEBB_FOLDER, HEBB_BEST ...",
    )


@dataclass
class End:
    """What is known at the end.

    Attributes:
        command: the user's; None or empty for none.
        runs: the folder of a search, or those of a run or of the members of a pack.
        status: how it ended, where no error did.
        facts: values by the names of their variables.
    """

    command: str | None
    runs: Sequence[Path]
    status: str = FINISHED
    facts: dict[str, object] = field(default_factory=dict)

    def gather(self) -> None:
        """Read the facts from the records; what cannot be read stays unknown."""
        if not self.command or self.facts:
            return
        try:
            searches = (self.runs[0] / folders.SEARCH).exists()
            self.facts = _of_search(self.runs[0]) if searches else _of_runs(self.runs)
        except (ConfigError, OSError):
            self.facts = {}


@contextlib.contextmanager
def at_end(command: str | None, runs: Sequence[Path], kind: str) -> Iterator[End]:
    """Run a command when the body has ended, however it ended.

    Args:
        command: the user's; None or empty for none.
        runs: the folder of a search, or those of a run or of the members of a pack.
        kind: search or run.
    """
    end, began, error = End(command, runs), time.monotonic(), ""
    try:
        yield end
    except BaseException as failure:
        cause = cause_of(failure)
        stopped = isinstance(cause, KeyboardInterrupt | InterruptedRunError | BrokenPipeError)
        end.status = INTERRUPTED if stopped else FAILED
        error = " ".join(str(cause).split())[:_LONGEST]
        raise
    finally:
        if command:
            end.gather()
            place = runs[0].absolute()
            own = {"STATUS": end.status, "KIND": kind, "NAME": place.name, "FOLDER": place, "ERROR": error}
            _call(command, {**end.facts, **own, "SECONDS": f"{time.monotonic() - began:.0f}"})


_NAMES = (
    *("STATUS", "KIND", "NAME", "FOLDER", "METRIC", "BEST", "CONFIGURATION", "METRICS", "FRONT"),
    *("DONE", "TOTAL", "FAILED", "SECONDS", "ERROR"),
)


def _call(command: str, facts: dict[str, object]) -> None:
    """Run the command, and say where it failed."""
    import subprocess  # which --help does without

    values = {f"HEBB_{name}": facts.get(name) for name in _NAMES}
    texts = {name: "" if value is None else str(value).replace("\0", "") for name, value in values.items()}
    for stream in streams.usable().values():
        with contextlib.suppress(OSError):  # of a full disk, which the last flush of the process reports
            stream.flush()  # what it prints comes after what we have
    try:
        code = subprocess.run(command, shell=True, env={**os.environ, **texts}, check=False).returncode
        problem = f"ended with exit code {code}" if code else ""
    except (OSError, ValueError, KeyboardInterrupt) as error:
        problem = f"did not run: {error}" if str(error) else "was interrupted"
    if problem:
        print(f"--on-end: '{command}' {problem}", file=sys.stderr, flush=True)


def _of_search(folder: Path) -> dict[str, object]:
    """Return the facts of a search, from its records."""
    from hebb.analysis.progress import Follower, RunStatus

    progress = Follower(folder).look()
    best, *_ = progress.complete or (None,)
    points = [
        {"configuration": point.label, "values": {o.metric: point.means.get(o.metric) for o in progress.objectives}}
        for point in progress.front
    ]
    return {
        "METRIC": progress.metric,
        "BEST": None if best is None else best.means[progress.metric],
        "CONFIGURATION": None if best is None else best.label,
        "METRICS": json.dumps({one.metric: one.mode for one in progress.objectives}),
        "FRONT": json.dumps(points),
        "DONE": progress.tally.finished,
        "TOTAL": progress.tally.total,
        "FAILED": sum(run.state == RunStatus.FAILED for run in (*progress.runs, *progress.final)),
    }


def _of_runs(runs: Sequence[Path]) -> dict[str, object]:
    """Return the facts of a run, or the mean over the members of a pack."""
    done = [run for run in runs if (run / folders.RESULT).exists()]
    facts: dict[str, object] = {"DONE": len(done), "TOTAL": len(runs), "FAILED": len(runs) - len(done)}
    rows = [folders.read_rows(run / folders.METRICS) for run in done]
    metric = folders.accuracy_of(rows[0]) if rows else None
    if metric is not None and len(done) == len(runs):
        values = [value for one in rows if (value := folders.value_of(one, metric)) is not None]
        facts |= {"METRIC": metric, "BEST": math.fsum(values) / len(values)}
    if done:
        result = documents.as_object(folders.read_json(done[0] / folders.RESULT), str(done[0]))
        facts["CONFIGURATION"] = result.get("network")
    return facts
