"""Batches made of clusters: NGAME and G-SimCLR, checked on what the papers ask of a batch."""

from collections import Counter

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.images import Groups, load_images
from embedkit.train.images.order import distinct_clusters, hard_negatives
from embedkit.train.loop import train
from embedkit.train.objective import build_objective
from embedkit.train.supply.groups import even_clusters


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(order, size):
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


@pytest.mark.parametrize("make", [hard_negatives, distinct_clusters])
def test_an_order_has_every_image_once_and_depends_on_its_seed(make):
    clusters = torch.randint(0, 9, (70,), generator=generator())
    order = make(clusters, 16, generator(1))
    assert order.sort().values.tolist() == list(range(70))
    assert torch.equal(order, make(clusters, 16, generator(1)))
    assert not torch.equal(order, make(clusters, 16, generator(2)))


def test_a_batch_of_hard_negatives_is_whole_clusters():
    clusters = torch.arange(96) % 24
    orders = [hard_negatives(clusters, 16, generator(seed)) for seed in range(2)]
    for order in orders:
        for batch in batches(order, 16):
            assert sorted(Counter(clusters[batch].tolist()).values()) == [4, 4, 4, 4]
    met = [{frozenset(clusters[b].tolist()) for b in batches(o, 16)} for o in orders]
    assert met[0] != met[1]


def test_what_is_left_over_moves_no_cluster_across_two_batches():
    clusters = torch.arange(67) // 4  # 16 of 4 images and one of 3
    for seed in range(5):
        order = hard_negatives(clusters, 16, generator(seed))
        for batch in batches(order, 16):
            assert sorted(Counter(clusters[batch].tolist()).values()) == [4, 4, 4, 4]
        assert order[-3:].sort().values.tolist() == [64, 65, 66]


def test_a_batch_of_distinct_clusters_has_no_two_images_of_one():
    # 20 clusters of 4 to 6 images: there are always 16 that are not yet empty.
    sizes = [4 + c % 3 for c in range(20)]
    clusters = torch.tensor([c for c, size in enumerate(sizes) for _ in range(size)])
    order = distinct_clusters(clusters, 16, generator(3))
    for batch in batches(order, 16):
        assert max(Counter(clusters[batch].tolist()).values()) == 1


def test_with_fewer_clusters_than_images_a_batch_is_as_even_as_can_be():
    clusters = torch.arange(80) % 5
    for batch in batches(distinct_clusters(clusters, 16, generator()), 16):
        assert sorted(Counter(clusters[batch].tolist()).values()) == [3, 3, 3, 3, 4]


def test_even_clusters_are_even_and_find_tight_groups():
    centres = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator()), dim=1)
    truth = torch.arange(12).repeat_interleave(8)[torch.randperm(96, generator=generator(1))]
    z = centres[truth] + 0.01 * torch.randn(96, 16, generator=generator(2))
    clusters = even_clusters(torch.nn.functional.normalize(z, dim=1), 8, seed=0)
    assert clusters.bincount().tolist() == [8] * 12
    agreeing = sum(truth[clusters == c].bincount().max().item() for c in range(12))
    # Independent of it: random clusters would agree on about 25 of 96.
    assert agreeing >= 72
    assert even_clusters(z[:21], 8, seed=0).bincount().tolist() == [8, 8, 5]


def test_groups_take_the_place_of_the_shuffle(small):
    images = load_images(small(), build_objective("simclr", {}), torch.device("cpu"))
    groups = Groups("hard_negatives", torch.arange(70) // 8, 4)
    found = images.indices(5, batch_size=16, seed=3, groups=groups)
    assert len((found // 8).unique()) <= 4
    free = images.indices(5, batch_size=16, seed=3)
    assert not torch.equal(found, free)
    assert torch.equal(found, images.indices(5, batch_size=16, seed=3, groups=groups))


@pytest.mark.parametrize("batches", ["hard_negatives", "distinct_clusters"])
def test_a_run_with_clusters_goes_on_to_the_bit(small, tmp_path, batches):
    sampling = {"batches": batches, "refresh_epochs": 1, "cluster_images": 4, "clusters": 20}
    recipe = small(sampling=sampling, schedule={"epochs": 3}, run={"checkpoint_steps": 1})
    train(recipe, tmp_path / "whole")

    def crash(progress):
        if progress.step == 7:
            raise KeyError

    with pytest.raises(KeyError):
        train(recipe, tmp_path / "cut", report=crash)
    train(recipe, tmp_path / "cut", resume=True)
    train(small(schedule={"epochs": 3}), tmp_path / "free")
    whole, cut, free = (
        (tmp_path / name / "encoder.safetensors").read_bytes()
        for name in ("whole", "cut", "free")
    )
    assert whole == cut
    assert whole != free


def test_settings_out_of_range_are_refused(small):
    for sampling in (
        {"refresh_epochs": 0},
        {"cluster_images": 1},
        {"subset_share": 0.0},
        {"batches": "sorted"},
    ):
        with pytest.raises(InvalidInput, match=next(iter(sampling))):
            small(sampling=sampling)
    assert "sampling" not in small().to_toml()
