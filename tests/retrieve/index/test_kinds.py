"""Names of kinds and storages, parameters that fit them, and what a size becomes."""

import pytest

from embedkit.errors import InvalidInput
from embedkit.retrieve.index.kinds import (
    KINDS,
    STORAGES,
    check_kind,
    check_params,
    check_storage,
    kind_for,
)
from embedkit.types import SearchParams


def test_known_names_are_taken_and_others_get_a_suggestion() -> None:
    for kind in KINDS:
        check_kind(kind)
    for storage in STORAGES:
        check_storage(storage)
    with pytest.raises(InvalidInput, match="did you mean 'ivf_flat'"):
        check_kind("ivfflat")
    with pytest.raises(InvalidInput, match="did you mean 'float16'"):
        check_storage("floot16")
    with pytest.raises(InvalidInput, match="expected an index kind of auto, flat"):
        check_kind("")


def test_auto_is_exact_while_small_whole_while_it_fits_and_then_compressed() -> None:
    sizes = (1, 20_000, 100_000, 1_000_000, 10_000_000)
    assert [kind_for("auto", n, 128) for n in sizes] == [
        "flat",
        "flat",
        "ivf_flat",
        "ivf_flat",
        "sq8",
    ]
    assert all(kind_for(kind, 1, 8) == kind for kind in KINDS[1:])


@pytest.mark.parametrize(
    ("params", "kind", "said"),
    [
        (SearchParams(recall_target=0.0), "flat", "recall_target above 0"),
        (SearchParams(recall_target=1.1), "pq", "recall_target above 0"),
        (SearchParams(recall_target=float("nan")), "pq", "recall_target above 0"),
        (SearchParams(nprobe=0), "sq8", "nprobe of at least 1"),
        (SearchParams(ef=0), "hnsw", "ef of at least 1"),
        (SearchParams(nprobe=3), "hnsw", "no nprobe .* hnsw"),
        (SearchParams(nprobe=3), "flat", "no nprobe .* flat"),
        (SearchParams(ef=3), "auto", "no ef .* auto"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(
    params: SearchParams, kind: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        check_params(params, kind)


def test_parameters_that_mean_something_are_taken() -> None:
    for kind in KINDS:
        check_params(SearchParams(exact=True, recall_target=1.0), kind)
    check_params(SearchParams(nprobe=1), "auto")
    check_params(SearchParams(ef=1), "hnsw")
