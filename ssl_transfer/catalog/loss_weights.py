"""The authors' default weight of every transfer loss: plain data, importable without torch.

LabelRelaxation is tjddus9597/LabelRelaxation-CVPR21, RepDistiller is HobbitLong/RepDistiller
(``run_cifar_distill.sh``).
"""

WEIGHTS = {
    "relaxed_contrastive": 1.0,  # LabelRelaxation: the only loss
    "relaxed_multi_similarity": 1.0,  # LabelRelaxation: the only loss
    "rkd_distance": 1.0,  # LabelRelaxation; RepDistiller 25
    "rkd_angle": 2.0,  # LabelRelaxation; RepDistiller 50
    "pkt": 1.0,  # LabelRelaxation, under Adam; RepDistiller 30,000: a mean over n^2 entries is tiny
    "dark_rank": 1.0,  # LabelRelaxation
    "similarity_preserving": 3000.0,  # RepDistiller
    "correlation_congruence": 0.02,  # RepDistiller, whose form differs from the paper's
    "seed": 1.0,  # the only loss of SEED
    "fitnet": 1.0,  # LabelRelaxation, per map; RepDistiller 100 on one map
    "attention_transfer": 1.0,  # LabelRelaxation, per map; RepDistiller 1,000
    "vid": 1.0,  # RepDistiller, per map
    "contrastive_representation": 1.0,  # LabelRelaxation; RepDistiller 0.8
    "soft_targets": 0.9,  # RepDistiller, beside 0.1 of cross-entropy
}

# What a transfer weighs beside the cross entropy with labels, by its kind in a recipe: RepDistiller's, made for
# CIFAR-100 and SGD, where it has the loss; 1 where it does not and nothing else is published.
WITH_LABELS: dict[str, dict[str, float]] = {
    # Not published for this loss; recipes/README.md, "Labels beside a teacher", says how 1 was looked for.
    "relaxed_contrastive": {"cross_entropy": 1.0, "weight": 1.0},
    "relaxed_multi_similarity": {"cross_entropy": 1.0, "weight": 1.0},
    "rkd": {"cross_entropy": 1.0, "distance_weight": 25.0, "angle_weight": 50.0},
    "pkt": {"cross_entropy": 1.0, "weight": 30000.0},
    "dark_rank": {"cross_entropy": 1.0, "weight": 1.0},
    "similarity_preserving": {"cross_entropy": 1.0, "weight": 3000.0},  # theirs is on the last map, not the features
    "correlation_congruence": {"cross_entropy": 1.0, "weight": 0.02},
    "seed": {"cross_entropy": 1.0, "weight": 1.0},
    "fitnet": {"cross_entropy": 1.0, "weight": 100.0},
    "attention_transfer": {"cross_entropy": 1.0, "weight": 1000.0},
    "vid": {"cross_entropy": 1.0, "weight": 1.0},
    "crd": {"cross_entropy": 1.0, "weight": 0.8},
    "soft_targets": {"cross_entropy": 0.1, "weight": 0.9},
}
