"""``python -m embedkit`` and the ``embedkit`` command."""

from embedkit.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
