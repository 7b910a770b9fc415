"""Changes to images in torch: augmentation for training, gradient steps for attacks."""
