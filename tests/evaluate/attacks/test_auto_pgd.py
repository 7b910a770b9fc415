"""APGD attacks, feature-space attacks, patches, one change for all, and several in turn."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Target, attacks, run_attack
from embedkit.evaluate.attacks.apgd_ce import APGDCrossEntropy
from embedkit.evaluate.attacks.apgd_decision import APGDDecision
from embedkit.evaluate.attacks.apgd_dlr import APGDDifferenceOfLogits
from embedkit.evaluate.attacks.auto import Auto
from embedkit.evaluate.attacks.feature_away import FeatureAway
from embedkit.evaluate.attacks.feature_target import FeatureTarget
from embedkit.evaluate.attacks.patch import Patch
from embedkit.evaluate.attacks.pgd import PGD
from embedkit.evaluate.attacks.universal import Universal
from embedkit.evaluate.measurement.victim.heads import CosineHead, SearchHead
from embedkit.evaluate.threat import Threat

NEAR = Threat("linf", 16)


def rate(method, target, threat=NEAR):
    return float(run_attack(method, target, threat).success.mean())


def test_apgd_is_no_weaker_than_pgd_of_as_many_steps(toy):
    pgd = rate(PGD(20, "decision"), toy)
    for method in (APGDCrossEntropy(20), APGDDifferenceOfLogits(20), APGDDecision(20)):
        assert rate(method, toy) >= pgd - 0.05


def test_targets_find_what_one_loss_does_not(toy):
    # Restarts and targets go on with what is still standing, so nothing is lost.
    assert rate(APGDDifferenceOfLogits(8, targets=3), toy) >= rate(
        APGDDifferenceOfLogits(8, targets=1), toy
    )
    assert rate(APGDCrossEntropy(4, restarts=3), toy) >= rate(APGDCrossEntropy(4), toy)


def test_ratios_need_enough_classes(toy):
    keep = np.flatnonzero(toy.head.labels < 3)
    bank = toy.head.bank_labels < 3
    head = replace(
        toy.head,
        bank=toy.head.bank[bank],
        bank_labels=toy.head.bank_labels[bank],
        labels=toy.head.labels[keep],
    )
    ids = tuple(toy.ids[i] for i in keep)
    few = replace(toy, head=head, images=toy.images[keep], ids=ids)
    assert rate(APGDDifferenceOfLogits(5), few) >= 0
    with pytest.raises(InvalidInput, match=r"expected at least 4 classes .* got 3"):
        run_attack(APGDDifferenceOfLogits(5, targets=2), few, NEAR)


def test_away_moves_the_embedding_farther_than_pgd_does(toy):
    clean = toy.victim.embed(toy.images)

    def shift(method):
        return 1 - (run_attack(method, toy, NEAR).embeddings * clean).sum(axis=1)

    assert shift(FeatureAway(30)).mean() >= 0.98 * shift(PGD(30)).mean()


@pytest.mark.parametrize("guide", ["nearest", "random"])
def test_a_target_is_approached(toy, guide):
    head = CosineHead(toy.victim.embed(toy.images))
    target = Target(toy.victim, head, toy.images, toy.ids, toy.surrogate)
    clean = head.anchors
    outcome = run_attack(FeatureTarget(guide=guide, steps=30), target, Threat("linf", 32))
    np.fill_diagonal(order := clean @ clean.T, -np.inf)
    if guide == "nearest":
        guides = clean[order.argmax(axis=1)]
        before, after = ((z * guides).sum(axis=1) for z in (clean, outcome.embeddings))
        assert (after > before).mean() > 0.9
    else:
        # Some other image has come nearer than any was.
        best = (outcome.embeddings @ clean.T)[~np.eye(len(clean), dtype=bool)]
        assert best.mean() > order[np.isfinite(order)].mean()
    one = replace(target, head=CosineHead(clean[:1]), images=toy.images[:1], ids=toy.ids[:1])
    with pytest.raises(InvalidInput, match="expected another image to be the guide"):
        run_attack(FeatureTarget(), one, NEAR)


def test_neighbours_are_pushed_out_of_a_search(toy):
    gallery, clean = toy.head.bank, toy.victim.embed(toy.images)
    wanted = np.argsort(-(clean @ gallery.T), axis=1)[:, :3]
    target = replace(toy, head=SearchHead(gallery, wanted, k=3))
    outcome = run_attack(APGDDecision(30), target, Threat("linf", 32))
    first = np.argsort(-(outcome.embeddings @ gallery.T), axis=1)[:, :3]
    gone = [not set(a) & set(b) for a, b in zip(first, wanted, strict=True)]
    assert np.array_equal(outcome.success, gone)
    assert np.mean(gone) > 0.8


def test_a_patch_changes_one_square_and_larger_ones_more_decisions(toy):
    rates = []
    for side in (1, 2, 4):
        outcome = run_attack(Patch(places=2, steps=10), toy, Threat.patch(side))
        changed = (outcome.adversarial != toy.images).any(axis=3)
        for one in changed:
            rows, columns = np.nonzero(one)
            assert not len(rows) or max(np.ptp(rows), np.ptp(columns)) < side
        rates.append(outcome.success.mean())
    assert rates[0] < rates[1] <= rates[2]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_universal_change_is_one_and_the_same(toy, norm):
    threat = Threat(norm, 40 if norm == "linf" else 60)
    # Far enough from black and white that nothing is clipped.
    grey = replace(toy, images=64 + toy.images // 2)
    change = run_attack(Universal(steps=10), grey, threat).candidates - grey.images
    assert np.ptp(change, axis=0).max() < 1e-2
    assert np.abs(change).max() > 5


def test_a_band_keeps_its_frequencies(toy):
    middle = replace(toy, images=np.full_like(toy.images, 128))
    for band in ("low", "high"):
        method = Universal(steps=5, band=band, cutoff=0.5)
        found = run_attack(method, middle, Threat("l2", 100))
        spectrum = np.abs(np.fft.fft2(found.candidates[0, :, :, 0] - 128))
        axis = np.fft.fftfreq(8) / 0.5
        is_low = np.hypot(axis[:, None], axis) <= 0.5
        share = (spectrum[is_low] ** 2).sum() / (spectrum**2).sum()
        assert share > 0.99 if band == "low" else share < 0.01


@dataclass(frozen=True)
class Spy:
    """Fools every other image that it is given, and remembers how many there were."""

    seen: list[int]
    needs = frozenset({"decisions"})
    norms = frozenset({"linf"})

    def run(self, problem):
        self.seen.append(len(problem.images))
        tried = problem.images.copy()
        problem.oracle.fooled(tried, np.arange(len(tried)))
        wide = problem.images.astype(np.float32)
        wide[::2] += 300
        return Found(wide)


@dataclass(frozen=True)
class InTurn:
    """The same spy, three times."""

    spy: Spy
    needs = frozenset({"decisions"})
    norms = frozenset({"linf"})

    def members(self, head, norm):
        return (self.spy,) * 3


def test_each_member_attacks_what_is_still_standing(toy):
    class Bright:
        """Fooled by white images alone."""

        dim, digest = 2, "sha256:bright"

        def embed(self, images):
            white = np.asarray(images).reshape(len(images), -1).min(axis=1) > 200
            return np.eye(2, dtype=np.float32)[white.astype(int)]

    images = np.zeros((8, 4, 4, 1), np.uint8)
    head = CosineHead(np.tile(np.eye(2, dtype=np.float32)[:1], (8, 1)))
    target = Target(Bright(), head, images, tuple("abcdefgh"))
    spy = Spy([])
    outcome = run_attack(InTurn(spy), target, Threat("linf", 255, query_limit=2))
    # With one query each and a limit of two, the third member asks nothing.
    assert spy.seen == [8, 4]
    assert outcome.success.tolist() == [True, True, True, False] * 2
    assert outcome.queries.tolist() == [1, 2] * 4
    assert outcome.usage.images == 12


def test_the_ensemble_is_no_weaker_than_its_members(toy):
    threat = replace(NEAR, query_limit=20)
    whole = run_attack(Auto(8, queries=20), toy, threat)
    for member in Auto(8, queries=20).members(toy.head, "linf"):
        assert whole.success.mean() >= rate(member, toy, threat) - 0.026
    names = [type(m) for m in Auto().members(CosineHead(toy.head.bank), "l2")]
    assert names == [APGDDecision, FeatureAway]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("apgd_ce", {"steps": 0}, "expected steps, restarts, batch >= 1, got 0, 1, 256"),
        ("apgd_dlr", {"targets": -1}, "expected targets >= 0, got -1"),
        ("feature_target", {"guide": "far"}, "expected the guide 'nearest' or 'random'"),
        ("fgsm", {"loss": "margin"}, "expected the loss decision or"),
        ("patch", {"places": 0}, "expected places, steps, batch >= 1"),
        ("universal", {"share": 0}, "expected a cutoff in"),
        ("universal", {"band": "middle"}, "the band 'all', 'high' or 'low'"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(InvalidInput, match=message):
        attacks.get(name)(**settings)
