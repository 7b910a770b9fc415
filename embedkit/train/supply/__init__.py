"""What an objective declared that it needs, made for one step."""

from embedkit.train.supply.augment import Augment, augment_of
from embedkit.train.supply.step import Drawn, Supply

__all__ = ["Augment", "Drawn", "Supply", "augment_of"]
