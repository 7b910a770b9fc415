"""More than one pass, one process or one memory can hold."""
