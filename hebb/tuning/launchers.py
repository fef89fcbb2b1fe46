"""What runs the trials of a search: Ray, or a batch system that takes them as jobs. Ray is imported if it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from hebb.config.vocabulary import DeviceKind, Launcher
from hebb.data.images import Images
from hebb.tuning import job_array, job_options, shared_data
from hebb.tuning.observer import Outcome, SearchObserver
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings
from hebb.tuning.work import Work

if TYPE_CHECKING:
    from hebb.tuning.ray_session import Resources


class Session(Protocol):
    """What is ready to run the stages of a search.

    Attributes:
        load: reads the data of a run; None reads the files.
        sharing: trials that share the memory of a machine.
    """

    load: Callable[..., Images] | None
    sharing: int

    def run(self, stage: Work, observer: SearchObserver) -> Outcome:
        """Run what is not finished of a stage, and return when nothing goes on."""


class Runner(Protocol):
    """A launcher for one search.

    Attributes:
        preparing: what it does before trials begin.
    """

    preparing: str

    def joined(self) -> contextlib.AbstractContextManager[bool | None]:
        """Join where trials will run, and yield whether there are GPUs; None where it is this machine."""

    def session(self, search: Search, data: shared_data.Packed) -> contextlib.AbstractContextManager[Session]:
        """Get ready; ``data`` are those that all trials read."""


def of(settings: SearchSettings) -> Runner:
    """Return the launcher of a search."""
    return OnRay(settings) if settings.launcher == Launcher.RAY else AsJobs(settings)


class OnRay:
    """Trials on Ray, which is started, or joined at an address."""

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.preparing = "starting Ray" if settings.address is None else f"joining Ray at {settings.address}"

    def joined(self) -> contextlib.AbstractContextManager[bool | None]:
        """Join the cluster of the search."""
        from hebb.tuning import ray_session

        return ray_session.joined(self.settings.address)

    @contextlib.contextmanager
    def session(self, search: Search, data: shared_data.Packed) -> Iterator[Session]:
        """Keep Ray running, with the data in its store."""
        from hebb.tuning import ray_session

        resources = self._resources(search)
        with ray_session.session(resources, shared_data.size(data)):
            shared = shared_data.Shared(data)
            del data  # Ray has a copy
            yield _RaySession(resources, shared, ray_session.places(resources, on_one=True))

    def _resources(self, search: Search) -> Resources:
        """Return what a trial takes."""
        from hebb.tuning.ray_session import Resources

        settings = self.settings
        return Resources(
            cpus=search.base.threads,
            gpu=1 / settings.trials_per_gpu if search.base.device == DeviceKind.CUDA else 0,
            gpu_id=settings.gpu,
            workers=settings.workers,
            address=settings.address,
            dashboard=settings.dashboard,
        )


class _RaySession:
    def __init__(self, resources: Resources, load: Callable[..., Images], sharing: int) -> None:
        self.resources, self.sharing = resources, sharing
        self.load: Callable[..., Images] | None = load

    def run(self, stage: Work, observer: SearchObserver) -> Outcome:
        from hebb.tuning import driver

        return driver.run(stage, self.resources, observer)


class AsJobs:
    """Trials as jobs of a batch system; each reads its data itself."""

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.preparing = f"submitting jobs to {settings.launcher}"

    @contextlib.contextmanager
    def joined(self) -> Iterator[bool | None]:
        """Ask for GPUs as the options do: this machine may have none."""
        yield self.settings.jobs.gpus > 0

    @contextlib.contextmanager
    def session(self, search: Search, data: shared_data.Packed) -> Iterator[Session]:
        """Check that jobs can be submitted; ``data`` have been read, so that jobs need not download them."""
        job_options.check_installed(self.settings.launcher)
        yield _JobSession(self.settings, search)


class _JobSession:
    load: Callable[..., Images] | None = None

    def __init__(self, settings: SearchSettings, search: Search) -> None:
        self.launcher, self.options = settings.launcher, settings.jobs
        here = self.launcher == Launcher.LOCAL
        self.sharing = (job_array.at_once_of(self.launcher, self.options, search) or 1) if here else 1

    def run(self, stage: Work, observer: SearchObserver) -> Outcome:
        return job_array.run(stage, self.launcher, self.options, observer)
