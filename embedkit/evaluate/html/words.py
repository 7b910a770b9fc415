"""What the tasks and numbers of a report mean, in a sentence each."""

from collections.abc import Iterable

__all__ = ["ABOUT", "HEADLINES", "glossary"]

ABOUT = {
    "classify": (
        "Classification",
        "How often the bundle's own classifier, asked through the server, is right.",
    ),
    "knn": (
        "Nearest neighbours",
        "How often the nearest training images, weighted by similarity, vote for the right "
        "class. Nothing is trained.",
    ),
    "linear": (
        "Linear probe",
        "How often a linear classifier on the frozen features is right.",
    ),
    "ood": (
        "Out of distribution",
        "How well images of an unknown kind can be told from known ones.",
    ),
    "retrieval": (
        "Retrieval",
        "Whether a search for a test image among the training images finds its class first, "
        "through a collection of the server.",
    ),
    "robustness": (
        "Robustness",
        "How often the model is still right when someone changes each pixel by at most the "
        "radius. Every success was confirmed by the served model on 8-bit pixels.",
    ),
    "parity": (
        "Parity",
        "Whether the served model is the model that was trained: in numbers and in decisions.",
    ),
}
"""Title, and what is asked, by task; other tasks go by their name."""

HEADLINES = {
    "classify": r"top1",
    "knn": r"top1",
    "linear": r"top1",
    "ood": r".*\.auroc",
    "retrieval": r"map|map_at_r|recall_at_1|search_recall_at_10",
    "robustness": r"accuracy|(pgd|square)\.[^.]+\.accuracy",
    "parity": r"(torch|local)_vs_served\.(max_abs_error|knn_flips)",
}
"""Metrics of the summary by task, as patterns; of other tasks the first metric is taken."""

_GLOSSARY = {
    "top1": "share of test images whose most likely class is the right one",
    "auroc": "probability that a novel image scores higher than a known one; 0.5 is chance",
    "aupr_id_positive": "average precision with known images as the positive class",
    "aupr_ood_positive": "average precision with novel images as the positive class",
    "fpr95_id_positive": "share of novel images accepted when 95 % of known ones are accepted",
    "fpr95_ood_positive": "share of known images rejected when 95 % of novel ones are rejected",
    "map": "mean over queries of the precision at each relevant place, over all places",
    "map_at_r": "the same over the first R places, where R images are relevant",
    "ndcg_at_10": "first ten places, later ones counting less, over the best that is possible",
    "precision_at_10": "share of the first ten places that is of the query's class",
    "recall_at_1": "share of queries whose first place is of their class",
    "recall_at_10": "share of queries with an image of their class among the first ten places",
    "search_recall_at_10": "share of the ten truly nearest images that the search finds",
    "accuracy": "share of examined images that are classified correctly, clean or attacked",
    "twin_accuracy": (
        "the same on the local twin before rounding to 8 bits; the gap to accuracy is the "
        "strength that an attack lost on its way to the server"
    ),
    "median_queries": (
        "queries after which half of the attacked images were fooled; a lower bound where "
        "fewer than half were"
    ),
    "cosine_shift": "mean of 1 - cosine between an image's clean and attacked embedding",
    "max_abs_error": "largest difference of one coordinate of an embedding",
    "min_cosine": "smallest cosine between the two embeddings of one image",
    "knn_flips": "test images that the two give different classes",
}


def glossary(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the terms among these metric names, with their meaning, each once."""
    terms = [name.rsplit(".", 1)[-1].split("_k", 1)[0] for name in names]
    found = {term: _GLOSSARY[term] for term in terms if term in _GLOSSARY}
    return list(found.items())
