"""The interface through which a run reports its progress. Never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.phase import Phase
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
    """Receives the events of a run. Every method does nothing by default; a subclass overrides those it needs."""

    def loading(self, dataset: str) -> None:
        """Called before the images of a dataset are read, which may download or decode them."""

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: Place) -> None:
        """Called when the run starts."""

    def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
        """Called when a phase starts or continues at ``epoch`` (from 0); an epoch has ``images`` images."""

    def features(self, phase: Phase, images: int) -> None:
        """Called before the features of ``images`` images are computed for a phase."""

    def progress(self, images: int) -> None:
        """Called when ``images`` more images are processed."""

    def row(self, row: folders.Row, blocks: dict[str, BlockInfo]) -> None:
        """Called when an epoch has been evaluated."""

    def warning(self, text: str) -> None:
        """Called when the run goes on, and the user should know something."""

    def trained(self, index: int, phase: Phase, network: model.Network, data: images.Images) -> None:
        """Called when a phase is complete and stored; ``data`` has labels if the run has any."""

    def failed(self, error: DivergenceError) -> None:
        """Called when a member of a pack fails; the others go on unless this raises. A single run raises instead."""

    def finish(self, result: Result) -> None:
        """Called when the run is complete."""
