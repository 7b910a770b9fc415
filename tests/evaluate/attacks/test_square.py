"""Square against a pixel-by-pixel transcription of the paper's algorithm 1 and 2."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import run_attack
from embedkit.evaluate.attacks.square import (
    Square,
    edges_of,
    patch_side,
    patched,
    stripes,
)
from embedkit.evaluate.measurement.victim.heads import CosineHead
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import keys_of, uniforms


def reference_area(iteration, area):
    """The schedule for 10,000 queries as the paper states it (section 3.1)."""
    table = [(10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64)]
    table += [(6000, 128), (8000, 256), (10_000, 512)]
    return next(area / divisor for last, divisor in table if iteration <= last)


@pytest.mark.parametrize("queries", [10_000, 500])
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (8, 8)])
def test_schedule_is_the_papers(queries, size):
    height, width = size
    for step in range(queries):
        area = reference_area(int(step / queries * 10_000), 0.8)
        expected = max(round(math.sqrt(area * height * width)), 1)
        assert patch_side(step, queries, 0.8, size) == expected


def test_the_square_fits_a_narrow_image():
    assert patch_side(0, 100, 1.0, (4, 64)) == 4


def reference_patch(original, best, draws, side, radius):
    """One image of ``patched``, one pixel at a time, with plain integers."""
    height, width, channels = original.shape
    top = int(draws[0] * (height - side + 1))
    left = int(draws[1] * (width - side + 1))

    def place(sign_of):
        tried = best.copy()
        for row in range(top, top + side):
            for column in range(left, left + side):
                for channel in range(channels):
                    level = int(original[row, column, channel]) + sign_of[channel] * radius
                    tried[row, column, channel] = min(max(level, 0), 255)
        return tried

    signs = [1 if draw >= 0.5 else -1 for draw in draws[2:]]
    tried = place(signs)
    return place([-sign for sign in signs]) if np.array_equal(tried, best) else tried


@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_equals_its_transcription(rng, channels):
    originals = rng.integers(0, 256, (60, 6, 5, channels), dtype=np.uint8)
    keys = keys_of(tuple(map(str, range(60))), 0)
    edges = edges_of(originals, 12)
    best = stripes(edges, uniforms(keys, 0, 5 * channels))
    for step, side in enumerate([5, 3, 1, 4, 5], start=1):
        draws = uniforms(keys, step, 2 + channels)
        tried = patched(edges, best, draws, side)
        for row in range(60):
            expected = reference_patch(originals[row], best[row], draws[row], side, 12)
            assert np.array_equal(tried[row], expected)
        best = tried


def test_stripes_are_vertical_and_on_the_edge_of_the_ball(rng):
    originals = rng.integers(20, 230, (50, 4, 6, 3), dtype=np.uint8)
    delta = stripes(edges_of(originals, 9), rng.random((50, 18))).astype(int) - originals
    assert set(np.unique(delta)) == {-9, 9}
    assert (delta == delta[:, :1]).all()
    assert abs(delta.mean()) < 1


def test_the_window_reaches_every_pixel(rng):
    originals = np.full((500, 5, 5, 1), 100, np.uint8)
    tried = patched(edges_of(originals, 3), originals, rng.random((500, 3)), 4)
    touched = (tried != originals).mean(axis=0)[..., 0]
    assert touched.min() > 0.15
    assert touched[2, 2] == 1


def test_no_query_is_wasted_on_an_unchanged_image(rng):
    originals = rng.integers(0, 256, (200, 4, 4, 1), dtype=np.uint8)
    edges = edges_of(originals, 5)
    best = stripes(edges, rng.random((200, 4)))
    for side in (1, 2, 4):
        tried = patched(edges, best, rng.random((200, 3)), side)
        assert (tried != best).reshape(200, -1).any(axis=1).all()


def reference_run(target, queries, radius):
    """The whole search, one image after the other, one query at a time."""
    found, counts = [], []
    for index, original in enumerate(target.images):
        key = keys_of((target.ids[index],), 0)
        height, width, channels = original.shape

        def ask(image, index=index):
            embedding = target.victim.embed(image[None])
            return float(target.head.margins(embedding, np.array([index]))[0])

        draws = uniforms(key, 0, width * channels)
        best = stripes(edges_of(original[None], radius), draws)[0]
        margin, asked = ask(best), 1
        while margin > 0 and asked < queries:
            area = reference_area(int((asked - 1) / queries * 10_000), 0.8)
            side = max(round(math.sqrt(area * height * width)), 1)
            draws = uniforms(key, asked, 2 + channels)[0]
            tried = reference_patch(original, best, draws, side, radius)
            value = ask(tried)
            asked += 1
            if value < margin:
                best, margin = tried, value
        found.append(best)
        counts.append(asked)
    return np.stack(found), counts


def test_a_run_equals_its_transcription(toy):
    few = _part(toy, np.arange(8))
    outcome = run_attack(Square(queries=40), few, Threat("linf", 24))
    images, counts = reference_run(few, 40, 24)
    assert outcome.queries.tolist() == counts
    assert np.array_equal(outcome.adversarial, images)


def test_queries_are_counted_exactly_and_stop_at_success(toy):
    outcome = run_attack(Square(queries=60), toy, Threat("linf", 48, query_limit=50))
    assert outcome.usage.images == outcome.queries.sum()
    assert outcome.usage.calls == outcome.queries.max() <= 50
    assert (outcome.queries[~outcome.success] == 50).all()
    assert (outcome.queries[outcome.success] < 50).any()
    assert not outcome.exhausted


def test_success_grows_with_queries_and_radius(toy):
    def rate(queries, radius):
        threat = Threat("linf", radius)
        return float(run_attack(Square(queries=queries), toy, threat).success.mean())

    assert rate(2, 32) < rate(200, 32)
    assert rate(100, 4) < rate(100, 64)
    assert rate(100, 120) >= 0.95


@dataclass(frozen=True)
class Singly:
    """A victim, and its head, whose last bits do not depend on what else is in the call."""

    model: object
    head: KnnHead
    dim: int = 16
    digest: str = "sha256:singly"

    def embed(self, images):
        return np.concatenate([self.model.embed(image[None]) for image in images])

    def margins(self, embeddings, indices):
        rows = range(len(embeddings))
        one = [self.head.margins(embeddings[[r]], indices[[r]]) for r in rows]
        return np.concatenate(one)

    def target(self, toy, rows):
        head = replace(self, head=_part(toy, rows).head)
        return replace(_part(toy, rows), victim=self, head=head)


def test_results_depend_neither_on_the_batch_nor_on_the_order(toy):
    order = np.random.default_rng(0).permutation(40)[:15]
    singly = Singly(toy.victim, toy.head)
    whole = run_attack(Square(30), singly.target(toy, np.arange(40)), Threat("linf", 16))
    part = run_attack(Square(30), singly.target(toy, order), Threat("linf", 16))
    assert np.array_equal(part.queries, whole.queries[order])
    assert np.array_equal(part.adversarial, whole.adversarial[order])


def test_any_head_with_a_margin_can_be_attacked(toy):
    anchors = CosineHead(toy.victim.embed(toy.images), threshold=0.995)
    target = replace(toy, head=anchors)
    outcome = run_attack(Square(queries=100), target, Threat("linf", 32))
    cosine = (outcome.embeddings * anchors.anchors).sum(axis=1)
    assert np.array_equal(outcome.success, cosine <= 0.995)
    assert outcome.success.any()


@pytest.mark.parametrize("settings", [{"queries": 0}, {"area": 0.0}, {"area": 1.1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="expected queries >= 1 and area in"):
        Square(**settings)


def _part(target, rows):
    head = KnnHead(target.head.bank, target.head.bank_labels, target.head.labels[rows])
    ids = tuple(target.ids[i] for i in rows)
    return replace(target, head=head, images=target.images[rows], ids=ids)
