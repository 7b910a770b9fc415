"""Sets of positions against Python's own sets, and as FAISS understands them."""

import faiss
import numpy as np
import pytest

from embedkit.retrieve.index.selection import Selection


@pytest.mark.parametrize("total", [1, 7, 8, 9, 64, 1000])
def test_the_same_as_python_sets(rng: np.random.Generator, total: int) -> None:
    selection, expected = Selection.everything(total), set(range(total))
    assert selection.selector() is None
    for _ in range(6):
        gone = np.sort(rng.permutation(total)[: rng.integers(0, max(2, total // 4))])
        before, held = selection, set(expected)
        selection, expected = selection.without(gone), expected - set(gone.tolist())
        assert selection.count == len(expected)
        assert selection.positions().tolist() == sorted(expected)
        assert before.positions().tolist() == sorted(held), "older sets are not touched"
        everything = np.arange(total)
        assert selection.holds(everything).tolist() == [i in expected for i in range(total)]
        selector = selection.selector()
        if selector is not None:
            assert [selector.is_member(i) for i in range(total)] == [
                i in expected for i in range(total)
            ]
            assert not selector.is_member(total + 8)
    assert selection.share == len(expected) / total


def test_some_of_them(rng: np.random.Generator) -> None:
    chosen = np.sort(rng.permutation(100)[:30])
    selection = Selection.of(chosen, 100)
    assert selection.positions().tolist() == chosen.tolist()
    assert Selection.of(np.arange(100), 100).bits is None
    index = faiss.IndexFlatL2(4)
    base = rng.standard_normal((100, 4)).astype(np.float32)
    index.add(base)
    params = faiss.SearchParameters()
    params.sel = selection.selector()
    _, found = index.search(base[:5], 100, params=params)
    assert set(found[0].tolist()) == set(chosen.tolist()) | {-1}
