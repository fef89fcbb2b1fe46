"""``hebb.HebbClassifier`` and ``hebb.HebbFeatures``: networks as scikit-learn estimators.

Shapes: N samples, D values of a sample, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, column_or_1d, validate_data

from hebb.api import runs
from hebb.api.runs import TrainedRun
from hebb.core.errors import ConfigError

PRESET = "SoftKrotov-c256-t1-lr0.05-r5:flatten:batchnorm1d:triangle:bn_after BP"
"""The default network: an MLP of one Hebbian block, for values of any scale, because a batch norm comes first."""
_BATCH = 32


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and transformer have in common: parameters, checks and training."""

    run_: TrainedRun

    def __init__(
        self,
        preset: str = PRESET,
        *,
        input_shape: tuple[int, ...] | None = None,
        epochs: int = 20,
        epochs_unsup: int = 1,
        batch_size: int | None = None,
        overrides: Mapping[str, object] | None = None,
        training_mode: str | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        random_state: Any = 0,
    ) -> None:
        self.preset = preset
        self.input_shape = input_shape
        self.epochs = epochs
        self.epochs_unsup = epochs_unsup
        self.batch_size = batch_size
        self.overrides = overrides
        self.training_mode = training_mode
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def _train(self, x: np.ndarray, y: np.ndarray, **more: Any) -> TrainedRun:
        """Train the network on images."""
        if len(x) < 2:
            raise ValueError(f"n_samples = {len(x)} is too few: a batch norm needs at least two samples")
        size = self.batch_size or _BATCH
        while self.batch_size is None and len(x) % size == 1:  # a batch norm cannot read a last batch of one
            size += 1
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        batches = {"dataset_sup.batch_size": size, "dataset_unsup.batch_size": size}
        with _any_scale():
            return runs.train(
                self.preset,
                data=(x, y),
                seed=int(seed),
                epochs=self.epochs,
                epochs_unsup=self.epochs_unsup,
                overrides={**batches, **(self.overrides or {})},
                training_mode=self.training_mode,
                device=self.device,
                threads=self.threads,
                **more,
            )

    def _images(self, x: np.ndarray) -> np.ndarray:
        """Return samples as images of ``input_shape``."""
        if self.input_shape is None:
            return x
        shape = tuple(self.input_shape)
        if x.ndim == 2 and x.shape[1] == int(np.prod(shape)):
            return x.reshape(len(x), *shape)
        if x.shape[1:] != shape:
            raise ConfigError("input_shape", f"must be the shape of a sample, {x.shape[1:]}, got {shape}")
        return x

    def _checked(self, x: Any, *, reset: bool) -> np.ndarray:
        array: np.ndarray = validate_data(
            self, x, dtype=[np.float32, np.float64, np.uint8], allow_nd=True, reset=reset, ensure_min_samples=1
        )
        return self._images(array)

    def _asked(self, method: str, samples: Any, *arguments: Any) -> np.ndarray:
        """Return what a method of the finished run answers about samples."""
        check_is_fitted(self, "run_")
        x = self._checked(samples, reset=False)
        with _any_scale():
            result: np.ndarray = getattr(self.run_, method)(x, *arguments)
        return result


class HebbClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """Train a network on labelled samples, and predict labels.

    Args:
        preset: a name of ``preset.json``, or the network itself.
        input_shape: shape of a sample, (H, W), (H, W, C) or (C, H, W), for rows of D values; None takes them as rows.
        epochs: passes over the samples in each supervised phase.
        epochs_unsup: passes in each Hebbian phase.
        batch_size: samples of an update; None takes 32, or a few more where the last batch would be a single sample.
        overrides, training_mode, device, threads: as in ``hebb.train``.
        random_state: the seed, a whole number; a generator or None draws one.

    Attributes:
        classes_: the labels.
        run_: the finished run (``hebb.TrainedRun``), with its network and metrics.
        n_features_in_: D, or the length of the first axis of an image.

    uint8 is divided by 255; other numbers are taken as they are.
    """

    def fit(self, X: Any, y: Any) -> HebbClassifier:  # noqa: N803
        """Train the network."""
        x = self._checked(X, reset=True)
        y = _labels(x, y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"the labels must have at least two classes, got one class: {self.classes_[0]}")
        self.run_ = self._train(x, np.searchsorted(self.classes_, y))
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the label of each sample."""
        places = self._asked("predict", X)
        labels: np.ndarray = self.classes_[places]
        return labels

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the outputs of the network, (N, classes); of two classes the difference, (N,)."""
        logits = self._asked("logits", X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the softmax of the outputs, (N, classes)."""
        logits = self._asked("logits", X).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
        return probabilities


class HebbFeatures(TransformerMixin, _Estimator):  # type: ignore[misc]
    """Train the Hebbian blocks of a network without labels, and return what a block answers.

    Args:
        block: whose output is returned, flattened.
        preset, input_shape, epochs_unsup, batch_size, overrides, training_mode, device, threads, random_state: as in
            ``HebbClassifier``; back-prop blocks above the last Hebbian one are not trained.

    Attributes:
        run_: the finished run.
    """

    def __init__(
        self,
        preset: str = PRESET,
        *,
        block: int = 0,
        input_shape: tuple[int, ...] | None = None,
        epochs_unsup: int = 1,
        batch_size: int | None = None,
        overrides: Mapping[str, object] | None = None,
        training_mode: str | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            preset,
            input_shape=input_shape,
            epochs_unsup=epochs_unsup,
            batch_size=batch_size,
            overrides=overrides,
            training_mode=training_mode,
            device=device,
            threads=threads,
            random_state=random_state,
        )
        self.block = block

    def __sklearn_tags__(self) -> Any:
        """Say that the output is float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> HebbFeatures:  # noqa: N803
        """Train the Hebbian blocks; ``y`` is not read."""
        del y
        x = self._checked(X, reset=True)
        network = runs.network_of(self.preset)
        hebbian = [i for i, block in enumerate(network.blocks) if block.hebbian and not block.supervised]
        if not hebbian:
            raise ConfigError("preset", f"has no Hebbian block to train: '{self.preset}'")
        # the labels shape the last block, which stays untrained
        self.run_ = self._train(x, np.arange(len(x)) % 2, training_blocks=hebbian)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the output of the block for each sample, flattened: (N, features)."""
        features = self._asked("features", X, self.block)
        return features.reshape(len(features), -1)


@contextlib.contextmanager
def _any_scale() -> Iterator[None]:
    """Warn of no value above 1: the default network has a batch norm first, and other networks are the user's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*floats are taken as they are")
        yield


def _labels(x: np.ndarray, y: Any) -> np.ndarray:
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = column_or_1d(y, warn=True)
    if y.shape != (len(x),):
        raise ValueError(f"y must be ({len(x)},), one label for each sample, got {y.shape}")
    check_classification_targets(y)
    labels: np.ndarray = y
    return labels
