"""What the tasks and numbers of a report mean, in a sentence each."""

import re
from collections.abc import Iterable

__all__ = ["ABOUT", "DESCRIPTIVE", "HEADLINES", "glossary", "term_of"]

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
    "centroid": (
        "Class means",
        "How often the nearest class mean is the right one: one vector per class.",
    ),
    "naive_bayes": (
        "Naive Bayes",
        "Whether classes can be told apart dimension by dimension.",
    ),
    "few_shot": (
        "Few labels",
        "How often the model is right with a handful of labelled images per class, over "
        "several draws of them.",
    ),
    "clustering": (
        "Clusters",
        "Whether groups that are found without labels are the classes.",
    ),
    "calibration": (
        "Calibration",
        "Whether the model is right as often as it says, as it is and after a temperature that "
        "was fitted on other images.",
    ),
    "geometry": (
        "Geometry",
        "How the embeddings lie in their space: spread, rank, hubs, invariance, and how far "
        "the classes have collapsed to points.",
    ),
    "transfer": (
        "Transfer",
        "How well the embeddings serve other labelled data sets: learnt anew from one half "
        "(knn, linear), or with the training images as they are (shift).",
    ),
    "risk": (
        "Where errors come from",
        "The error of a linear probe in four parts that add up to it.",
    ),
    "invariance": (
        "Invariance",
        "What mild changes of an image do to its embedding and to the decision. Whether one "
        "should matter is for you to say.",
    ),
    "memorisation": (
        "Memorisation",
        "Whether training images are embedded more steadily than images the model never saw.",
    ),
    "rmqm": (
        "Smoothness",
        "How far and how evenly embeddings move as noise grows.",
    ),
    "accuracy_estimation": (
        "Accuracy without labels",
        "How near estimates that see no label of the test images come to the true accuracy.",
    ),
    "latency": (
        "Latency",
        "How long a lone client waits for an answer; these numbers vary from run to run.",
    ),
    "corruption": (
        "Corruption",
        "How often the neighbours' vote is wrong, and how far embeddings drift, when images "
        "are noisy, blurred, covered or coded anew.",
    ),
    "ood": (
        "Out of distribution",
        "How well images of an unknown kind can be told from known ones.",
    ),
    "one_class": (
        "One class",
        "How well images of other classes are noticed when one class alone is known.",
    ),
    "drift": (
        "Drift",
        "Whether tests on the embeddings notice that images have changed, after how many, and "
        "how often they raise a false alarm.",
    ),
    "retrieval": (
        "Retrieval",
        "Whether a search for a test image among the training images finds its class first, "
        "through a collection of the server.",
    ),
    "robustness": (
        "Robustness",
        "How often the model still decides as it should when someone changes each pixel by at "
        "most the radius (or, l2, all together; or, patch, one square). Every success was "
        "confirmed by the served model on 8-bit pixels.",
    ),
    "certified": (
        "Certified",
        "How far an image may be changed with certainty that the decision stays, if the model "
        "answers with the majority over many noisy copies. The single answer is not certified.",
    ),
    "backdoor": (
        "Backdoor",
        "Whether an encoder that was trained on a few poisoned images takes whatever carries "
        "their trigger for the attacker's class, beside one that was trained on clean images.",
    ),
    "membership": (
        "Membership",
        "Whether it can be told from the embeddings of an image if the encoder was trained on "
        "it. What counts is how many can be told with hardly any false alarm.",
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
    "calibration": r"(served|linear)\.ece",
    "corruption": r"error|mce|clean_error",
    "few_shot": r"top1_n1",
    "geometry": r"rankme|purity_k10",
    "invariance": r"mean_found",
    "latency": r"1\.p50_ms",
    "transfer": r".*\.knn\.top1",
    "accuracy_estimation": r"threshold_error",
    "risk": r"(probe|encoder)_generalisation",
    "ood": r".*\.auroc",
    "retrieval": r"map|map_at_r|recall_at_1|search_recall_at_10",
    "robustness": r"accuracy|(pgd|square|auto)\.[^.]+\.accuracy|checks_failed",
    "certified": r"(knn|linear)\.[^.]+\.([^.]+\.certified|smoothed)_accuracy",
    "backdoor": r"(knn|linear)\.(accuracy|success|control)",
    "membership": r".*\.(auroc|tpr_at_fpr_1e-2)",
    "parity": r"(torch|local)_vs_served\.(max_abs_error|knn_flips)",
}
"""Metrics of the summary by task, as patterns; of other tasks the first metric is taken."""

