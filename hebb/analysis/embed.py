"""A layer's representation in two dimensions (Journe et al., ICLR 2023, figures 5 A, B and B.6).

Features are reduced to 100 principal components, then embedded by t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes
et al. 2018, the extra ``umap``). Distances and sizes of groups in such a map mean little; its trustworthiness (Venna &
Kaski 2001) says how far neighbours in the map were neighbours before: 1 for all.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hebb.analysis import style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {"tsne": "t-SNE", "umap": "UMAP"}
COMPONENTS = 100
PERPLEXITY = 50.0
NEIGHBOURS = 15
"""Of UMAP, its own default; of the trustworthiness too."""


def reduced(features: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Return the principal components (N, min(components, N, D)) of features (N, D), their signs by a convention."""
    from sklearn.decomposition import PCA

    components = min(components, *features.shape)
    return PCA(components, random_state=seed).fit_transform(features)


def plane(
    features: np.ndarray,
    method: str,
    *,
    seed: int = 0,
    components: int = COMPONENTS,
    perplexity: float = PERPLEXITY,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Return the map (N, 2) of features (N, D); the same seed gives the same map.

    Args:
        features: one row an image.
        method: ``tsne`` or ``umap``.
        seed: of the principal components and of the method.
        components: principal components that it reads.
        perplexity: of t-SNE; fewer than a third of the images can have it.
        neighbours: of UMAP.

    Raises:
        ConfigError: for an unknown method, UMAP that is not installed, features that are not finite, too few images.
    """
    if method not in METHODS:
        raise ConfigError("--method", f"unknown '{method}'", given=method, choices=METHODS)
    if not np.isfinite(features).all():
        raise ConfigError("embed", "the features are not all finite")
    least = int(3 * perplexity) + 1 if method == "tsne" else neighbours + 2
    if len(features) < least:
        hint = "--perplexity" if method == "tsne" else "--neighbours"
        raise ConfigError(
            "embed", f"{len(features)} images are too few, {least} are needed", hint=f"give more, or a smaller {hint}"
        )
    few = reduced(features.astype(np.float64), components, seed)
    return np.asarray(_fit(few, method, seed, perplexity, neighbours), dtype=np.float64)


def _fit(few: np.ndarray, method: str, seed: int, perplexity: float, neighbours: int) -> Any:
    if method == "tsne":
        from sklearn.manifold import TSNE

        return TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(few)
    if importlib.util.find_spec("umap") is None:
        raise ConfigError("--method umap", "umap-learn is not installed", hint="pip install -e '.[umap]', or take tsne")
    from umap import UMAP

    return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(few)


def trust(features: np.ndarray, found: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return the trustworthiness of a map, by Euclidean distances of the features; needs 2 neighbours + 1 images."""
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(features, found, n_neighbors=neighbours))


def table(
    layers: dict[str, np.ndarray], labels: np.ndarray, method: str, *, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """Embed layers by name, each (N, D): one row an image and layer: layer, image, label, x, y, trustworthiness."""
    frames = []
    for name, features in layers.items():
        found = plane(features, method, seed=seed, **settings)
        columns = {"layer": name, "image": np.arange(len(found)), "label": labels, "x": found[:, 0], "y": found[:, 1]}
        frames.append(pd.DataFrame(columns).assign(trustworthiness=trust(features, found)))
    return pd.concat(frames, ignore_index=True)


@style.drawn
def draw(frame: pd.DataFrame, method: str, title: str) -> Figure:
    """Draw a map for each layer side by side, one colour a class; images without a label are grey."""
    import matplotlib

    layers, labels = list(dict.fromkeys(frame["layer"])), sorted(set(frame["label"]))
    classes = [label for label in labels if label >= 0]
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"]
    made, axes = style.figure(1, len(layers), width=3.4, height=3.4, squeeze=False)
    for panel, layer in zip(axes[0], layers, strict=True):
        mine = frame[frame["layer"] == layer]
        for i, label in enumerate(labels):
            group = mine[mine["label"] == label]
            place = classes.index(label) if label >= 0 else 0
            colour = style.GREY if label < 0 else colours(place if len(classes) <= 10 else place / (len(classes) - 1))
            name = "no label" if label < 0 else str(label)
            panel.scatter(group["x"], group["y"], s=4, color=colour, linewidths=0, label=name, zorder=2 + i / 100)
        style.label(panel, f"{METHODS[method]} 1", f"{METHODS[method]} 2" if panel is axes[0][0] else "")
        panel.set_title(f"{layer} (trustworthiness {mine['trustworthiness'].iloc[0]:.3f})")
        panel.set_xticks([])
        panel.set_yticks([])
    if len(labels) <= 20:
        handles, names = axes[0][0].get_legend_handles_labels()
        made.legend(handles, names, loc="outside right center", title="class", markerscale=3)
    made.suptitle(title, fontsize=10)
    return made
