"""Write recipes/fashion_mnist and recipes/cifar10 from the leaderboard's table and results.

python -m tools.make_recipes [--check]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools.board.recipe_files import FOLDERS, recipe_texts

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every file, or with ``--check`` return 1 if one would change."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--recipes", type=Path, default=ROOT / "recipes")
    options = parser.parse_args(arguments)
    texts = recipe_texts()
    there = {
        f"{folder}/{path.name}": path
        for folder in FOLDERS
        for path in (options.recipes / folder).glob("*.toml")
    }
    changed = [
        name
        for name, text in texts.items()
        if name not in there or there[name].read_text(encoding="utf-8") != text
    ]
    surplus = sorted(set(there) - set(texts))
    if options.check:
        for name in [*changed, *surplus]:
            print(f"out of step: recipes/{name}; run python -m tools.make_recipes")
        return int(bool(changed or surplus))
    for name in surplus:
        there[name].unlink()
    for name in changed:
        path = options.recipes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name], encoding="utf-8")
    print(f"{len(changed)} of {len(texts)} recipes written, {len(surplus)} removed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
