"""Training images: what they are, in which order they come, which of them are used."""

from embedkit.train.images.load import TrainingImages, load_images
from embedkit.train.images.order import Groups, seed_of

__all__ = ["Groups", "TrainingImages", "load_images", "seed_of"]
