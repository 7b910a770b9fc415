"""Studies: questions that can only be answered by training encoders for them."""
