"""The sections of the report that look into the layers of one format: sensitivity, the worst layer, sizes."""

from __future__ import annotations

from html import escape

from autoglm_edge_converter.report.charts import Bar, bars, histogram
from autoglm_edge_converter.report.document import Layer, Layers, LayerSize

MOST_BARS = 24


def layer_sections(found: Layers, suffix: str) -> str:
    """Return the sections, `suffix` behind their headings."""
    return _noise(found, suffix) + _worst(found, suffix) + _sizes(found, suffix)


def size_text(size_bytes: int | None) -> str:
    """Return a size for a person."""
    if size_bytes is None:
        return "-"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _noise(found: Layers, suffix: str) -> str:
    layers = found.noise.layers
    if not layers:
        return ""
    shown = layers[:MOST_BARS]
    more = f" The {len(shown)} worst of {len(layers)}." if len(layers) > len(shown) else ""
    drawn = bars([_layer_bar(layer) for layer in shown])
    return (
        f"<section><h2>Sensitivity of the layers{suffix}</h2><p class=legend>{escape(sentence(found.noise.how))} "
        f"As a share of the signal (amplitude).{more}</p>{drawn}</section>"
    )


def _layer_bar(layer: Layer) -> Bar:
    label = layer.name + (" (float)" if layer.in_float else "")
    if layer.problem:
        return Bar(label, 0.0, layer.problem[:60], "off")
    if layer.sqnr_db is None:
        return Bar(label, 0.0, "none", "off")
    noise = 10 ** (-layer.sqnr_db / 20)
    return Bar(label, noise, f"{noise:.2%} ({layer.sqnr_db:.0f} dB)", "float" if layer.in_float else "")


def _worst(found: Layers, suffix: str) -> str:
    if found.worst is None:
        return ""
    drawn = "".join(
        f"<figure><figcaption>{escape(entry.title)}"
        f"{f', {entry.levels} different values after' if entry.levels else ''}</figcaption>{histogram(entry)}</figure>"
        for entry in found.worst.histograms
    )
    return (
        f"<section><h2>The worst layer{suffix}: {escape(found.worst.name)}</h2><p class=legend>Before quantization "
        f'(<span class="key before"></span> filled) and after (<span class="key after"></span> line), '
        f"{escape(found.worst.how)}. Heights are square roots, so that rare values show.</p>"
        f'<div class="charts">{drawn}</div></section>'
    )


def _sizes(found: Layers, suffix: str) -> str:
    rows = [row for row in found.sizes if row.before_bytes]
    if not rows:
        return ""
    shown = rows[:MOST_BARS]
    drawn = bars([_size_bar(row) for row in shown])
    total = sum(row.before_bytes for row in rows)
    more = f"The {len(shown)} largest of {len(rows)} layers, " if len(rows) > len(shown) else ""
    return (
        f"<section><h2>Size by layer{suffix}</h2><p class=legend>{more}{size_text(total)} of weights in all; in grey "
        f"what stays as large as it was.</p>{drawn}</section>"
    )


def _size_bar(row: LayerSize) -> Bar:
    smaller = row.after_bytes is not None and row.after_bytes < row.before_bytes
    after = "" if row.after_bytes is None else f" to {size_text(row.after_bytes)}"
    return Bar(row.name, row.before_bytes, size_text(row.before_bytes) + after, "" if smaller else "float")
