"""Search a folder of photos by image: index it, ask with a filter, find duplicates.

    embedkit serve --models models &
    python examples/photo_search.py PHOTOS --query PHOTOS/cat/3.jpg --filter "width >= 400"

Photos may lie in class sub-folders; the sub-folder's name becomes the payload's ``album``. A
second run sends only the photos that are new or have changed.
"""

import argparse
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

import embedkit
from embedkit.client.sync import Client
from embedkit.errors import AlreadyExists
from embedkit.types import Hit

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_AT_ONCE = 256


@dataclass(frozen=True)
class Photo:
    """One file of the folder.

    Attributes:
        id: Its path below the folder.
        data: Its bytes.
        payload: What can be filtered by: ``album``, ``width``, ``height``, ``sha256``.
    """

    id: str
    data: bytes
    payload: dict[str, object]


def photos(folder: Path) -> Iterator[Photo]:
    """Read every image file below a folder; files that are no images are left out."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError):
            continue
        data = path.read_bytes()
        name = path.relative_to(folder)
        payload = {
            "album": name.parts[0] if len(name.parts) > 1 else "",
            "width": width,
            "height": height,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        yield Photo(name.as_posix(), data, payload)


def index(client: Client, collection: str, folder: Path, model: str = "") -> int:
    """Store what is new or has changed, remove what is gone; returns how many were sent."""
    model = model or client.models()[0].name
    with contextlib.suppress(AlreadyExists):  # by an earlier run
        client.create_collection(collection, model=model)
    sent, seen, waiting = 0, set(), []
    for photo in photos(folder):
        seen.add(photo.id)
        waiting.append(photo)
        if len(waiting) == _AT_ONCE:
            sent += _send(client, collection, waiting)
            waiting = []
    sent += _send(client, collection, waiting)
    gone = [record.id for record in client.scroll(collection) if record.id not in seen]
    client.delete(collection, gone)
    return sent


def search(
    client: Client, collection: str, query: Path, *, k: int = 10, where: str = ""
) -> list[Hit]:
    """The photos most like a file, best first, among those for which a filter holds."""
    (hits,) = client.search(collection, images=[query], k=k, filter=where)
    return hits


def duplicates(
    client: Client, collection: str, *, least: float = 0.995
) -> list[tuple[str, str, float]]:
    """Pairs of photos with at least some cosine, the most alike first."""
    found = [
        (pair.first, pair.second, pair.score)
        for page in client.duplicates(collection, least)
        for pair in page.pairs
    ]
    return sorted(found, key=lambda pair: -pair[2])


def _send(client: Client, collection: str, chosen: list[Photo]) -> int:
    known = client.get(collection, [photo.id for photo in chosen], with_vectors=False)
    changed = [
        photo
        for photo, record in zip(chosen, known, strict=True)
        if record is None or (record.payload or {}).get("sha256") != photo.payload["sha256"]
    ]
    if changed:
        client.upsert(
            collection,
            [photo.id for photo in changed],
            images=[photo.data for photo in changed],
            payloads=[photo.payload for photo in changed],
        )
    return len(changed)


def main() -> None:
    """Index a folder, then answer what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--collection", default="photos")
    parser.add_argument("--model", default="", help="default: the server's first")
    parser.add_argument("--query", type=Path, help="an image file to search for")
    parser.add_argument("--filter", default="", help="such as \"album = 'cat'\"")
    parser.add_argument("--duplicates", type=float, metavar="COSINE", help="such as 0.995")
    options = parser.parse_args()
    with embedkit.connect(options.server) as client:
        sent = index(client, options.collection, options.folder, options.model)
        count = client.describe(options.collection).count
        print(f"sent {sent} photos; {options.collection} holds {count}")
        if options.query is not None:
            for hit in search(client, options.collection, options.query, where=options.filter):
                print(f"{hit.score:.4f}  {hit.id}")
        if options.duplicates is not None:
            for one, other, score in duplicates(
                client, options.collection, least=options.duplicates
            ):
                print(f"{score:.4f}  {one}  {other}")


if __name__ == "__main__":
    try:
        main()
    except embedkit.EmbedkitError as error:
        raise SystemExit(f"photo_search.py: {error}") from None
