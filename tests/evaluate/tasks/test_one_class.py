import numpy as np

from embedkit.detect.detector import Observation, detectors
from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.one_class import OneClass


def test_each_class_is_known_alone(make_context):
    """Scores from a fit on that class, and the area by counting pairs."""
    context = make_context(options=Options(detectors=("mahalanobis", "relative_mahalanobis")))
    result = OneClass().run(context)
    train, test = (context.embeddings("served", d) for d in (context.train, context.test))
    labels = np.asarray(context.test.labels)
    names = [name.replace(" ", "_") for name in context.train.class_names]
    for c, name in enumerate(names):
        own = train[np.asarray(context.train.labels) == c]
        scores = detectors.get("one_class_knn")().fit(Observation(own)).score(Observation(test))
        np.testing.assert_array_equal(result.items["one_class_knn.scores"][c], scores)
        pairs = scores[labels != c][:, None] - scores[labels == c][None]
        area = np.mean((pairs > 0) + 0.5 * (pairs == 0))
        assert result.metrics[f"{name}.one_class_knn.auroc"].value == area
    values = [result.metrics[f"{c}.mahalanobis.auroc"].value for c in names]
    mean = result.metrics["mean.mahalanobis.auroc"]
    assert mean.value == np.mean(values)
    ends = [result.metrics[f"{c}.mahalanobis.auroc"].ci for c in names]
    assert mean.ci == tuple(np.mean(ends, axis=0))
    assert not any("relative" in name for name in result.metrics)


def test_a_class_with_too_few_images_costs_only_itself(make_context, source):
    train = source.dataset(240)
    labels = np.asarray(train.labels)
    few = train.subset(
        np.concatenate([np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)[:1]])
    )
    result = OneClass().run(make_context(train=few, options=Options(detectors=("knn",))))
    assert result.status == "ok"
    assert any("1 of 4 classes have too few images" in w for w in result.warnings)
    first = train.class_names[0].replace(" ", "_")
    assert f"{first}.one_class_knn.auroc" not in result.metrics
    assert "mean.one_class_knn.auroc" in result.metrics


def test_without_labels_there_is_no_class(make_context, source):
    result = OneClass().run(make_context(test=source.novel(80, name="bare")))
    assert result.status == "skipped"
