"""Foreign weights find their places by name, by mapping or by order, or not at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from embedkit.errors import InvalidInput, NotFound
from embedkit.export.state_dict import match_state, read_state


def own() -> dict[str, torch.Tensor]:
    return {
        "net.conv.weight": torch.zeros(4, 3, 3, 3),
        "net.bn.weight": torch.zeros(4),
        "net.bn.bias": torch.zeros(4),
        "net.bn.running_mean": torch.zeros(4),
        "net.bn.num_batches_tracked": torch.tensor(0),
    }


def trained(prefix: str = "") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + name.removeprefix("net."): torch.rand(value.shape, generator=generator)
        for name, value in own().items()
        if "tracked" not in name
    }


@pytest.mark.parametrize(
    "prefix", ["", "net.", "module.", "module.backbone.", "model.encoder."]
)
def test_equal_names_match_whatever_wraps_them(prefix: str) -> None:
    state, rest = match_state(trained(prefix), own())
    assert set(state) == set(own())
    assert rest == {}
    assert torch.equal(state["net.conv.weight"], trained()["conv.weight"])
    assert torch.equal(state["net.bn.bias"], trained()["bn.bias"])


def test_what_is_left_over_is_given_back() -> None:
    foreign = {
        **trained(),
        "fc.weight": torch.ones(10, 4),
        "bn.num_batches_tracked": torch.ones(1),
    }
    state, rest = match_state(foreign, own())
    assert list(rest) == ["fc.weight"]
    assert torch.equal(state["net.bn.num_batches_tracked"], torch.tensor(0))


def test_other_names_match_by_order_shape_and_last_part() -> None:
    names = {"conv.weight": "a.0.weight", "bn.weight": "a.1.weight", "bn.bias": "a.1.bias"}
    foreign = {names.get(k, "a.1.running_mean"): v for k, v in trained().items()}
    state, _ = match_state({**foreign, "head.weight": torch.ones(2, 4)}, own())
    assert torch.equal(state["net.bn.bias"], foreign["a.1.bias"])


def test_order_never_pairs_a_weight_with_a_bias() -> None:
    names = {"conv.weight": "a.0.weight", "bn.weight": "a.1.bias", "bn.bias": "a.1.weight"}
    foreign = {names.get(k, "a.1.running_mean"): v for k, v in trained().items()}
    with pytest.raises(InvalidInput, match=r"missing: net\.conv\.weight.*--mapping"):
        match_state(foreign, own())


def test_a_mapping_file_decides(tmp_path: Path) -> None:
    foreign = {f"x{i}": value for i, value in enumerate(trained().values())}
    names = {f"x{i}": f"net.{name}" for i, name in enumerate(trained())}
    path = tmp_path / "names.json"
    path.write_text(json.dumps(names))
    state, _ = match_state(foreign, own(), mapping=path)
    assert torch.equal(state["net.bn.bias"], trained()["bn.bias"])
    path.write_text(json.dumps({"nothing": "net.bn.bias"}))
    with pytest.raises(InvalidInput, match="nothing"):
        match_state(foreign, own(), mapping=path)
    for text in ("[]", "{", ""):
        path.write_text(text)
        with pytest.raises(InvalidInput, match="JSON"):
            match_state(foreign, own(), mapping=path)


def test_two_tensors_for_one_place_are_refused_and_a_mapping_decides(tmp_path: Path) -> None:
    """A checkpoint may hold a network and its averaged copy."""
    foreign = {**trained("encoder."), **trained("module.model.")}
    with pytest.raises(
        InvalidInput,
        match=r"net\.conv\.weight .* encoder\.conv\.weight, module\.model\.conv\.weight,.*"
        "--mapping",
    ):
        match_state(foreign, own())
    path = tmp_path / "names.json"
    path.write_text(json.dumps({f"module.model.{name}": f"net.{name}" for name in trained()}))
    state, rest = match_state(foreign, own(), mapping=path)
    assert torch.equal(state["net.bn.bias"], foreign["module.model.bn.bias"])
    assert set(rest) == set(trained("encoder."))


def test_misfits_are_listed() -> None:
    foreign = trained()
    del foreign["bn.bias"]
    foreign["conv.weight"] = torch.zeros(4, 1, 3, 3)
    with pytest.raises(
        InvalidInput,
        match=r"missing: net\.bn\.bias; of another shape: net\.conv\.weight: "
        r"expected \(4, 3, 3, 3\), got \(4, 1, 3, 3\)",
    ):
        match_state(foreign, own())


def test_half_precision_becomes_single() -> None:
    foreign = {name: value.half() for name, value in trained().items()}
    state, _ = match_state(foreign, own())
    assert state["net.conv.weight"].dtype == torch.float32


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pt_and_safetensors_files_are_read(tmp_path: Path, wrapper: str | None) -> None:
    save_file(trained(), tmp_path / "w.safetensors")
    content = trained() if wrapper is None else {"epoch": 3, wrapper: trained()}
    torch.save(content, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        assert set(read_state(tmp_path / name)) == set(trained())


class Evil:
    """Runs code when a pickle of it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_a_pt_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(InvalidInput, match="expected"):
            read_state(tmp_path / name)


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a file of torch")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 20)
    for name in ("list.pt", "bad.pt", "bad.safetensors"):
        with pytest.raises(InvalidInput, match=name):
            read_state(tmp_path / name)
    with pytest.raises(NotFound, match="does not exist"):
        read_state(tmp_path / "none.pt")
