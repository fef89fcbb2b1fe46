"""Measures the published SoftHebb code from inside: started by `published.py`, in a process and folder of its own.

    python benchmarks/published_code.py REQUEST.json ANSWER.json

Its modules have the names of ours (`train`, `engine`, `model`), hence the process; it reads `presets.json` from the
current folder, hence the folder. Nothing of it is changed: its training functions are run as they are, on loaders that
look at the clock whenever they are asked for a batch and end early. Turned off is what differs from a run of ours: it
writes no checkpoint, and its CIFAR-10 class is given our images in memory in place of a download.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
TRAIN, TEST = 0, 1


class Timed:
    """A loader that notes when each batch is asked for, and ends after ``most`` batches.

    Attributes:
        seconds: time between two requests: the loader's work and all that was done with the batch.
        images: number of images of each batch.
    """

    def __init__(self, loader: Any, most: int | None = None) -> None:
        self.loader, self.dataset = loader, loader.dataset
        self.most = len(loader) if most is None else min(most, len(loader))
        self.seconds: list[float] = []
        self.images: list[int] = []

    def __len__(self) -> int:
        return self.most

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        for _ in range(self.most):
            began = time.perf_counter()
            batch = next(batches)
            self.images.append(len(batch[1]))
            yield batch
            self.seconds.append(time.perf_counter() - began)


class Resident:
    """Stands in for torchvision's CIFAR10: the images a run of ours reads, in the layout of torchvision."""

    splits: tuple[Any, Any] = (None, None)

    def __init__(self, *_: Any, train: bool = True, **__: Any) -> None:
        images, labels = self.splits[TRAIN if train else TEST]
        self.train = train
        self.data = images.permute(0, 2, 3, 1).numpy()
        self.targets = labels.tolist()

    def __len__(self) -> int:
        return len(self.data)