DESCRIPTIVE = frozenset(
    {
        *("uniformity", "rankme", "lidar", "participation_ratio", "spectrum_decay", "hubness"),
        *("tolerance", "nc1", "nc2_norms", "nc2_angles", "cka", "rmqm", "total", "step"),
        *("variation", "top1_sd", "top1_logistic_sd", "nmi_sd", "temperature"),
    }
)
"""Terms that say how a model is and not how good: raw pixels may well have more of them."""

_GLOSSARY = {
    "top1_lightly": "vote of 200 neighbours weighted by exp(cosine / 0.1), as lightly does",
    "top1_majority": "vote of k neighbours that count alike",
    "top1_sgd": "softmax classifier by momentum SGD; the rate is chosen on training images",
    "top1_logistic": "logistic regression on n images per class, mean over draws",
    "top1_sd": "standard deviation of that accuracy over the draws, a spread: no interval",
    "top1_logistic_sd": "standard deviation of that accuracy over the draws; likewise",
    "nmi": "mutual information of groups and classes over the mean of their entropies",
    "ari": "share of pairs on which groups and classes agree, corrected for chance",
    "purity": "share with the commonest class of its group, or of neighbours of the same class",
    "nmi_sd": "standard deviation of nmi over the starts; itself a spread, so no interval",
    "ece": "mean gap between confidence and accuracy over 15 bins of equal width",
    "ece_equal_mass": "the same over 15 bins of equally many images",
    "brier": "squared distance of the probabilities from the truth, 0 to 2",
    "nll": "minus the logarithm of the true class's probability",
    "temperature": "by which logits are divided; above 1 the model was too sure",
    "alignment": "mean squared distance of two random views of an image",
    "uniformity": "log of the mean of exp(-2 squared distance) over pairs; lower is more even",
    "rankme": "exponential of the entropy of the singular values: directions in use",
    "lidar": "the same of what tells images apart despite augmentation",
    "participation_ratio": "square of the summed eigenvalues over the sum of their squares",
    "spectrum_decay": "exponent of the power law of the eigenvalues; about 1 is often best",
    "hubness": "skewness of how often an image is among others' neighbours; 0 is none",
    "tolerance": "mean cosine of two images of one class",
    "nc1": "spread within classes against that between them; 0 in full collapse",
    "nc2_norms": "how much class means differ in length; 0 in full collapse",
    "nc2_angles": "how far angles of class means are from equal; 0 in full collapse",
    "nc4_disagreement": "share of images nearer to another class's mean",
    "cka": "similarity of two models' similarities: 1 is equal up to rotation",
    "approximation": "share of training images equal to one of another class",
    "usability": "error on the images the probe was fitted on, beyond approximation",
    "probe_generalisation": "further error on training images the probe has not seen",
    "encoder_generalisation": "further error on test images, which the encoder has not seen",
    "total": "error of the probe on the test images; in Smoothness, length of the whole path",
    "cosine": "mean cosine with the embedding of the unchanged image",
    "found": "share whose nearest unchanged image is the image itself",
    "kept": "share whose decision stays",
    "mean_cosine": "the same, over all changes",
    "mean_found": "the same, over all changes",
    "gap": "distance between views: mean of test images minus that of training images",
    "sslmem": "how much more training images gained over an untrained encoder than test images",
    "sslmem_train": "what training images gained over an untrained encoder",
    "sslmem_test": "what test images gained over an untrained encoder",
    "rmqm": "mean step over one plus its variation; large and even steps are better",
    "step": "mean distance that an embedding moves per step of noise",
    "variation": "standard deviation of an image's steps over their mean",
    "true": "the accuracy, which the estimates do not see",
    "confidence": "held-out accuracy plus the change of mean confidence",
    "threshold": "share above the confidence that as many held-out images pass as are right",
    "agreement": "share on which a linear probe and the neighbours agree",
    "stability": "share whose decision survives a random augmentation",
    "confidence_error": "distance of the estimate from the true accuracy",
    "threshold_error": "distance of the estimate from the true accuracy",
    "agreement_error": "distance of the estimate from the true accuracy",
    "stability_error": "distance of the estimate from the true accuracy",
    "p50_ms": "time of a call that half of the calls stay below",
    "p95_ms": "time of a call that 95 % of the calls stay below",
    "p99_ms": "time of a call that 99 % of the calls stay below",
    "images_per_s": "images per second by one call after another; the quantiles have intervals",
    "error": "share of images on which the vote of 20 neighbours is wrong",
    "clean_error": "the same without any corruption",
    "drift": "mean of 1 - cosine with the clean image's embedding",
    "overlap": "share of the ten nearest training images that stay",
    "mce": "error over that of the reference (AlexNet on ImageNet, else raw pixels), mean",
    "relative_mce": "rise of the error over that of the reference, mean",
    "top1": "share of test images whose most likely class is the right one",
    "auroc": "probability that a novel image scores higher than a known one; 0.5 is chance",
    "aupr_id_positive": "average precision with known images as the positive class",
    "alarms": "share of image streams for which the test of drift gives p < 0.05",
    "delay": "median number of images until a test of drift raises its first alarm",
    "accepted": "share of images whose served novelty the bundle's threshold accepts",
    "rejected": "share of images whose served novelty the bundle's threshold rejects",
    "aupr_ood_positive": "average precision with novel images as the positive class",
    "fpr95_id_positive": "share of novel images accepted when 95 % of known ones are accepted",
    "fpr95_ood_positive": "share of known images rejected when 95 % of novel ones are rejected",
    "map": "mean over queries of the precision at each relevant place, over all places",
    "map_at_r": "the same over the first R places, where R images are relevant",
    "ndcg_at_10": "first ten places, later ones counting less, over the best that is possible",
    "precision_at_1": "share of queries whose first place is of their class",
    "precision_at_5": "share of the first five places that is of the query's class",
    "precision_at_10": "share of the first ten places that is of the query's class",
    "recall_at_1": "share of queries whose first place is of their class",
    "recall_at_5": "share of queries with an image of their class among the first five places",
    "recall_at_10": "share of queries with an image of their class among the first ten places",
    "search_recall_at_10": "share of the ten truly nearest images that the search finds",
    "accuracy": "share of examined images that are classified correctly, clean or attacked",
    "twin_accuracy": (
        "the same on the local twin before rounding to 8 bits; the gap to accuracy is the "
        "strength that an attack lost on its way to the server"
    ),
    "twin_uint8_accuracy": "the same on the local twin after rounding to 8 bits",
    "png_accuracy": "the same with attacked images sent as PNG, which the server decodes",
    "jpeg_accuracy": "the same with attacked images sent as JPEG, which blurs the attack",
    "checks_failed": (
        "signs of weak attacks or masked gradients, of n that were looked for; no interval"
    ),
    "median_queries": (
        "queries after which half of the attacked images were fooled; a lower bound where "
        "fewer than half were"
    ),
    "cosine_shift": "mean of 1 - cosine between an image's clean and attacked embedding",
    "smoothed_accuracy": "share of images on which the majority over noisy copies is right",
    "certified_accuracy": "the same, and certain to stay so within the L2 distance",
    "abstained": "share of images for which too few noisy copies agree",
    "mean_radius_255": "mean certain L2 distance; wrong and undecided images count 0",
    "output_shift": "mean bound on how far a smoothed embedding moves; 2 is no bound at all",
    "success": "share of other classes' images that the trigger turns into the target class",
    "control": "the same with a trigger at other frequencies, which no training image has",
    "success_gain": "success less that of the clean model",
    "accuracy_change": "accuracy less that of the clean model",
    "psnr_db": "how little the trigger changes an image; above 30 is hard to see",
    "tpr_at_fpr_1e-2": "share of trained-on images told at 1 % false alarms",
    "tpr_at_fpr_1e-3": "share of trained-on images told at 0.1 % false alarms",
    "fpr_at_fpr_1e-2": "false alarms at that threshold, with their own interval",
    "fpr_at_fpr_1e-3": "false alarms at that threshold, with their own interval",
    "max_abs_error": (
        "largest difference of one coordinate of an embedding; an extreme of these images, "
        "which says nothing of others, so no interval"
    ),
    "min_cosine": "smallest cosine between the two embeddings of one image; likewise",
    "knn_flips": "test images that the two give different classes",
    "neighbour_overlap": "share of the ten nearest training images that both find",
    "auroc_change": "AUROC of the knn detector with the second of the two, less the first",
}


def glossary(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the terms among these metric names, with their meaning, each once."""
    found = {term: _GLOSSARY[term] for term in map(term_of, names) if term}
    return list(found.items())


def term_of(name: str) -> str:
    """The term that explains a metric, or an empty string if none does."""
    last = "cka" if name.startswith("cka.") else name.rsplit(".", 1)[-1]
    term = re.sub(r"_[kn]\d+", "", last)
    return term if term in _GLOSSARY else last if last in _GLOSSARY else ""
