"""MAE: the loss of section 3, and a decoder that sees where each token belongs."""

import numpy as np
import pytest
import torch

from embedkit.encoders.patches import PatchDecoder, cut
from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.mae import MAE

SIZES = Sizes(dim=5, feature_dim=5, image_shape=(6, 4, 3), grid=(3, 2), patch=2)


def test_patches_are_cut_row_by_row(rng):
    pixels = rng.random(size=(2, 3, 6, 4))
    patches = cut(torch.tensor(pixels), (3, 2), 2).numpy()
    for image in range(2):
        for row in range(3):
            for column in range(2):
                block = pixels[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                expected = block.transpose(1, 2, 0).ravel()
                np.testing.assert_array_equal(patches[image, 2 * row + column], expected)


def test_an_image_that_is_no_multiple_is_padded_with_zeros():
    patches = cut(torch.ones(1, 1, 3, 2), (2, 1), 2)
    assert patches.tolist() == [[[1, 1, 1, 1], [1, 1, 0, 0]]]


@pytest.mark.parametrize("standardised", [True, False])
def test_only_hidden_patches_count(rng, standardised):
    objective = MAE(dim=8, heads=2, standardised=standardised)
    batch = _batch(objective, rng)
    predicted = batch.module.decoder(batch.tokens[0], batch.mask[0]).detach().double().numpy()
    target = cut(batch.pixels[0].double(), (3, 2), 2).numpy()
    errors = []
    for image in range(3):
        for patch in range(6):
            if not batch.mask[0, image, patch]:
                continue
            aim = target[image, patch]
            if standardised:
                aim = (aim - aim.mean()) / np.sqrt(aim.var(ddof=1) + 1e-6)
            errors.append(np.mean((predicted[image, patch] - aim) ** 2))
    assert len(errors) == 3 * 4
    assert objective(batch).total.item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_decoder_puts_tokens_in_their_places():
    torch.manual_seed(0)
    decoder = PatchDecoder(5, (3, 2), 4, dim=8, depth=1, heads=2).eval()
    tokens = torch.randn(1, 2, 5)
    first, second = (torch.ones(1, 6, dtype=torch.bool) for _ in range(2))
    first[0, [0, 3]] = False
    second[0, [3, 5]] = False
    with torch.no_grad():
        # The same tokens at other places are another image, in another order the same one.
        assert not torch.allclose(decoder(tokens, first), decoder(tokens, second), atol=1e-4)
        embedded = decoder.embed(tokens)
        x = decoder.mask_token.expand(1, 6, -1).clone()
        x[0, 0], x[0, 3] = embedded[0, 0], embedded[0, 1]
        by_hand = decoder.predict(decoder.norm(decoder.blocks(x + decoder.positions)))
    torch.testing.assert_close(decoder(tokens, first), by_hand)


@pytest.mark.parametrize("arguments", [{"hidden": 0.0}, {"dim": 6}, {"depth": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        MAE(**arguments)


def _batch(objective, rng):
    torch.manual_seed(0)
    mask = torch.tensor([[[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 0], [1, 0, 1, 0, 1, 1]]]).bool()
    features = torch.zeros(1, 3, 5)
    return Batch(
        features,
        features,
        module=objective.build(SIZES),
        tokens=torch.tensor(rng.normal(size=(1, 3, 2, 5)), dtype=torch.float32),
        mask=mask,
        pixels=torch.tensor(rng.random(size=(1, 3, 3, 6, 4)), dtype=torch.float32),
    )