class Checkout:
    """The published code, imported from the current folder, with a network of it.

    Args:
        request: what `published.py` asks for.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self._give_images()
        names = ("utils", "model", "train", "engine", "dataset", "log")
        self.utils, self.model, self.train, self.engine, self.dataset, self.log = map(importlib.import_module, names)
        self.data = {name: self._dataset(name) for name in ("unsup", "sup")}
        self.utils.seed_init_fn(request["seed"])
        blocks = self.train.check_dimension(self.utils.load_presets(request["preset"]), self.data["sup"])
        self.phases = self.train.training_config(blocks, self.data["sup"], self.data["unsup"], "successive")
        self.device = torch.device("cpu")
        self.network = self.model.load_layers(blocks, request["preset"], None, verbose=False).to(self.device)

    def _give_images(self) -> None:
        """Put our images in the place of torchvision's dataset, before the published code derives classes from it."""
        from hebb import builtin
        from hebb.config.registry import DATASETS
        from hebb.data import sources

        builtin.load()
        entry, folder = DATASETS.get("CIFAR10", "CIFAR10"), Path(self.request["datasets"])
        Resident.splits = (sources.read(entry, folder, train=True), sources.read(entry, folder, train=False))
        sources.declare_missing_operators()
        datasets = importlib.import_module("torchvision.datasets")
        datasets.CIFAR10 = Resident  # type: ignore[attr-defined]

    def _dataset(self, name: str) -> Any:
        """Return the dataset's config with the seed, epochs, batches and evaluation cadence of ours."""
        ours = self.request["data"][name]
        config = self.utils.load_config_dataset(ours["name"], False)
        return config | {
            "seed": self.request["seed"],
            "nb_epoch": ours["epochs"],
            "batch_size": ours["batch_size"],
            "print_freq": ours["print_freq"],
        }

    def measure(self) -> dict[str, Any]:
        """Measure some steps of each Hebbian phase, one classifier epoch and one evaluation."""
        hebbian, whole = [], True
        for phase in self._phases("unsupervised"):
            most = None if self.request["steps"] is None else self.request["warm_up"] + self.request["steps"]
            timed = self._loader("unsup", phase, most)
            self.engine.train_unsup(self.network, timed, self.device, phase["blocks"])
            warm_up = min(self.request["warm_up"], len(timed.seconds) // 2)
            whole = whole and most is None and phase["nb_epoch"] == 1
            hebbian.append(
                {"blocks": phase["blocks"], "batches": len(timed.loader), "seconds": timed.seconds[warm_up:]}
            )
        phase, *others = self._phases("supervised")
        if others:
            raise ValueError("a preset with one classifier phase is wanted")
        timed = self._loader("sup", phase, self._batches(phase["batch_size"]))
        self._classify(timed, phase)
        evaluation, accuracy = self._evaluate()
        return {
            "hebbian": hebbian,
            "classifier": {"seconds": timed.seconds, "images": timed.images, "batches": len(timed.loader)},
            "evaluation": evaluation,
            "accuracy": accuracy if whole and self.request["classifier_images"] is None else None,
        }

    def run(self) -> dict[str, Any]:
        """Train everything, as the published command does but without saving, and return time and accuracy."""
        logs, metrics = self.log.Log(self.phases), {}
        began = time.perf_counter()
        for name, phase in self.phases.items():
            hebbian = phase["mode"] == "unsupervised"
            arguments = [phase["nb_epoch"], phase["print_freq"], phase["batch_size"]]
            arguments += [] if hebbian else [phase["lr"]]
            arguments += [self.request["preset"], self.data["unsup" if hebbian else "sup"], self.network, self.device]
            run = self.train.run_unsup if hebbian else self.train.run_sup
            log = (logs.unsup if hebbian else logs.sup)[name]
            run(*arguments, log, blocks=phase["blocks"], save=False, report=lambda **row: metrics.update(row))
        return {"seconds": time.perf_counter() - began, "accuracy": float(metrics["test_acc"])}

    def _phases(self, mode: str) -> list[dict[str, Any]]:
        return [phase for phase in self.phases.values() if phase["mode"] == mode]

    def _loader(self, name: str, phase: dict[str, Any], most: int | None) -> Timed:
        return Timed(self.dataset.make_data_loaders(self.data[name], phase["batch_size"], self.device)[TRAIN], most)

    def _batches(self, batch_size: int) -> int | None:
        images = self.request["classifier_images"]
        return None if images is None else max(2, -(-images // batch_size))

    def _classify(self, timed: Timed, phase: dict[str, Any]) -> None:
        """Train the classifier on the batches of ``timed``, with the optimiser the published code makes."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=phase["lr"])
        measures = self.log.LogSup(phase).new_log_batch()
        criterion = torch.nn.CrossEntropyLoss()
        self.engine.train_sup(self.network, criterion, optimiser, timed, self.device, measures, "BP", phase["blocks"])

    def _evaluate(self) -> tuple[dict[str, Any], float]:
        """Return time and accuracy of an evaluation on the test images, or on as many as were asked for."""
        loader = self.dataset.make_data_loaders(self.data["sup"], 1000, self.device)[TEST]
        timed = Timed(loader, self._batches(1000))
        _, accuracy = self.engine.evaluate_sup(self.network, torch.nn.CrossEntropyLoss(), timed, self.device)
        return {"seconds": timed.seconds, "images": timed.images, "batches": len(loader)}, float(accuracy)

    def evaluate_ours(self) -> dict[str, Any]:
        """Return the accuracy that the published code measures for our trained network, and on how many images."""
        stored = torch.load(self.request["weights"], weights_only=True)["model"]
        ours = {name.replace(".before.", ".operations."): tensor for name, tensor in stored.items()}
        self.network.load_state_dict(ours)
        evaluation, accuracy = self._evaluate()
        return {"accuracy": accuracy, "images": sum(evaluation["images"])}


def main() -> None:
    """Answer the request; what the published code prints goes to stderr."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_flush_denormal(request["flush"])  # its threads, which begin later, inherit it
    torch.set_num_threads(request["threads"])
    sys.path[0] = str(Path.cwd())  # the checkout, in place of the folder of this file
    sys.path.append(str(ROOT))
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkout = Checkout(request)
        answer = checkout.run() if request["whole"] else checkout.measure()
        answer["our_network"] = checkout.evaluate_ours()
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
