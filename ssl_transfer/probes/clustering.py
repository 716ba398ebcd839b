"""Clustering: do groups found without labels agree with the classes?"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor

from ssl_transfer.probes.checks import check_labeled
from ssl_transfer.probes.nearest_neighbors import Metric
from ssl_transfer.probes.scaling import floating, rescaled, unit_rows


@dataclass(frozen=True)
class ClusteringScores:
    """Mutual information of clusters and classes: normalized, and adjusted for chance."""

    nmi: float
    ami: float
    n_clusters: int
    restarts: int
    normalization: str


@torch.no_grad()
def clustering(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    *,
    metric: Metric = "cosine",
    seed: int = 0,
    restarts: int = 10,
) -> ClusteringScores:
    """NMI and AMI of scikit-learn's k-means, with as many clusters as there are classes.

    Rows are brought to length one for the cosine ``metric`` and left as they are for the Euclidean one. Of ``restarts``
    runs, which are functions of ``seed``, the best by k-means' own objective counts; no label enters it. NMI grows with
    the number of clusters even for random ones, AMI does not.

    Raises:
        ValueError: rows are not finite or have no label.
    """
    check_labeled(x, y, "clustering")
    n_clusters = len(y.unique())
    rows = unit_rows(floating(x)) if metric == "cosine" else rescaled(floating(x))
    own = metric == "cosine"  # a copy already, which k-means may move to mean zero
    with warnings.catch_warnings():  # fewer different rows than clusters: a collapsed model, which its scores show
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(n_clusters, n_init=restarts, random_state=seed, copy_x=not own)
        clusters = means.fit_predict(rows.float().cpu().numpy())
    classes = y.cpu().numpy()
    return ClusteringScores(
        nmi=float(normalized_mutual_info_score(classes, clusters)),
        ami=float(adjusted_mutual_info_score(classes, clusters)),
        n_clusters=n_clusters,
        restarts=restarts,
        normalization="norm 1" if metric == "cosine" else "none",
    )
