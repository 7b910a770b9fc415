"""The attacked model: how images reach it, how it decides, and the gradients of that."""
