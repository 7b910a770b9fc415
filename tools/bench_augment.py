"""Compare batched augmentation with kornia's and torchvision's: same run, interleaved.

    python tools/bench_augment.py [--size 32] [--batch 256] [--rounds 41] [--threads N]

Both sides apply random resized crop, horizontal flip, colour jitter (p = 0.8) and greyscale
(p = 0.2) with parameters per image, then the same with Gaussian blur (p = 0.5). kornia runs in
each of its ways (its container or plain modules, either crop mode, either jitter) and the
fastest one counts. Each round times every side once, in an order drawn anew; the ratio is the
median of the rounds' ratios, with a 95 % bootstrap interval.

Then the policies and mixtures, against what peers have of them. kornia draws the operations of
RandAugment and AutoAugment once for the whole batch, where ours and torchvision's draw them for
every image; torchvision mixes a whole batch in one way and takes the policies image by image.
It is left out where it cannot be imported. What no peer has is compared with our own SimCLR
recipe: a ratio of 2 takes half its time.
"""

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import numpy as np
import torch

from embedkit.perturb.augmentation import build_augmentation

Side = Callable[[], object]

_JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def main() -> None:
    """Print one line per recipe and the whole result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=256, help="images per batch")
    parser.add_argument("--rounds", type=int, default=41, help="timed rounds per recipe")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    pixels = torch.rand(options.batch, 3, options.size, options.size)
    results = {}
    for label, blur in (("without blur", False), ("with blur", True)):
        sides = {"embedkit": _ours(pixels, blur), **_kornia(pixels, blur)}
        seconds = _interleave(sides, options.rounds)
        results[label] = _compare(seconds, options.batch)
        print(_line(label, results[label]))
    for label, sides in _others(pixels).items():
        seconds = _interleave(sides, options.rounds)
        results[label] = _compare(seconds, options.batch)
        print(_line(label, results[label]))
    print(json.dumps({**vars(options), "torch": torch.__version__, "results": results}))


def _ours(pixels: torch.Tensor, blur: bool) -> Side:
    specs: list[dict[str, object]] = [
        {"name": "geometric", "area": [0.2, 1.0]},
        {"name": "colour", "greyscale": 0.2, "p": 0.8, **_JITTER},
    ]
    if blur:
        radius_px = _taps(pixels) // 2
        specs.append({"name": "blur", "sigma_px": [0.1, 2.0], "radius_px": radius_px})
    pipeline, generator = build_augmentation(specs), torch.Generator().manual_seed(0)
    return lambda: pipeline(pixels, generator)


def _kornia(pixels: torch.Tensor, blur: bool) -> dict[str, Side]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kornia.augmentation as ka
    size = (pixels.shape[2], pixels.shape[3])
    jitter = tuple(_JITTER.values())
    taps = _taps(pixels)

    def steps(
        mode: str, recolour: Callable[..., ka.AugmentationBase2D]
    ) -> list[ka.AugmentationBase2D]:
        return [
            ka.RandomResizedCrop(size, scale=(0.2, 1.0), cropping_mode=mode),
            ka.RandomHorizontalFlip(p=0.5),
            recolour(*jitter, p=0.8),
            ka.RandomGrayscale(p=0.2),
            *([ka.RandomGaussianBlur((taps, taps), (0.1, 2.0), p=0.5)] if blur else []),
        ]

    ways: dict[str, torch.nn.Module] = {
        "kornia container": ka.AugmentationSequential(*steps("slice", ka.ColorJitter)),
        "kornia slice": torch.nn.Sequential(*steps("slice", ka.ColorJitter)),
        "kornia resample": torch.nn.Sequential(*steps("resample", ka.ColorJitter)),
        "kornia resample, jiggle": torch.nn.Sequential(*steps("resample", ka.ColorJiggle)),
        "kornia slice, jiggle": torch.nn.Sequential(*steps("slice", ka.ColorJiggle)),
    }
    return {name: partial(way, pixels) for name, way in ways.items()}


def _others(pixels: torch.Tensor) -> dict[str, dict[str, Side]]:
    """Every other augmentation, each with its peers."""
    simclr = {"our SimCLR recipe": _ours(pixels, blur=False)}
    peers = _kornia_others(pixels)
    for label, sides in _torchvision_others(pixels).items():
        peers.setdefault(label, {}).update(sides)
    names = [
        *("rand_augment", "auto_augment", "mixup", "cutmix", "resize_mix", "random_field"),
        *("randomized_quantization", "batch_styles", "erase", "solarise"),
    ]
    return {
        name: {"embedkit": _one(pixels, {"name": name, "p": 1.0}), **peers.get(name, simclr)}
        for name in names
    }


def _one(pixels: torch.Tensor, spec: dict[str, object]) -> Side:
    pipeline, generator = build_augmentation([spec]), torch.Generator().manual_seed(0)
    targets = torch.eye(10)[torch.arange(len(pixels)) % 10]
    return lambda: pipeline.mix(pixels, targets, generator)


def _kornia_others(pixels: torch.Tensor) -> dict[str, dict[str, Side]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kornia.augmentation as ka
        from kornia.augmentation import auto

        ways = {
            "rand_augment": auto.RandAugment(n=2, m=9),
            "auto_augment": auto.AutoAugment(policy="cifar10"),
            "erase": ka.RandomErasing(p=1.0),
            "solarise": ka.RandomSolarize(thresholds=0.0, additions=0.0, p=1.0),
        }
        mixing = {
            "mixup": ka.RandomMixUpV2(p=1.0),
            "cutmix": ka.RandomCutMixV2(p=1.0, use_correct_lambda=True),
        }
    labels = torch.arange(len(pixels)) % 10
    sides: dict[str, dict[str, Side]] = {}
    sides |= {name: {"kornia": partial(way, pixels)} for name, way in ways.items()}
    sides |= {name: {"kornia": partial(way, pixels, labels)} for name, way in mixing.items()}
    return sides


def _torchvision_others(pixels: torch.Tensor) -> dict[str, dict[str, Side]]:
    try:
        with _declared_operators():
            v2 = importlib.import_module("torchvision.transforms.v2")
    except ImportError:
        return {}
    bytes_ = (pixels * 255).to(torch.uint8)
    labels = torch.arange(len(pixels)) % 10
    policy = v2.AutoAugmentPolicy.CIFAR10

    def image_by_image(transform: Callable[[torch.Tensor], torch.Tensor]) -> Side:
        return lambda: torch.stack([transform(image) for image in bytes_])

    return {
        "rand_augment": {"torchvision": image_by_image(v2.RandAugment())},
        "auto_augment": {"torchvision": image_by_image(v2.AutoAugment(policy))},
        "mixup": {"torchvision": partial(v2.MixUp(num_classes=10), pixels, labels)},
        "cutmix": {"torchvision": partial(v2.CutMix(num_classes=10), pixels, labels)},
    }


@contextmanager
def _declared_operators() -> Iterator[None]:
    """Declare the two compiled operators that torchvision describes when it is imported."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    yield


def _taps(pixels: torch.Tensor) -> int:
    """SimCLR's kernel, a tenth of the image, as the next odd number of at least 3."""
    return max(3, pixels.shape[2] // 10 // 2 * 2 + 1)


def _interleave(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.no_grad():
        for side in sides.values():
            for _ in range(3):
                side()
        for _ in range(rounds):
            for name in order.permutation(list(sides)):
                start = time.perf_counter()
                sides[name]()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _compare(seconds: dict[str, list[float]], batch: int) -> dict[str, object]:
    peers = {name: median(times) for name, times in seconds.items() if name != "embedkit"}
    best = min(peers, key=lambda name: peers[name])
    ratios = np.array(seconds[best]) / np.array(seconds["embedkit"])
    draws = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return {
        "ratio": round(float(np.median(ratios)), 2),
        "ci": [round(float(low), 2), round(float(high), 2)],
        "n": len(ratios),
        "peer": best,
        "images_per_s": {k: round(batch / median(times)) for k, times in seconds.items()},
    }


def _line(label: str, result: dict[str, object]) -> str:
    measured = f"(95 % {result['ci']}, n = {result['n']})"
    return f"{label}: {result['ratio']} times {result['peer']} {measured}"


if __name__ == "__main__":
    main()
