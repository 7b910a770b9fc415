"""Changes of pixels, in numpy: samples, filters, views and codings."""
