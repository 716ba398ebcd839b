"""Features brought down to two dimensions, to be looked at."""

from typing import Literal

import numpy as np
from jaxtyping import Float

Method = Literal["tsne", "umap", "pca"]

_COMPONENTS = 50  # that PCA leaves to t-SNE and UMAP, which look at distances of all pairs


def flat(values: Float[np.ndarray, "n d"], method: Method, *, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Rows of unit length, by PCA to 50 dimensions and then by ``method`` to two."""
    from sklearn.decomposition import PCA

    unit = values.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(float).tiny)
    left = min(2 if method == "pca" else _COMPONENTS, *unit.shape)
    reduced = PCA(left, random_state=seed).fit_transform(unit)
    if method == "pca":
        return reduced if reduced.shape[1] == 2 else np.pad(reduced, ((0, 0), (0, 1)))
    if method == "umap":
        import umap

        return umap.UMAP(n_components=2, metric="euclidean", random_state=seed).fit_transform(reduced)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(reduced) - 1) / 3)
    init = "pca" if reduced.shape[1] >= 2 else "random"
    return TSNE(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(reduced)


def turned(moving: Float[np.ndarray, "n 2"], still: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """A map turned, or mirrored, to lie as much as possible like another one: a map has no up and no left."""
    from scipy.linalg import orthogonal_procrustes

    centered = moving - moving.mean(axis=0)
    rotation, _ = orthogonal_procrustes(centered, still - still.mean(axis=0))
    return centered @ rotation
