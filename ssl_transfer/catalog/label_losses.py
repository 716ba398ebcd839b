"""The losses of metric learning, by the names of recipes, and their arguments."""

# The arguments of each loss that a recipe may set, and their defaults: of Kim et al., "Proxy anchor loss for deep
# metric learning" (CVPR 2020), section 4.2, and of Wang et al., "Multi-similarity loss" (CVPR 2019), as the library
# has it. The margins of the others are for embeddings of norm one, whose distances run from 0 to 2.
ARGUMENTS: dict[str, dict[str, float]] = {
    "proxy_anchor": {"margin": 0.1, "alpha": 32.0},
    "multi_similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5},
    "contrastive": {"pos_margin": 0.0, "neg_margin": 0.5},
    "triplet": {"margin": 0.1},
    "normalized_softmax": {"temperature": 0.05},
}

# Those that divide, or that a term would turn round with if they were negative.
POSITIVE = ("alpha", "beta", "temperature")
