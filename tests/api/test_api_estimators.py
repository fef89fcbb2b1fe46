"""The scikit-learn estimators, judged by scikit-learn's own contract.

Without it a pipeline or a grid search of scikit-learn could refit, clone or score a network wrongly.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import hebb

SKIPPED = {"check_array_api_input": "SCIPY_ARRAY_API is not set"}
"""Checks that scikit-learn itself leaves out here, and why."""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # the checks give bad input on purpose
@pytest.mark.parametrize(
    "estimator", [hebb.HebbClassifier(epochs=5), hebb.HebbFeatures()], ids=lambda e: type(e).__name__
)
def test_scikit_learns_own_checks(estimator: object) -> None:
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    outcome = {r["check_name"]: (r["status"], str(r["exception"])) for r in results if r["status"] != "passed"}
    for name, (status, reason) in outcome.items():
        assert status == "skipped", f"{name}: {reason}"
        assert SKIPPED[name] in reason
    assert len(results) > 40


def test_a_pipeline_and_a_grid_search() -> None:
    """Hebbian features below a logistic regression; a search over the rate. 10 % would be chance."""
    x, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(hebb.HebbFeatures(), LogisticRegression(max_iter=500)).fit(x[:1000], y[:1000])
    assert pipeline.score(x[1000:], y[1000:]) > 0.85
    space = {"overrides": [{"b0.layer.lr": 0.01}, {"b0.layer.lr": 0.1}]}
    search = GridSearchCV(hebb.HebbClassifier(epochs=5), space, cv=2).fit(x[:600], y[:600])
    assert set(search.best_params_["overrides"]) == {"b0.layer.lr"}


def test_images_of_a_convolutional_network() -> None:
    """Rows with an input shape are the images themselves; labels may be words."""
    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32)[:300], np.array(list("abcdefghij"))[digits.target[:300]]
    preset = "SoftKrotov-c12-k3-p1:bn:triangle:max_2_2_0 BP:flatten"
    by_image = hebb.HebbClassifier(preset, epochs=5).fit(x, y)
    by_row = hebb.HebbClassifier(preset, epochs=5, input_shape=(8, 8)).fit(x.reshape(300, 64), y)
    np.testing.assert_array_equal(by_image.predict(x), by_row.predict(x.reshape(300, 64)))
    np.testing.assert_allclose(by_image.predict_proba(x).sum(axis=1), 1)
    assert by_image.score(x, y) > 0.8
    features = hebb.HebbFeatures(preset).fit_transform(x)
    assert features.shape == (300, 12 * 4 * 4)


def test_a_transformer_leaves_the_last_block_untrained() -> None:
    """Its labels are made up, so nothing may learn from them: any labels give the same features."""
    x, y = load_digits(return_X_y=True)
    one, two = hebb.HebbFeatures().fit(x[:200]), hebb.HebbFeatures().fit(x[:200], y[:200])
    np.testing.assert_array_equal(one.transform(x[:20]), two.transform(x[:20]))
    assert set(one.run_.history["kind"]) == {"hebbian"}
    with pytest.raises(hebb.ConfigError, match="no Hebbian block"):
        hebb.HebbFeatures("BP-c5:flatten BP").fit(x[:20])
