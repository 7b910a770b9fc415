"""Our objectives against lightly's losses, loaded one file at a time without torchvision."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from embedkit.train.objective import Batch
from embedkit.train.objectives.barlow_twins import BarlowTwins
from embedkit.train.objectives.dcl import DCL
from embedkit.train.objectives.dclw import DCLW
from embedkit.train.objectives.moco import MoCo
from embedkit.train.objectives.simclr import SimCLR
from embedkit.train.objectives.tico import Covariance, TiCo
from embedkit.train.objectives.vicreg import VICReg
from embedkit.train.objectives.whitening import Whitening
from embedkit.train.terms import Queue

pytestmark = pytest.mark.peer

IMAGES, DIM = 24, 6
PARTS = ("lightly", "lightly.loss", "lightly.utils", "lightly.models", "lightly.models.modules")


@pytest.fixture(scope="module")
def lightly():
    """lightly's losses; its packages are stand-ins, since theirs import torchvision."""
    spec = importlib.util.find_spec("lightly")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("lightly is not installed")
    root = Path(next(iter(spec.submodule_search_locations))).parent
    with pytest.MonkeyPatch.context() as patch:
        for name in PARTS:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")))]
            patch.setitem(sys.modules, name, package)
        # The memory bank wants a deprecation helper of this module and nothing else.
        sys.modules["lightly.models"].utils = ModuleType("utils")  # type: ignore[attr-defined]
        names = ("barlow_twins", "dcl", "ntx_ent", "tico", "vicreg", "wmse")
        yield SimpleNamespace(
            **{n: importlib.import_module(f"lightly.loss.{n}_loss") for n in names}
        )


# DCLW's weights build a tensor from a tensor.
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")
def test_losses_and_gradients_of_two_views(lightly):
    pairs = [
        (SimCLR(0.3), lightly.ntx_ent.NTXentLoss(0.3)),
        (DCL(0.3), lightly.dcl.DCLLoss(0.3)),
        (DCLW(0.3, sigma=0.4), lightly.dcl.DCLWLoss(0.3, sigma=0.4)),
        (BarlowTwins(0.02), lightly.barlow_twins.BarlowTwinsLoss(0.02)),
        (VICReg(), lightly.vicreg.VICRegLoss()),
    ]
    for ours, theirs in pairs:
        z = _vectors(1).requires_grad_()
        loss = ours(Batch(z, z)).total
        (mine,) = torch.autograd.grad(loss, z)
        expected = theirs(z[0], z[1])
        (their,) = torch.autograd.grad(expected, z)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4), ours
        assert torch.allclose(mine, their, rtol=1e-3, atol=1e-5), ours


def test_moco_with_its_queue(lightly):
    z, teacher, queue = _vectors(1), _vectors(2), Queue(10, DIM)
    theirs = lightly.ntx_ent.NTXentLoss(0.3, memory_bank_size=(10, DIM))
    theirs.memory_bank.bank = queue.read()
    expected = theirs(z[0], teacher[1])
    both = Batch(z[[0, 0]], z[[0, 0]], module=queue, teacher=teacher[[1, 1]])
    assert MoCo(0.3, queue=10)(both).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_tico_over_two_steps(lightly):
    ours, module = TiCo(memory=0.9, contrast=8.0), Covariance(DIM)
    theirs = lightly.tico.TiCoLoss(beta=0.9, rho=8.0)
    for seed in (1, 3):
        z, teacher = _vectors(seed), _vectors(seed + 1)
        expected = theirs(z[0], teacher[1])
        both = Batch(z[[0, 0]], z[[0, 0]], module=module, teacher=teacher[[1, 1]])
        assert ours(both).total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_whitening_of_the_whole_batch(lightly):
    z = _vectors(1)
    theirs = lightly.wmse.WMSELoss(DIM, eps=0.01, w_size=IMAGES)
    expected = theirs(z.flatten(0, 1))
    loss = Whitening(shrinkage=0.01)(Batch(z, z)).total
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def _vectors(seed):
    """Two views, near one another, (2, IMAGES, DIM)."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, IMAGES, DIM, generator=generator)
    return shared + 0.5 * torch.randn(2, IMAGES, DIM, generator=generator)
