"""A group of a search as a job of a batch system: what runs on the node.

The job trains in a thread. Before the time of a job is up, or when another job needs its place, submitit is sent a
signal. Its handler runs in the main thread, asks the batch system to queue the job again, and exits. The process then
ends at once, as if it had been killed: what is on disk is whole at any moment, and the job that comes next goes on from
its last checkpoint to the same bits. Imports neither Ray nor torch until then.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.storage import folders
from hebb.tuning import mishaps
from hebb.tuning.observer import TrialReport
from hebb.tuning.search import Group

if TYPE_CHECKING:
    from hebb.tuning.worker import Task

BEGUN, ENDED, ERROR, FINAL = "begun", "ended", "error", "final"
"""Keys of lines of a file of reports beside the reports: the job runs; it is over; why it failed; another try would."""
_LOOK = 1.0  # seconds between two looks at the thread; signals interrupt the wait


@dataclass(frozen=True)
class GroupJob:
    """Trains a group and writes its reports into a file, a JSON object a line.

    Attributes:
        group: what is trained.
        task: what all groups of the stage share.
        reports: the file.
    """

    group: Group
    task: Task
    reports: Path

    def __call__(self) -> None:
        """Run the job; it is called on the node, in the main thread."""
        errors: list[BaseException] = []
        thread = threading.Thread(target=self._train, args=(errors,), daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_LOOK)
        except SystemExit as end:  # it queues again
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code & 0xFF if isinstance(end.code, int) else 1)
        except Exception as error:  # it may not queue again
            self._write({ERROR: f"its time was used up too often: {error}", FINAL: True})
            self._write({ENDED: True})
            raise
        if errors:
            raise errors[0]

    def checkpoint(self) -> Any:
        """Return the job that goes on where this one ends, which the run folders say; called by submitit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _train(self, errors: list[BaseException]) -> None:
        """Train, and say how it ended."""
        from hebb import builtin
        from hebb.tuning import worker

        try:
            self._write({BEGUN: True})
            builtin.load(self.group.runs[0].config.plugins)
            node = socket.gethostname()
            worker.run_group(self.group, self.task, lambda report: self._write({**report, "node": node}))
        except BaseException as error:
            traceback.print_exc()
            errors.append(error)
            self._write({ERROR: mishaps.reason(str(error).strip(), type(error).__name__)})
        self._write({ENDED: True})

    def _write(self, line: Mapping[str, object] | TrialReport) -> None:
        folders.append_row(self.reports, dict(line))
