"""What keeps the batches of a loaded model running: threads, their memory, and the way back."""
