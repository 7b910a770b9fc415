"""lightly's own loop, one turn per line of standard input: ``lightly_loop.py PIXELS.npy``.

Its loss, transforms, data set and DataLoader around the same network and optimiser as ours. A
line is JSON. With ``workers``, ``channels_last``, ``bf16``, ``compile``, ``warm`` and ``steps``
the answer is images per second over ``steps`` after ``warm`` ones. With ``objective``,
``seed``, ``images``, ``epochs``, ``lr``, ``workers`` and ``out`` a network is trained on the
first images, its features of all go to the file ``out``, and the answer is the mean loss of the
last epoch.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch

_BATCH = 256
_FEATURES_AT_ONCE = 500


def _stub_operators() -> object:
    """Declare the two compiled operators that torchvision describes when it is imported."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


class _Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """PIL images made from an array in memory, under lightly's transform."""

    def __init__(self, pixels: np.ndarray, transform: object) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> object:
        from PIL import Image

        pixels = self.pixels[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image)  # type: ignore[operator]


class _Network(torch.nn.Module):
    """Our encoder's network under lightly's projection head."""

    def __init__(self, channels: int, px: int) -> None:
        super().__init__()
        from lightly.models.modules import SimCLRProjectionHead

        from embedkit.encoders.resnet import ResNet
        from embedkit.preprocess import InputSpec

        self.net = ResNet().build(InputSpec(height=px, width=px, channels=channels))
        self.head = SimCLRProjectionHead(self.net.feature_dim, 256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(x).features)


def _loader(pixels: np.ndarray, workers: int) -> torch.utils.data.DataLoader:  # type: ignore[type-arg]
    """Batches of two views, drawn as lightly's examples do."""
    from lightly.transforms import SimCLRTransform

    channels, px = pixels.shape[-1], pixels.shape[1]
    transform = SimCLRTransform(
        input_size=px,
        cj_strength=0.5,
        min_scale=0.2,
        gaussian_blur=0.0,
        normalize={"mean": [0.5] * channels, "std": [0.25] * channels},
    )
    return torch.utils.data.DataLoader(
        _Pictures(pixels, transform),
        batch_size=_BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )


def _criterion(objective: str) -> torch.nn.Module:
    """A loss of lightly: simclr at our temperature, the others as lightly sets them."""
    from lightly import loss

    losses = {
        "simclr": lambda: loss.NTXentLoss(temperature=0.2),
        "dcl": loss.DCLLoss,
        "dclw": loss.DCLWLoss,
    }
    return losses[objective]()  # type: ignore[no-any-return,operator]


def turn(pixels: np.ndarray, options: dict[str, Any]) -> float:
    """Images per second of one stretch of lightly's loop."""
    form = torch.channels_last if options["channels_last"] else torch.contiguous_format
    network = _Network(pixels.shape[-1], pixels.shape[1]).to(memory_format=form)
    if options["compile"]:
        network.compile()
    criterion = _criterion("simclr")
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    total, began = torch.zeros(()), 0.0
    for step, (x0, x1) in enumerate(_loader(pixels, options["workers"])):
        if step == options["warm"]:
            began = time.perf_counter()
        if step == options["warm"] + options["steps"]:
            break
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(options["bf16"])):
            z0 = network(x0.to(memory_format=form))
            z1 = network(x1.to(memory_format=form))
        loss = criterion(z0.float(), z1.float())
        total += loss.detach()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return options["steps"] * _BATCH / (time.perf_counter() - began)


def trained(pixels: np.ndarray, options: dict[str, Any]) -> float:
    """Train on the first pixels, write the features of all; the mean loss of the last epoch."""
    torch.manual_seed(options["seed"])
    np.random.seed(options["seed"])
    form = torch.channels_last
    network = _Network(pixels.shape[-1], pixels.shape[1]).to(memory_format=form)
    criterion = _criterion(options["objective"])
    rate = options["lr"]
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    loader = _loader(pixels[: options["images"]], options["workers"])
    seen: list[float] = []
    for _ in range(options["epochs"]):
        seen = []
        for x0, x1 in loader:
            loss = criterion(
                network(x0.to(memory_format=form)), network(x1.to(memory_format=form))
            )
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            seen.append(float(loss))
    np.save(options["out"], _features(network.net, pixels), allow_pickle=False)
    return sum(seen) / len(seen)


def _features(net: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """(n, d) float32, of images scaled as in training."""
    net.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(pixels), _FEATURES_AT_ONCE):
            part = torch.from_numpy(pixels[start : start + _FEATURES_AT_ONCE])
            x = (part.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
            found.append(net(x).features.float().numpy())
    return np.concatenate(found)


def main() -> None:
    """Answer every line until there are no more."""
    # The operators live as long as this object.
    operators = _stub_operators()
    pixels = np.load(sys.argv[1], allow_pickle=False)
    print(json.dumps({"ready": bool(operators), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        options = json.loads(line)
        answer = trained if "objective" in options else turn
        print(json.dumps(answer(pixels, options)), flush=True)


if __name__ == "__main__":
    main()
