"""Errors, types and registries: the words that every stage shares."""

import importlib
import re
import subprocess
import sys
import textwrap
from typing import NewType

import grpc
import numpy as np
import pytest

import embedkit.errors as errors_module
from embedkit import errors, types
from embedkit.errors import EmbedkitError, InvalidInput
from embedkit.registry import Registry, configure
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages

ERRORS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_carries_what_the_wire_and_the_command_line_need(error):
    assert issubclass(error, EmbedkitError)
    assert error.status in grpc.StatusCode.__members__
    assert re.fullmatch("[A-Z_]+", error.reason)
    assert error.exit_code in (1, 2)
    assert error.__doc__


def test_all_names_every_error_and_reasons_are_distinct():
    defined = {
        name
        for name, value in vars(errors_module).items()
        if isinstance(value, type) and issubclass(value, EmbedkitError)
    }
    assert defined == set(errors.__all__)
    own_reason = [error.reason for error in ERRORS if "reason" in vars(error)]
    assert len(set(own_reason)) == len(own_reason)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"^    [ |]*(?:\|- )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(errors.__all__)
    rows = re.findall(
        r"^    \|- (\w+) +([A-Z_]{5,}) +exit (\d)", errors.__doc__ or "", re.MULTILINE
    )
    assert len(rows) > 10
    for name, status, exit_code in rows:
        error = getattr(errors, name)
        assert (error.status, error.exit_code) == (status, int(exit_code)), name


def test_where_a_retry_helps_the_error_says_when():
    retried = {error.__name__ for error in ERRORS if error.retry_s is not None}
    assert retried == {"QueueFull", "RateLimited", "Unavailable"}


def test_wrong_input_is_a_value_error_too():
    with pytest.raises(ValueError, match="expected 3, got 4"):
        raise errors.BadImage("expected 3, got 4")


def test_all_names_every_type():
    for name in types.__all__:
        assert hasattr(types, name)


def test_the_shipped_fakes_meet_their_protocols():
    assert isinstance(ConstantEmbedder(), types.Embedder)
    assert isinstance(PerfectEmbedder(SyntheticImages()), types.Embedder)
    assert not isinstance(np.zeros(3), types.Embedder)
    assert not isinstance(ConstantEmbedder(), types.Searcher)


def test_results_are_values():
    assert types.Hit("a", 0.5) == types.Hit("a", 0.5, None)
    assert types.Usage() == types.Usage(0, 0, 0, 0)
    with pytest.raises(AttributeError):
        types.Hit("a", 0.5).score = 1.0


@pytest.fixture
def teas(tmp_path, monkeypatch):
    """A registry over a package with two methods and three other modules."""
    files = {
        "__init__": '"""Teas."""',
        "green": """
            '''Not the summary.'''
            from teas_for_test import registry

            @registry.teas.register("green")
            class Green:
                '''Steamed leaves.

                More of it.
                '''
            """,
        "black": """
            '''Rolled leaves.'''
            from teas_for_test import registry

            registry.teas.register("black")(3)
            """,
        "forgetful": "'''Registers nothing.'''",
        "registry": """
            from embedkit.registry import Registry, configure

            teas = Registry("teas_for_test", "tea", exclude=("registry",))
            """,
        "_private": "",
    }
    package = tmp_path / "teas_for_test"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("teas_for_test.registry").teas
    for name in [name for name in sys.modules if name.startswith("teas_for_test")]:
        del sys.modules[name]


def test_names_are_the_files_and_nothing_is_imported(teas):
    assert teas.names() == ("black", "forgetful", "green")
    assert "teas_for_test.green" not in sys.modules


def test_a_summary_is_read_from_the_file(teas):
    assert teas.summary("green") == "Steamed leaves."
    assert teas.summary("black") == "Rolled leaves."
    assert "teas_for_test.green" not in sys.modules


def test_only_the_one_asked_for_is_imported(teas):
    assert teas.get("green").__name__ == "Green"
    assert "teas_for_test.black" not in sys.modules
    assert teas.get("black") == 3
    assert teas.get("green") is teas.get("green")


def test_an_unknown_name_suggests_the_nearest(teas):
    with pytest.raises(
        InvalidInput,
        match=r"unknown tea 'gren'; did you mean 'green'\? \(known: black, forgetful, green\)",
    ):
        teas.get("gren")


def test_a_name_like_no_other_suggests_nothing(teas):
    with pytest.raises(InvalidInput, match=r"unknown tea 'zzz' \(known:"):
        teas.get("zzz")


def test_a_name_is_never_a_way_to_another_module(teas):
    for name in ("registry", "_private", "..os", "os", "../green", ""):
        with pytest.raises(InvalidInput, match="unknown tea"):
            teas.get(name)


def test_a_module_that_registers_nothing_is_an_error(teas):
    with pytest.raises(InvalidInput, match="to register the tea 'forgetful', got no such"):
        teas.get("forgetful")


def test_a_name_cannot_be_taken_twice(teas):
    teas.register("white")(1)
    assert teas.names() == ("black", "forgetful", "green", "white")
    with pytest.raises(
        InvalidInput, match="expected a new tea name, got 'white' a second time"
    ):
        teas.register("white")(2)


def test_a_package_that_is_none_has_no_names():
    assert Registry("embedkit.errors", "error").names() == ()


def test_an_entry_point_of_another_package_is_a_method(teas, tmp_path):
    (tmp_path / "herbal_tea.py").write_text(
        "from teas_for_test import registry\nregistry.teas.register('mint')('leaves')\n"
    )
    information = tmp_path / "herbal-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: herbal\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[teas_for_test]\nmint = herbal_tea\n")
    importlib.invalidate_caches()
    assert teas.names() == ("black", "forgetful", "green", "mint")
    assert teas.summary("mint") == "from herbal_tea"
    assert teas.summary("oolong") == ""
    assert teas.get("mint") == "leaves"
    del sys.modules["herbal_tea"]


def test_an_annotation_that_is_no_type_accepts_everything():
    kind = NewType("kind", int)

    def brew(*, leaf: kind) -> object:
        return leaf

    assert configure(brew, {"leaf": "green"}, noun="tea") == "green"


def test_the_vocabulary_loads_nothing_heavy():
    code = (
        "import sys, embedkit.preprocess, embedkit.registry, embedkit.data.source, "
        "embedkit.measures.knn, embedkit.measures.auroc, embedkit.measures.geometry\n"
        "heavy = 'torch onnxruntime faiss grpc click PIL sklearn scipy'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
