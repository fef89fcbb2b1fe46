"""A layer's representation in two dimensions (Journe et al., ICLR 2023, figures 5 A, B and B.6).

Features are reduced to 100 principal components, then embedded by t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes
et al. 2018, the extra ``umap``). Distances and group sizes in such a map mean little. Its trustworthiness (Venna &
Kaski 2001) says how far neighbours in the map are neighbours among the features; it is 1 when all are.

Shapes: N images, D features.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hebb.analysis import style
from hebb.core import extras
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Method(StrEnum):
    """How features are embedded."""

    TSNE = "tsne"
    UMAP = "umap"


_TITLES = {Method.TSNE: "t-SNE", Method.UMAP: "UMAP"}
COMPONENTS = 100
PERPLEXITY = 50.0
NEIGHBOURS = 15
"""Neighbours for UMAP, as by its default, and for the trustworthiness."""


def reduced(features: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Return the principal components (N, min(components, N, D)) of features (N, D), with scikit-learn's signs."""
    from sklearn.decomposition import PCA

    components = min(components, *features.shape)
    points: np.ndarray = PCA(components, random_state=seed).fit_transform(features)
    return points


def plane(
    features: np.ndarray,
    method: Method,
    *,
    seed: int = 0,
    components: int = COMPONENTS,
    perplexity: float = PERPLEXITY,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Return the map (N, 2) of features (N, D); the same seed gives the same map.

    Args:
        features: one row an image.
        method: how they are embedded.
        seed: seed of the principal components and of the method.
        components: number of principal components to embed.
        perplexity: for t-SNE; it must be less than a third of the number of images.
        neighbours: for UMAP.

    Raises:
        ConfigError: when UMAP is not installed, a feature is not finite, or there are too few images.
    """
    if not np.isfinite(features).all():
        raise ConfigError("embed", "the features are not all finite")
    least, flag = (int(3 * perplexity) + 1, "perplexity") if method == Method.TSNE else (neighbours + 2, "neighbours")
    least = max(least, 3)  # or no image has a neighbour that is not all others
    if len(features) < least:
        problem = f"{len(features)} images are too few, {least} are needed"
        raise ConfigError("embed", problem, hint=f"give more --images, or a smaller --{flag}")
    few = reduced(features.astype(np.float64), components, seed)
    return _fit(few, method, seed, perplexity, neighbours).astype(np.float64)


def _fit(few: np.ndarray, method: Method, seed: int, perplexity: float, neighbours: int) -> np.ndarray:
    if method == Method.TSNE:
        from sklearn.manifold import TSNE

        tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        return np.asarray(tsne.fit_transform(few))
    extras.require("--method umap", "umap", extra="umap")
    from umap import UMAP

    return np.asarray(UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(few))


def trust(features: np.ndarray, points: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return the trustworthiness of a map (N, 2), by Euclidean distances.

    It is defined for fewer neighbours than N / 2; of fewer images as many are taken as that allows.
    """
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(features, points, n_neighbors=min(neighbours, (len(points) - 1) // 2)))


def table(
    layers: dict[str, np.ndarray],
    labels: np.ndarray,
    method: Method,
    *,
    seed: int = 0,
    components: int = COMPONENTS,
    perplexity: float = PERPLEXITY,
    neighbours: int = NEIGHBOURS,
) -> pd.DataFrame:
    """Embed each layer (N, D): one line an image and layer, with layer, image, label, x, y, trustworthiness."""
    frames = []
    for name, features in layers.items():
        points = plane(features, method, seed=seed, components=components, perplexity=perplexity, neighbours=neighbours)
        x, y = points.T
        columns = {"layer": name, "image": np.arange(len(points)), "label": labels, "x": x, "y": y}
        frames.append(pd.DataFrame(columns).assign(trustworthiness=trust(features, points)))
    return pd.concat(frames, ignore_index=True)


@style.drawn
def draw(frame: pd.DataFrame, method: Method, title: str) -> Figure:
    """Draw the maps of the layers side by side, one colour a class; images without a label are grey."""
    import matplotlib

    layers, labels = list(dict.fromkeys(frame["layer"])), sorted(set(frame["label"]))
    classes = [label for label in labels if label >= 0]
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"]
    figure, axes = style.figure(1, len(layers), width=3.4, height=3.4, squeeze=False)
    for panel, layer in zip(axes[0], layers, strict=True):
        points = frame[frame["layer"] == layer]
        for i, label in enumerate(labels):
            group = points[points["label"] == label]
            place = classes.index(label) if label >= 0 else 0
            colour = style.GREY if label < 0 else colours(place if len(classes) <= 10 else place / (len(classes) - 1))
            name = "no label" if label < 0 else str(label)
            panel.scatter(group["x"], group["y"], s=4, color=colour, linewidths=0, label=name, zorder=2 + i / 100)
        style.label(panel, f"{_TITLES[method]} 1", f"{_TITLES[method]} 2" if panel is axes[0][0] else "")
        panel.set_title(f"{layer} (trustworthiness {points['trustworthiness'].iloc[0]:.3f})")
        panel.set_xticks([])
        panel.set_yticks([])
    if len(labels) <= 20:
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", title="class", markerscale=3)
    figure.suptitle(title, fontsize=10)
    return figure
