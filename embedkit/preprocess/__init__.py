"""Image files and arrays of any size become uint8 (h, w, c) at the model's size.

This is the only implementation anywhere: training data, the server, the local session and the
evaluation all come through here, so that an image means the same pixels everywhere.
``decode`` turns a file into pixels of its own size, ``convert`` brings pixels to the model's
size and channels, and ``prepare`` does both for a batch.
"""

from embedkit.preprocess.batch import prepare
from embedkit.preprocess.imagefile import MAX_PIXELS, decode
from embedkit.preprocess.pixels import convert
from embedkit.preprocess.spec import InputSpec

__all__ = ["MAX_PIXELS", "InputSpec", "convert", "decode", "prepare"]
