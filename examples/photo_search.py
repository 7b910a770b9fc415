"""Search a folder of photos by image: index it, ask with a filter, find duplicates.

    embedkit serve --models models &
    python examples/photo_search.py PHOTOS --query PHOTOS/cat/3.jpg --filter "width >= 400"

Photos may lie in class sub-folders; the sub-folder's name becomes the payload's ``album``. A
second run sends only the photos that are new or have changed, and removes those whose files are
gone.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import embedkit
from embedkit.client.sync import Client
from embedkit.data.folder import read_regular_file
from embedkit.errors import AlreadyExists, BadImage, InvalidInput, NotFound
from embedkit.preprocess import decode
from embedkit.types import DuplicatePage, Hit

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_AT_ONCE = 256


@dataclass(frozen=True)
class Photo:
    """One file of the folder.

    Attributes:
        id: Its path below the folder.
        data: Its bytes.
        sha256: Of its bytes.
    """

    id: str
    data: bytes
    sha256: str

    def payload(self) -> dict[str, object]:
        """What can be filtered by: ``album``, ``width``, ``height``, ``sha256``.

        Raises:
            BadImage: If the bytes are no image, end early, or declare too many pixels.
        """
        height, width, _ = decode(self.data).shape
        album = self.id.split("/")[0] if "/" in self.id else ""
        return {"album": album, "width": width, "height": height, "sha256": self.sha256}


def list_files(folder: Path) -> dict[str, Path]:
    """Every file below a folder that is named like an image, by its path in it.

    A path that is not UTF-8 can be no id: it is named and left out.

    Raises:
        NotFound: If there is no such folder.
        OSError: If a folder in it cannot be read: its photos are not gone.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise NotFound(f"expected a folder of photos, {folder}, got {got}")
    paths = sorted(
        Path(home, name)
        for home, _, names in os.walk(folder, onerror=_refuse)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    found = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            _leave_out(ascii(name), InvalidInput("expected a name in UTF-8, got other bytes"))
        else:
            found[name] = path
    return found


def read(files: Iterable[tuple[str, Path]]) -> Iterator[Photo]:
    """The files that can be read; the others are named and left out."""
    for name, path in files:
        try:
            data = read_regular_file(path)
        except (BadImage, OSError) as error:
            _leave_out(name, error)
        else:
            yield Photo(name, data, hashlib.sha256(data).hexdigest())


def index(client: Client, collection: str, folder: Path, model: str = "") -> int:
    """Store what is new or has changed, remove what is gone; returns how many were sent.

    A file that is there and cannot be used is left out, and what was stored of it stays.

    Raises:
        NotFound: If there is no such folder, or the server has no model.
        InvalidInput: If nothing would be left.
    """
    files = list_files(folder)
    model = model or _first_model(client)
    with contextlib.suppress(AlreadyExists):  # by an earlier run
        client.create_collection(collection, model=model)
    sent, waiting = 0, iter(files.items())
    while some := list(itertools.islice(waiting, _AT_ONCE)):
        sent += _send(client, collection, list(read(some)))
    stored = [record.id for record in client.scroll(collection)]
    gone = [name for name in stored if name not in files]
    if gone and len(gone) == len(stored):
        raise InvalidInput(
            f"expected photos in {folder}, got none, and {collection} holds {len(stored)}: "
            f"nothing was removed; to empty it, use: embedkit index drop {collection}"
        )
    client.delete(collection, gone)
    return sent


def search(
    client: Client, collection: str, query: Path, *, k: int = 10, where: str = ""
) -> list[Hit]:
    """The photos most like a file, best first, among those for which a filter holds."""
    (hits,) = client.search(collection, images=[query], k=k, filter=where)
    return hits


def duplicates(client: Client, collection: str, *, least: float = 0.995) -> DuplicatePage:
    """Pairs of photos with at least some cosine, the most alike first.

    They are all there are only if the page is ``exact`` and not ``cut``.
    """
    pages = list(client.duplicates(collection, least))
    pairs = [pair for page in pages for pair in page.pairs]
    return DuplicatePage(
        sorted(pairs, key=lambda pair: -pair.score),
        exact=all(page.exact for page in pages),
        cut=any(page.cut for page in pages),
    )


def _send(client: Client, collection: str, chosen: list[Photo]) -> int:
    known = client.get(collection, [photo.id for photo in chosen], with_vectors=False)
    changed = [
        photo
        for photo, record in zip(chosen, known, strict=True)
        if record is None or (record.payload or {}).get("sha256") != photo.sha256
    ]
    ids, images, payloads = [], [], []
    for photo in changed:
        try:
            payloads.append(photo.payload())
        except BadImage as error:
            _leave_out(photo.id, error)
        else:
            ids.append(photo.id)
            images.append(photo.data)
    if ids:
        client.upsert(collection, ids, images=images, payloads=payloads)
    return len(ids)


def _first_model(client: Client) -> str:
    models = client.models()
    if not models:
        raise NotFound(
            "expected a server with a model, got none; start it with: "
            "embedkit serve --models FOLDER"
        )
    return models[0].name


def _tell(found: DuplicatePage) -> None:
    for pair in found.pairs:
        print(f"{pair.score:.4f}  {pair.first}  {pair.second}")
    if found.cut:
        print("there are more: a photo has more than were looked at; ask for a higher cosine")
    if not found.exact:
        print("there may be more: the index does not look everywhere")


def _leave_out(name: str, error: Exception) -> None:
    print(f"left out {name}: {error}", file=sys.stderr)


def _refuse(error: OSError) -> None:
    raise error


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
            _tell(duplicates(client, options.collection, least=options.duplicates))


if __name__ == "__main__":
    try:
        main()
    except (embedkit.EmbedkitError, OSError) as error:
        raise SystemExit(f"photo_search.py: {error}") from None
