import pytest
import torch
from torch import nn

from embedkit.encoders.heads import prediction_head, projection_head
from embedkit.errors import InvalidInput


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_projection_head_has_the_asked_layers_and_sizes(layers, norm):
    head = projection_head(6, 10, 4, layers=layers, norm=norm)
    shapes = [tuple(m.weight.shape) for m in head if isinstance(m, nn.Linear)]
    assert (
        shapes == {1: [(4, 6)], 2: [(10, 6), (4, 10)], 3: [(10, 6), (10, 10), (4, 10)]}[layers]
    )
    assert sum(isinstance(m, nn.ReLU) for m in head) == layers - 1
    assert head(torch.zeros(5, 6)).shape == (5, 4)


def test_projection_head_is_linear_norm_relu_linear(rng):
    head = projection_head(6, 10, 4)
    x = torch.from_numpy(rng.normal(size=(32, 6))).float()
    first, last = (head.get_parameter(f"{i}.weight") for i in (0, 3))
    hidden = x @ first.T
    hidden = (hidden - hidden.mean(0)) / torch.sqrt(hidden.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(head(x), hidden.relu() @ last.T)


def test_batch_norm_leaves_no_bias_without_effect():
    with_norm, without = projection_head(6, 10, 4), projection_head(6, 10, 4, norm="none")
    assert with_norm[0].bias is None
    assert without[0].bias is not None


def test_prediction_head_maps_projections_onto_themselves():
    head = prediction_head(4, 16)
    assert head(torch.zeros(3, 4)).shape == (3, 4)
    assert [type(m) for m in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


def test_wrong_sizes_and_norms_are_refused():
    with pytest.raises(InvalidInput, match="layers=0"):
        projection_head(4, 4, 4, layers=0)
    with pytest.raises(InvalidInput, match="hidden=0"):
        prediction_head(4, 0)
    with pytest.raises(
        InvalidInput, match="expected the norm batch, layer or none, got 'group'"
    ):
        prediction_head(4, 4, norm="group")  # type: ignore[arg-type]
