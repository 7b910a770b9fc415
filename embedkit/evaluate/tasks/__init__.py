"""One evaluation task per module; the file name is its name."""
