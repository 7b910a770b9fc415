"""Terms that several objectives share. All compute in float32, whatever comes in."""

from embedkit.train.terms.arguments import require
from embedkit.train.terms.assignment import k_means, sinkhorn
from embedkit.train.terms.classifying import Classifying
from embedkit.train.terms.contrast import (
    Pairs,
    cross_view_similarity,
    first_found,
    image_pairs,
    log_mean_exp,
    pair_log_softmax,
    positive_first,
    squared_distances,
)
from embedkit.train.terms.masking import hide_blobs, hide_scattered
from embedkit.train.terms.memory import Queue, built, queued_pairs
from embedkit.train.terms.momentum import rising_momentum
from embedkit.train.terms.rotation import QUARTERS, quarter_turns
from embedkit.train.terms.spread import (
    covariance,
    covariance_penalty,
    cross_correlation,
    off_diagonal,
    standardised,
    variance_hinge,
)
from embedkit.train.terms.targets import divergence, soft_cross_entropy
from embedkit.train.terms.views import check_views, exact_product, unit

__all__ = [
    "QUARTERS",
    "Classifying",
    "Pairs",
    "Queue",
    "built",
    "check_views",
    "covariance",
    "covariance_penalty",
    "cross_correlation",
    "cross_view_similarity",
    "divergence",
    "exact_product",
    "first_found",
    "hide_blobs",
    "hide_scattered",
    "image_pairs",
    "k_means",
    "log_mean_exp",
    "off_diagonal",
    "pair_log_softmax",
    "positive_first",
    "quarter_turns",
    "queued_pairs",
    "require",
    "rising_momentum",
    "sinkhorn",
    "soft_cross_entropy",
    "squared_distances",
    "standardised",
    "unit",
    "variance_hinge",
]
