"""What hears how a run goes on. Never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.plan import Phase
from hebb.config.specs import RunConfig
from hebb.core.errors import DivergenceError
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.data import images
    from hebb.nn import model
    from hebb.probing.measures import BlockInfo
    from hebb.training.place import Place
    from hebb.training.result import Result


class Report:
    """What a run tells while it goes on. Every method does nothing here; override what is wanted."""

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: Place) -> None:
        """The run begins."""

    def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
        """A phase begins, or continues, at ``epoch`` (from 0) with ``images`` images an epoch."""

    def features(self, phase: Phase, images: int) -> None:
        """The features that a phase reads are computed first, those of ``images`` images."""

    def progress(self, images: int) -> None:
        """``images`` more images are done."""

    def row(self, row: folders.Row, blocks: dict[str, BlockInfo]) -> None:
        """An epoch was evaluated."""

    def trained(self, index: int, phase: Phase, network: model.Network, data: images.Images) -> None:
        """A phase is complete, and stored; ``data`` has labels where the run has any."""

    def failed(self, error: DivergenceError) -> None:
        """The run, one of a pack, cannot go on; the others do, unless this raises. A run by itself raises."""

    def finish(self, result: Result) -> None:
        """The run is complete."""
