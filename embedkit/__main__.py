"""``python -m embedkit`` and the ``embedkit`` command."""

from embedkit.cli import main as run_command_line
from embedkit.runtime.threads import wait_briefly

__all__ = ["main"]


def main() -> None:
    """Run the command line in this process, whose threads are then its own to arrange."""
    wait_briefly()
    run_command_line()


if __name__ == "__main__":
    main()
