"""The model card: what a person wants to know of a bundle before using it."""

from collections.abc import Mapping

from embedkit.bundle import GRAPHS, Manifest
from embedkit.export.source import Source

__all__ = ["write_card"]


def write_card(
    manifest: Manifest,
    source: Source,
    *,
    size: str,
    parity: Mapping[str, object],
    notes: Mapping[str, str],
) -> bytes:
    """Return ``CARD.md``.

    Args:
        manifest: Of the bundle, files not yet filled in.
        source: Where the encoder comes from.
        size: Parameters and operations, as text.
        parity: Content of ``parity.json``.
        notes: One sentence per head and detector, by file name.
    """
    spec = manifest.input
    colour = "grey" if spec.channels == 1 else "RGB"
    facts = {
        "input": f"{spec.height} x {spec.width} px, {colour}, uint8; others are converted",
        "embedding": f"{manifest.dim} dimensions, float32, L2-normalised",
        "outputs": ", ".join(
            f"`{name}` ({', '.join(['n', *map(str, shape)])})"
            for name, shape in manifest.outputs.items()
        ),
        "encoder": f"{manifest.encoder.get('name', 'unknown')}, {size}",
        "objective": manifest.objective,
        "training data": manifest.data_digest or "unknown",
        "licence": manifest.licence or "not stated",
        "code": manifest.git_revision or "unknown revision",
        **source.facts,
    }
    lines = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        source.origin or "Trained elsewhere.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
        "",
        "## Use",
        "",
        "```python",
        "import embedkit",
        f'model = embedkit.load("models/{manifest.name}/{manifest.version}")',
        f"z = model.embed(images)  # (n, {manifest.dim}) float32",
        "```",
        "",
        "## Parity",
        "",
        f"{parity['reference']} against {parity['candidate']}: largest difference of one "
        f"coordinate {parity['max_abs_error']:.3g} (limit {parity['limit']:g}), smallest "
        f"cosine {parity['min_cosine']:.9f}, over real, extreme and searched images.",
        "",
    ]
    lines += _precisions(parity.get("precisions"))
    if notes:
        lines += ["## Heads and detectors", ""]
        lines += [f"- `{name}`: {note}." for name, note in sorted(notes.items())] + [""]
    return "\n".join(lines).encode()


def _precisions(records: object) -> list[str]:
    """A table of the further graphs; nothing where there are none."""
    if not isinstance(records, dict):
        return []
    lines = [
        "| further graph | largest difference, real images | neighbours kept | warnings |",
        "|---|---|---|---|",
    ]
    for name, record in records.items():
        error = record["inputs"]["real"]["max_abs_error"]
        kept = record["decisions"].get("neighbour_overlap")
        shown = "" if kept is None else f"{kept:.3f}"
        warnings = "; ".join(record["warnings"]) or "none"
        lines.append(f"| `{GRAPHS[name]}` | {error:.2g} | {shown} | {warnings} |")
    return [*lines, ""]
