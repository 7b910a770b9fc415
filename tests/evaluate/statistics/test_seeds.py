import numpy as np
import pytest
from scipy import stats

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics import over_seeds


def test_the_spread_over_runs_is_apart_from_sampling():
    values = [0.90, 0.92, 0.91]
    found = over_seeds(values, [(0.88, 0.92), (0.90, 0.94), (0.89, 0.93)])
    assert found.sd_seeds == pytest.approx(0.01)
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.ci_seeds == pytest.approx(expected)
    assert found.ci_sampling == pytest.approx((0.89, 0.93))


def test_equal_runs_have_no_spread_and_still_an_error_of_sampling():
    found = over_seeds([0.5, 0.5], [(0.4, 0.6)] * 2)
    assert (found.sd_seeds, found.ci_seeds) == (0, (0.5, 0.5))
    assert found.ci_sampling == pytest.approx((0.4, 0.6))
    assert over_seeds([0.5, 0.5], [(0.4, 0.6), None]).ci_sampling is None


def test_one_run_has_no_spread():
    with pytest.raises(InvalidInput, match="at least 2 runs"):
        over_seeds([0.5], [None])
