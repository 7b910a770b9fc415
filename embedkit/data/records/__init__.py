"""Records of a collection in a file: JSON lines, a numpy archive or Parquet, by its suffix."""
