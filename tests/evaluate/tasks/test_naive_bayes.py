import numpy as np
from sklearn.naive_bayes import GaussianNB

from embedkit.evaluate.tasks.naive_bayes import NaiveBayes


def test_it_agrees_with_scikit_learn(make_context, noisy, embedded):
    context = make_context(served=noisy)
    (train, y), (test, _) = embedded(context.train), embedded(context.test)
    expected = GaussianNB().fit(train, y).predict(test)
    result = NaiveBayes().run(context)
    np.testing.assert_array_equal(result.items["predictions"], expected)
    assert set(result.baselines) == {"raw_pixels"}
