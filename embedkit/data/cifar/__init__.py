"""CIFAR-10 as it is published, and its corrupted version."""

from embedkit.data.cifar.binary import CLASSES, load_cifar10
from embedkit.data.cifar.corrupted import load_cifar_c

__all__ = ["CLASSES", "load_cifar10", "load_cifar_c"]
