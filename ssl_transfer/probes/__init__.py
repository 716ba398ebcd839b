"""Evaluators of features and labels, which know no model, recipe or trainer.

Features are matrices with a row for each image, and labels the number of each image's class. A probe takes features of
any floating or integer type, size and scale, and refuses in one sentence what it cannot score.
"""

from ssl_transfer.probes.agreement import (
    Agreement,
    agreement,
    distance_spearman,
    linear_cka,
    neighbor_overlap,
    retention,
)
from ssl_transfer.probes.attentive import AttentiveProbeResult, attentive_probe
from ssl_transfer.probes.classification import ClassificationScores, classification, expected_calibration_error
from ssl_transfer.probes.clustering import ClusteringScores, clustering
from ssl_transfer.probes.features import Features, extract_features, load_feature_file, raw_pixels
from ssl_transfer.probes.few_shot import FewShotScore, few_shot
from ssl_transfer.probes.finetune import FinetuneResult, finetune
from ssl_transfer.probes.health import alignment, effective_rank, uniformity
from ssl_transfer.probes.knn import knn_accuracy, knn_leave_one_out, knn_predict
from ssl_transfer.probes.layers import PooledLayer
from ssl_transfer.probes.linear import DEFAULT_GRID, LinearProbeResult, linear_probe
from ssl_transfer.probes.multi_label import mean_average_precision, multi_label_probe
from ssl_transfer.probes.nearest_neighbors import Neighbors, nearest
from ssl_transfer.probes.retrieval import RetrievalScores, retrieval
from ssl_transfer.probes.sgd import SgdProbeResult, sgd_probe
from ssl_transfer.probes.transfer import PENALTIES, TransferProbeResult, mean_per_class, transfer_probe

__all__ = [
    "Agreement",
    "AttentiveProbeResult",
    "ClassificationScores",
    "ClusteringScores",
    "DEFAULT_GRID",
    "Features",
    "FewShotScore",
    "FinetuneResult",
    "LinearProbeResult",
    "Neighbors",
    "PENALTIES",
    "PooledLayer",
    "RetrievalScores",
    "SgdProbeResult",
    "TransferProbeResult",
    "agreement",
    "alignment",
    "attentive_probe",
    "classification",
    "clustering",
    "distance_spearman",
    "effective_rank",
    "expected_calibration_error",
    "extract_features",
    "few_shot",
    "finetune",
    "knn_accuracy",
    "knn_leave_one_out",
    "knn_predict",
    "linear_cka",
    "linear_probe",
    "load_feature_file",
    "nearest",
    "mean_average_precision",
    "mean_per_class",
    "multi_label_probe",
    "neighbor_overlap",
    "raw_pixels",
    "retention",
    "retrieval",
    "sgd_probe",
    "transfer_probe",
    "uniformity",
]
