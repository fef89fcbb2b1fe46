"""``hebb.train``: one run from Python, and the finished run that comes back."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hebb import builtin
from hebb.api import data as data_argument
from hebb.api.arguments import checked
from hebb.api.data import Data
from hebb.config import catalog as catalogs
from hebb.config import compose, plan, serialise, shapes, vocabulary
from hebb.config import overrides as changes_of
from hebb.config import plugins as plugin_files
from hebb.config.registry import DATASETS
from hebb.config.specs import NetworkSpec, RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core.errors import ConfigError
from hebb.core.threads import cores
from hebb.data import images, memory
from hebb.nn import model
from hebb.nn.model import Network
from hebb.probing import stored
from hebb.storage import folders
from hebb.storage.curves import Point
from hebb.storage.folders import FolderState, Home
from hebb.training import train as trainer
from hebb.training.place import Place
from hebb.training.report import Report
from hebb.training.result import Result

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 50
"""Images that go through a network together. Sums in float32 depend on the size of a batch, so it is always this."""


class TrainedRun:
    """A finished run.

    Attributes:
        config: everything that decided its bits.
        metrics: the last row of ``metrics.jsonl``: losses are means per sample, accuracies in percent.
        probes: the readouts of its blocks, a mapping each: block, kind, train_acc, val_acc, test_acc.
        geometry: how its blocks represent the images, with ``probes=["geometry"]``; a mapping each: block,
            dimensionality and the other numbers of ``hebb.probing.geometry``.
        seconds: how long it took.
        folder: its run folder; None where nothing was kept.
        classes: what the network's outputs stand for, in their order: the labels that were given with arrays or are
            in an ``.npz`` file, the names of a folder's classes, and for other datasets the numbers of the classes.
    """

    def __init__(
        self,
        config: RunConfig,
        rows: Sequence[folders.Row],
        probes: Sequence[Mapping[str, Any]],
        geometry: Sequence[Mapping[str, Any]],
        seconds: float,
        *,
        points: Sequence[Point],
        home: Home,
        folder: Path | None = None,
        network: Network | None = None,
        arrays: data_argument.NamedData | None = None,
    ) -> None:
        self.config, self.seconds, self.folder = config, seconds, folder
        self.metrics = dict(rows[-1])
        self.probes, self.geometry = list(probes), list(geometry)
        self._rows, self._home, self._network, self._arrays = rows, home, network, arrays
        self._points = points
        classes = None if arrays is None else arrays.classes
        self.classes = _class_names(config) if classes is None else classes

    def __repr__(self) -> str:
        measured = [name for name in folders.ACCURACIES if self.metrics[name] is not None]
        held_out = [name for name in measured if name != "train_acc"]
        scores = ", ".join(f"{name[:-4]} {self.metrics[name]:.2f} %" for name in held_out or measured)
        return f"<TrainedRun {self.config.network.name}, seed {self.config.seed}: {scores or 'no accuracy'}>"

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images after the last epoch, in percent; None where there are none."""
        accuracy: float | None = self.metrics["test_acc"]
        return accuracy

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """A line for each epoch, as in ``metrics.jsonl``."""
        import pandas as pd

        return pd.DataFrame(self._rows)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """Learning curves inside the epochs: a line for each block and point (``curve_points`` of the config).

        Columns: update, phase, kind, epoch (0 at the start of a phase), block; convergence, R1, radius_mean,
        weight_change, winner_share and winners, of the rules that have them; recent_loss and recent_acc.
        """
        import pandas as pd

        return pd.DataFrame([line for point in self._points for line in point.by_block()])

    @property
    def network(self) -> Network:
        """The trained network, in evaluation mode; of a stored run it is read from its checkpoint."""
        if self._network is None:
            assert self.folder is not None
            path = self.folder / folders.CHECKPOINT
            if not path.exists():
                raise ConfigError(
                    str(self.folder),
                    "keeps no model",
                    hint="a search keeps those of its best configuration, and all with save_models=True",
                )
            self._network = stored.restore(model.readable(self.config), path)
        return self._network.eval()

    def predict(self, x: Any) -> np.ndarray:
        """Return one of ``classes`` for each image: (N,).

        Args:
            x: images like those of the training data, (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D): uint8, or floats
                in the range of the training data.
        """
        answers: np.ndarray = self.classes[self.logits(x).argmax(axis=1)]
        return answers

    def logits(self, x: Any) -> np.ndarray:
        """Return the outputs of the classifier, (N, classes)."""
        if not self.config.network.blocks[-1].supervised:
            raise ConfigError(self.config.network.name, "has no classifier that could predict")
        scale = self.network.logit_scale
        return self._outputs(x, len(self.config.network.blocks), lambda out: out.flatten(1) * scale)

    def features(self, x: Any, block: int = 0) -> np.ndarray:
        """Return the output of a block for each image: (N, C, H, W), or (N, C) of a fully connected block."""
        count = len(self.config.network.blocks)
        if not 0 <= block < count:
            raise ConfigError("block", f"must be 0 to {count - 1}, got {block}")
        return self._outputs(x, block + 1, lambda out: out)

    @torch.no_grad()
    def _outputs(self, x: Any, stop: int, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return what the blocks below ``stop`` answer; every batch is filled up, so an answer has no neighbours."""
        network, pieces = self.network, []
        for batch, _ in self._split(x).batches(_BATCH):
            missing = _BATCH - len(batch)
            full = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
            pieces.append(finish(network(full, stop=stop))[: len(batch)].cpu())
        outputs: np.ndarray = torch.cat(pieces).numpy()
        return outputs

    def _split(self, x: Any) -> images.Split:
        """Return images as the network takes them."""
        pixels = torch.from_numpy(memory.images(x, "x"))
        spec, expected = self.config.dataset_sup, shapes.input_shape(self.config)
        size = tuple(pixels.shape[1:])
        if size[0] != expected[0] or (spec.size is None and size != expected):
            raise ConfigError("x", f"must be images of {shapes.text(expected)}, got {'x'.join(map(str, size))}")
        device = self.network.device
        seed, cache = self.config.split_seed, self._home.cache
        places = [self._home.datasets] if self.folder is None else folders.datasets_of(self.folder, self._home)
        return stored.read_first(places, lambda folder: images.unseen(pixels, spec, folder, seed, device, cache))


@checked
def train(
    preset: str,
    *,
    data: Data = "Digits",
    data_unsup: Data | None = None,
    seed: int = 0,
    epochs: int | None = None,
    epochs_unsup: int | None = None,
    overrides: Mapping[str, object] | None = None,
    training_mode: str | None = None,
    training_blocks: Iterable[int] | None = None,
    protocol: Iterable[str] = (),
    probes: Iterable[str] = (),
    validation: float = 0.0,
    device: str = "auto",
    threads: int | None = None,
    plugins: Iterable[str] = (),
    preset_file: str | Path | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    carry_on: bool = False,
    data_dir: str | Path | None = None,
    progress: bool = False,
) -> TrainedRun:
    """Train one network. The same arguments give the same bits as ``hebb train``.

    Args:
        preset: a name of ``preset.json``, or the network itself, such as ``"Soft-c96-k5-p2:bn:relu BP:flatten"``.
        data: images and labels of the supervised phases and of the evaluation: the name of a dataset, or arrays
            ``(x, y)`` or ``(x, y, x_test, y_test)``. Arrays have the layouts of ``npz:`` files, or (N, D). uint8 is
            divided by 255; floats are taken as they are. Labels may be numbers or words.
        data_unsup: images of the unsupervised phases, which may come without labels; None takes ``data``.
        seed: of weights, order, dropout and augmentation.
        epochs: passes over ``data`` in a phase; None takes those of the dataset's variant (1 for arrays).
        epochs_unsup: the same for ``data_unsup``.
        overrides: single values by the paths of ``--set``: ``{"b0.layer.lr": 0.05, "dataset_sup.batch_size": 32}``.
        training_mode: ``successive``, ``consecutive``, ``simultaneous``; None takes what the preset prefers.
        training_blocks: blocks that learn; the others stay random. None trains all.
        protocol: named groups of changes, applied before ``overrides``.
        probes: readouts of the blocks at the end: ``linear``, ``knn``, ``neuron``, ``short``, ``geometry``.
        validation: share of the training images that is held out.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads; they decide the last bits of sums. None takes one for each core.
        plugins: Python files or modules that register rules, activations, datasets or modes.
        preset_file: presets of your own, over the shipped ones.
        folder: where the run is stored; None keeps nothing on disk.
        overwrite: replace what the folder holds.
        carry_on: continue the run in the folder, with the same arguments; a finished one is returned as it is.
        data_dir: parent folder of datasets and caches; None takes ``$HEBB_HOME``, else ``./hebb_data``.
        progress: show the phases and epochs, as the command does.

    Raises:
        ConfigError: for arguments that cannot be used, before anything is written.
        DivergenceError: when weights or loss stop being finite.
    """
    config, named, index = describe(
        preset,
        data=data,
        data_unsup=data_unsup,
        epochs=epochs,
        epochs_unsup=epochs_unsup,
        overrides=overrides,
        training_mode=training_mode,
        protocol=protocol,
        validation=validation,
        device=device,
        plugins=plugins,
        preset_file=preset_file,
        seed=seed,
        training_blocks=training_blocks,
        probes=probes,
        threads=cores() if threads is None else threads,
    )
    plan.phases(config)
    shapes.of_run(config)
    home = Home.find(None if data_dir is None else str(data_dir))
    place = Place(
        datasets=home.datasets,
        folder=None if folder is None else Path(folder).absolute(),
        device_index=index,
        overwrite=overwrite,
        carry_on=carry_on,
        layers=home.layers,
        cache=home.cache if folder is not None else None,
    )
    if carry_on:
        config = _continued(config, place)
        if place.folder is not None and folders.state(place.folder) == FolderState.FINISHED:
            return read_run(place.folder, home, named)
    with _report(progress) as report, _torch_settings():
        result = trainer.run(config, report, place=place)
    return of_result(result, home, named)


def describe(
    preset: str,
    *,
    data: Data,
    data_unsup: Data | None,
    epochs: int | None,
    epochs_unsup: int | None,
    overrides: Mapping[str, object] | None,
    training_mode: str | None,
    protocol: Iterable[str],
    validation: float,
    device: str,
    plugins: Iterable[str],
    preset_file: str | Path | None,
    seed: int,
    training_blocks: Iterable[int] | None,
    probes: Iterable[str],
    threads: int,
) -> tuple[RunConfig, data_argument.NamedData, int]:
    """Return the config that the arguments of ``train`` or ``search`` describe, its data, and the number of the GPU."""
    builtin.load()
    plugin_files.load(plugins, "plugins")
    catalog = catalogs.load(None if preset_file is None else Path(preset_file))
    named = data_argument.named(
        catalog, data, data_unsup, epochs=epochs, epochs_unsup=epochs_unsup, validation=validation
    )
    kind, index = vocabulary.device(device, "device", (DeviceKind.AUTO,))
    config = compose.run_config(
        catalog,
        catalog.network(preset, "preset"),
        (named.sup, named.unsup),
        mode=training_mode,
        protocols=protocol,
        changes={path: _written(value) for path, value in (overrides or {}).items()},
        names={"mode": "training_mode"},
        device=kind,
        seed=seed,
        training_blocks=None if training_blocks is None else tuple(training_blocks),
        probes=tuple(probes),
        threads=threads,
    )
    return config, named, index


def _class_names(config: RunConfig) -> np.ndarray:
    """Return what a dataset with a name calls its classes."""
    return np.array(DATASETS.get(config.dataset_sup.dataset, "dataset_sup").class_names or range(config.classes))


@checked
def network_of(preset: str) -> NetworkSpec:
    """Return the blocks of a preset."""
    builtin.load()
    return catalogs.load().network(preset, "preset")


def _written(value: object) -> object:
    """Return a value as ``--set`` writes it: a list of labels is ``0,1,2``."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _continued(config: RunConfig, place: Place) -> RunConfig:
    """Return the config on the device of the run in the folder, which must be this very run."""
    if place.folder is None:
        raise ConfigError("carry_on", "needs a folder, which holds the run")
    path = place.folder / folders.CONFIG
    if not path.exists():
        return config
    before = folders.read_json(path)
    if not isinstance(before, dict):
        raise ConfigError(str(path), "is not the config.json of a run")
    before.pop("phases", None)
    begun = serialise.run_from_json(before, str(path))
    if config.device == DeviceKind.AUTO:
        config = replace(config, device=begun.device)
    if config == begun:
        return config
    what = ", ".join(changes_of.differing(changes_of.everything(begun), changes_of.everything(config)))
    raise ConfigError("carry_on", f"{place.folder} holds another run: {what}", hint="choose another folder")


def of_result(result: Result, home: Home, named: data_argument.NamedData | None = None) -> TrainedRun:
    """Return the run of a trainer's result."""
    return TrainedRun(
        result.config,
        result.rows,
        [vars(probe) for probe in result.probes],
        [shape.row for shape in result.geometry],
        result.seconds,
        points=result.points,
        home=home,
        folder=result.folder,
        network=result.network,
        arrays=named,
    )


def read_run(folder: Path, home: Home, named: data_argument.NamedData | None = None) -> TrainedRun:
    """Return the finished run in a folder."""
    from hebb.analysis import runs

    run = runs.read_run(folder)
    return TrainedRun(
        run.config,
        run.rows,
        run.probes,
        run.geometry,
        run.seconds,
        points=run.points,
        home=home,
        folder=folder,
        arrays=named,
    )


@contextlib.contextmanager
def _report(progress: bool) -> Iterator[Report]:
    if not progress:
        yield Report()
        return
    from hebb.cli.run_display import ConsoleReport

    report = ConsoleReport()
    try:
        yield report
    finally:
        report.close()


@contextlib.contextmanager
def _torch_settings() -> Iterator[None]:
    """Restore the threads, number type and random state of the program that calls."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
