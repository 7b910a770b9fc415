"""The page: complete, self-contained, well formed, and deaf to hostile names."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from embedkit.evaluate.gate import GateResult
from embedkit.evaluate.html import render
from embedkit.evaluate.measurement.figures import png
from embedkit.evaluate.report import Report
from embedkit.evaluate.task import Metric, TaskResult

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would see: tags in balance, attributes, visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.visible: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.visible.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.visible).split())


def dataset(name):
    return {
        "name": name,
        "n": 1234,
        "digest": "sha256:data",
        "class_names": [name],
        "skipped": 0,
    }


def make_report(name="digits", **changes):
    """A report with every kind of figure, in which all text is ``name``."""
    share = Metric(0.9, (0.85, 0.95), 500, ci_method="wilson")
    rival = Metric(0.7, (0.6, 0.8), 500, ci_method="wilson")
    line = {"y": [1.0, 0.5], "lo": [0.9, 0.4], "hi": [1.0, 0.6]}
    image = png(np.full((8, 8, 1), 200, np.uint8))
    figures = {
        "roc": {"kind": "roc", "fpr": [0, 1], "tpr": [0, 1], "label": name},
        "scores": {"kind": "histogram", "title": name, "series": {name: [1.0, 2.0, 2.5]}},
        "curve": {
            "kind": "curve",
            "x": [0, 8],
            "series": {name: line},
            "xlabel": name,
            "ylabel": name,
        },
        "map": {"kind": "scatter2d", "x": [0, 1], "y": [1, 0], "labels": [name, "b"]},
        "grid": {"kind": "image_grid", "rows": [{"label": name, "images": [image]}]},
        "later": {"kind": "hologram", "title": name},
    }
    knn = TaskResult(
        "knn",
        {"top1": share, f"{name}.count": Metric(3, None, 9, unit=name)},
        {"raw_pixels": {"top1": rival}, name: {"top1": rival}},
        cost={"images": 1000},
        warnings=(f"careful with {name}",),
        figures=figures,
    )
    skipped = TaskResult("ood", status="skipped", warnings=(f"no set called {name}",))
    values = {
        "model": {
            "name": name,
            "version": "1",
            "transport": "grpc",
            "address": name,
            "provider": name,
            "digest": "sha256:model",
            "dim": 64,
            "input": {"height": 8, "preprocess": {"resize": name}},
        },
        "data": {"train": dataset(name), "test": dataset(name), "ood": {name: dataset(name)}},
        "run": {"started": "2026-01-02T03:04:05+00:00", "seed": 0, "suite": ["knn", name]},
        "results": (knn, skipped),
        "timing": {"knn": 1.25},
        "gates": (GateResult("knn.top1>=0.95", 0.9, False, name),),
        **changes,
    }
    return Report(**values)


@pytest.fixture
def page():
    return Page(render(make_report().to_dict()))


def test_every_part_is_on_the_page(page):
    for part in (
        "digits version 1",
        "Measured through gRPC at digits",
        "1,234 test images",
        "failed knn.top1>=0.95 value 0.9",
        "0.900",
        "0.850 to 0.950",
        "0.700",
        "careful with digits",
        "skipped : no set called digits",
        "share of test images whose most likely class is the right one",
        "Cost: 1,000 images, 1.2 s",
        "sha256:model",
        "input.preprocess.resize",
    ):
        assert part in page.text
    assert page.tags.count("figure") == 5
    assert page.tags.count("img") == 1


def test_the_page_needs_no_network_and_no_script(page):
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name == "href":
            assert str(value).startswith("#")
        if name == "src":
            assert str(value).startswith("data:image/png;base64,")
    contents = [str(value) for name, value in page.attributes if name == "content"]
    assert any(value.startswith("default-src 'none'") for value in contents)
    text = render(make_report().to_dict())
    assert "url(" not in text
    assert "@import" not in text


def test_every_anchor_has_a_target(page):
    targets = {value for name, value in page.attributes if name == "id"}
    for name, value in page.attributes:
        if name == "href":
            assert str(value)[1:] in targets


def test_hostile_names_stay_text():
    """The page of hostile names has the tags and attributes of one with honest names."""

    def draw(name):
        report = make_report(name, problems=(name,)).to_dict()
        report["results"][0]["task"] = name
        report["figures"] = {name: report["figures"]["knn"]}
        report["figures"][name]["grid"]["rows"][0]["images"].append(f'{name}" onload="x')
        return Page(render(report))

    page, honest = draw(HOSTILE), draw("honest")
    assert page.tags == honest.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in honest.attributes}
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in page.text


def test_images_that_are_not_base64_are_left_out():
    report = make_report().to_dict()
    report["figures"]["knn"]["grid"]["rows"][0]["images"] = ["x' onload='y", 5, "aGk="]
    page = Page(render(report))
    sources = [value for name, value in page.attributes if name == "src"]
    assert sources == ["data:image/png;base64,aGk="]
    assert base64.b64decode("aGk=") == b"hi"


def test_an_invalid_run_says_so_first():
    text = Page(render(make_report(problems=("the served model changed",)).to_dict())).text
    assert text.index("This run is not valid") < text.index("Summary")
    assert "the served model changed" in text


def test_numbers_that_are_not_finite_are_named():
    broken = TaskResult("knn", {"top1": Metric(float("nan"), None, 0)})
    assert "not finite" in Page(render(make_report(results=(broken,)).to_dict())).text


def test_a_report_of_nothing_still_renders():
    empty = make_report(results=(), gates=(), timing={})
    page = Page(render(empty.to_dict()))
    assert "Summary" in page.text
    assert page.tags.count("figure") == 0


def test_the_page_says_what_ran_the_model():
    model = {**make_report().model, "provider": "CUDAExecutionProvider"}
    text = Page(render(make_report(model=model).to_dict())).text
    assert "CUDAExecutionProvider" in text
    model["provider"] = ""
    assert "run by" not in Page(render(make_report(model=model).to_dict())).text


def test_a_page_in_process_does_not_claim_a_server():
    model = {**make_report().model, "transport": "in-process", "address": ""}
    text = Page(render(make_report(model=model).to_dict())).text
    assert "not through a server" in text
    assert "gRPC" not in text


def test_a_task_that_the_page_does_not_know_is_shown_by_its_name():
    other = TaskResult("surprise", {"p50_ms": Metric(1.5, None, 10, "ms")})
    text = Page(render(make_report(results=(other,)).to_dict())).text
    assert "surprise.p50_ms" in text
    assert "1.5" in text


def test_the_page_is_the_same_after_json():
    values = make_report().to_dict()
    assert render(json.loads(json.dumps(values))) == render(values)


def test_long_tables_start_folded():
    many = {f"m{i}": Metric(0.5, (0.4, 0.6), 10) for i in range(20)}
    folded = render(make_report(results=(TaskResult("knn", many),)).to_dict())
    assert "<details>\n<summary>20 metrics" in folded
    assert "<details open>\n<summary>2 metrics" in render(make_report().to_dict())


def test_the_picture_survives():
    import io

    page = Page(render(make_report().to_dict()))
    source = next(str(value) for name, value in page.attributes if name == "src")
    data = base64.b64decode(source.split(",", 1)[1])
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == [[200] * 8] * 8


def test_every_number_leads_to_its_definition():
    page = render(make_report().to_dict())
    links = set(re.findall(r'class="defined" href="#([^"]+)"', page))
    assert "knn-top1" in links
    for anchor in links:
        assert page.count(f'id="{anchor}"') == 1


def test_what_describes_a_model_gets_no_traffic_light():
    ours = {
        "rankme": Metric(5.0, None, 10, "directions"),
        "purity_k10": Metric(0.5, (0.4, 0.6), 10),
    }
    raw = {
        "rankme": Metric(9.0, None, 10, "directions"),
        "purity_k10": Metric(0.9, (0.8, 1), 10),
    }
    result = TaskResult("geometry", ours, {"raw_pixels": raw})
    page = render(make_report(results=(result,)).to_dict())
    lights = re.findall(r'class="light (\w+)" title="([^"]+)"', page)
    assert ("none", "says how the model is, and not how good") in lights
    assert any(light == "bad" for light, _ in lights)
