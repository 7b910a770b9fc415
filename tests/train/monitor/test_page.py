"""The page of a run: whole, alone, and showing what the folder holds."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from embedkit.encoders.encoder import build_encoder
from embedkit.errors import BundleDamaged
from embedkit.measures.knn import weighted_knn
from embedkit.preprocess import InputSpec
from embedkit.train.images import load_images
from embedkit.train.loop import train
from embedkit.train.monitor.charts import line_chart, thinned
from embedkit.train.monitor.probe import Maps, Probe, common_plane
from embedkit.train.objective import build_objective
from embedkit.train.supply.features import embed_some

CPU = torch.device("cpu")


class Outline(HTMLParser):
    """Tags, what they point to, and whether each is closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(path):
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


@pytest.fixture
def watched(small, tmp_path):
    recipe = small(run={"probe_steps": 3, "probe_images": 50}, objective={"name": "vicreg"})
    train(recipe, tmp_path / "run")
    return tmp_path / "run"


def test_a_page_needs_nothing_beside_itself(watched):
    page = outline(watched / "report.html")
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    text = (watched / "report.html").read_text()
    assert "@import" not in text
    assert "url(" not in text


def test_a_page_shows_parts_measures_neighbours_and_maps(watched):
    text = (watched / "report.html").read_text()
    for title in (
        "loss",
        "parts of the loss",
        "online kNN",
        "effective rank",
        "standard deviation, share",
    ):
        assert f"<figcaption>{title}" in text
    for part in ("invariance", "variance", "covariance"):
        assert f">{part}</span>" in text
    # Every third step, and the last one.
    assert re.findall(r"<figcaption>step (\d+)</figcaption>", text) == ["3", "6", "8"]
    first_map = text.split('class="map"')[1].split("</svg>")[0]
    assert first_map.count("<circle") == 50
    assert "vicreg" in text.split("<pre>")[1]


def test_a_page_is_written_while_the_run_goes_on(small, tmp_path):
    pages = []

    def report(progress):
        path = tmp_path / "run" / "report.html"
        pages.append(path.read_text() if path.exists() else "")

    train(small(), tmp_path / "run", report=report)
    # A checkpoint is written after 3 and after 6 of 8 steps.
    assert pages[2] == ""
    assert "3 of 8" in pages[3]
    assert "6 of 8" in pages[7]
    assert "8 of 8" in (tmp_path / "run" / "report.html").read_text()


def test_names_from_outside_are_text(small, tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    np.savez(folder / "x.npz", images=images)
    train(small(data={"source": str(folder / "x.npz")}), tmp_path / "run")
    assert "script" not in outline(tmp_path / "run" / "report.html").tags


def test_a_probe_does_not_change_the_run(small, tmp_path, watched):
    train(small(objective={"name": "vicreg"}), tmp_path / "plain")
    assert (tmp_path / "plain" / "encoder.safetensors").read_bytes() == (
        watched / "encoder.safetensors"
    ).read_bytes()


def test_maps_go_on_after_a_kill_as_if_there_was_none(small, tmp_path):
    recipe = small(run={"probe_steps": 2, "probe_images": 30, "checkpoint_steps": 3})
    train(recipe, tmp_path / "whole")

    def crash(progress):
        if progress.step == 5:
            raise KeyError

    with pytest.raises(KeyError):
        train(recipe, tmp_path / "cut", report=crash)
    train(recipe, tmp_path / "cut", resume=True)
    whole, cut = Maps.read(tmp_path / "whole"), Maps.read(tmp_path / "cut")
    assert whole.steps == cut.steps == (2, 4, 6, 8)
    assert np.array_equal(whole.embeddings, cut.embeddings)


@pytest.mark.parametrize("content", [b"torn", b"PK\x03\x04 torn"])
def test_damaged_maps_are_reported(watched, content):
    (watched / "maps.npz").write_bytes(content)
    with pytest.raises(BundleDamaged, match=r"maps\.npz.*delete it"):
        Maps.read(watched)


def test_online_knn_is_that_of_the_measures(small, tmp_path):
    images = load_images(small(), build_objective("simclr", {}), CPU)
    config = {"name": "resnet", "blocks": [1, 1], "width": 4}
    spec = InputSpec(height=8, width=8, channels=1)
    encoder = build_encoder({**config, "input": spec.to_dict()}).train()
    probe = Probe.of(images, tmp_path, count=60, seed=1)
    assert len(set(probe.indices.tolist())) == 60
    found = probe.look(encoder, 1)
    assert encoder.training
    assert not encoder.net.bn1.num_batches_tracked
    encoder.eval()
    with torch.no_grad():
        z = encoder(images.images[probe.indices]).features.numpy()
    y = images.classes[probe.indices].numpy()
    guessed = weighted_knn(z[12:], y[12:], z[:12], ks=(20,), classes=10)[20]
    assert found == np.mean(guessed == y[:12])
    assert np.allclose(embed_some(encoder, images, probe.indices), z, atol=1e-5)


def test_only_so_many_maps_are_kept(small, tmp_path):
    images = load_images(small(), build_objective("simclr", {}), CPU)
    probe = Probe.of(images, tmp_path, count=5, seed=1)
    for step in range(1, 40):
        probe._keep(np.full((5, 3), step, np.float32), step)
        steps = Maps.read(tmp_path).steps
        assert len(steps) <= 16
        assert steps[0] == 1
        assert steps[-1] == step


def test_maps_share_the_plane_of_most_variance(rng):
    """Against a singular value decomposition of all looks together."""
    looks = rng.normal(size=(3, 40, 5)) * np.array([1, 5, 0.2, 3, 1])
    plane = common_plane(looks)
    flat = looks.reshape(-1, 5) - looks.reshape(-1, 5).mean(axis=0)
    _, _, rows = np.linalg.svd(flat, full_matrices=False)
    expected = (flat @ rows[:2].T).reshape(3, 40, 2)
    assert np.allclose(np.abs(plane), np.abs(expected))
    assert np.array_equal(common_plane(looks[:, :, :1]).shape, (3, 40, 2))


def test_lines_are_placed_between_least_and_greatest():
    svg = line_chart("t", [0, 5, 10], {"a": [1.0, None, 3.0], "b": [2.0, float("nan"), 2.0]})
    lines = re.findall(r'points="([^"]+)"', svg)
    assert lines[0] == "64.0,196.0 460.0,8.0"
    assert lines[1:] == ["64.0,102.0", "460.0,102.0"]
    assert line_chart("t", [1], {"a": [None]}) == ""
    assert thinned([0.0] * 1000)[0] == 0
    assert thinned([0.0] * 1000)[-1] == 999
    assert len(thinned([0.0] * 1000)) == 400
