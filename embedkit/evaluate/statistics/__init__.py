"""Metrics and how sure they are; tests between two models; spread over training runs."""

from embedkit.evaluate.statistics.constant import constant_interval
from embedkit.evaluate.statistics.intervals import (
    FEW,
    LEVEL,
    CiMethod,
    Counts,
    Interval,
    Metric,
    Metrics,
    accuracy,
    bootstrap,
    clopper_pearson,
    content_seed,
    delong,
    resample_counts,
    robust_accuracy,
    wilson,
)
from embedkit.evaluate.statistics.jackknife import (
    GROUPS,
    jackknife_interval,
    jackknife_metric,
    random_groups,
)
from embedkit.evaluate.statistics.paired import (
    Difference,
    holm,
    mcnemar,
    paired_auroc,
    paired_mean,
    sign_flip,
)
from embedkit.evaluate.statistics.seeds import Spread, over_seeds

__all__ = [
    "FEW",
    "GROUPS",
    "LEVEL",
    "CiMethod",
    "Counts",
    "Difference",
    "Interval",
    "Metric",
    "Metrics",
    "Spread",
    "accuracy",
    "bootstrap",
    "clopper_pearson",
    "constant_interval",
    "content_seed",
    "delong",
    "holm",
    "jackknife_interval",
    "jackknife_metric",
    "mcnemar",
    "over_seeds",
    "paired_auroc",
    "paired_mean",
    "random_groups",
    "resample_counts",
    "robust_accuracy",
    "sign_flip",
    "wilson",
]
