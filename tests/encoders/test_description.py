import pytest

from embedkit.encoders.description import Description, describe
from embedkit.encoders.encoder import build_encoder
from embedkit.preprocess import InputSpec


def _encoder(size, **arguments):
    spec = InputSpec(*size)
    return build_encoder({"input": spec.to_dict(), **arguments})


def test_residual_network_counted_by_hand():
    encoder = _encoder((10, 8, 1), name="resnet", blocks=[1, 1], width=4)
    full, half = 10 * 8, 5 * 4
    products = full * 9 * (1 * 4 + 4 * 4 + 4 * 4) + half * (9 * (4 * 8 + 8 * 8) + 4 * 8)
    convolutions = 9 * (4 + 16 + 16 + 32 + 64) + 32
    norms = 2 * (4 * 3 + 8 * 3)
    assert describe(encoder) == Description(convolutions + norms, 2 * products)


def test_transformer_counted_by_hand():
    encoder = _encoder((8, 8, 3), name="vit", dim=12, depth=2, heads=3, registers=2)
    patches, tokens, dim = 4, 4 + 1 + 2, 12
    linear = tokens * dim * dim * (3 + 1 + 4 + 4)
    attention = 2 * tokens * tokens * dim
    products = patches * 48 * dim + 2 * (linear + attention)
    assert describe(encoder).flops == 2 * products


@pytest.mark.parametrize("training", [True, False])
def test_encoder_is_left_as_it_was(training):
    encoder = _encoder((8, 8, 1), name="resnet").train(training)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    describe(encoder)
    assert encoder.training is training
    assert all((before[k] == v).all() for k, v in encoder.state_dict().items())


def test_text_is_short():
    assert str(Description(173_304, 3_420_000)) == "173 k parameters, 3.42 M FLOPs per image"
    assert str(Description(12, 4_100_000_000)) == "12 parameters, 4.1 G FLOPs per image"
