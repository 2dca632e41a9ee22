"""The report as one HTML page that needs nothing else: style and charts are inside, no script, no address."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from autoglm_edge_converter.report.charts import Bar, bars, histogram, pareto
from autoglm_edge_converter.report.document import (
    DROPPED,
    SHIPPED,
    Answer,
    Disagreement,
    Disagreements,
    Entry,
    Layer,
    PrunedGroup,
    ReportDocument,
)

MOST_BARS = 24
MOST_TRIED = 60


def page(report: ReportDocument) -> str:
    """Return the page."""
    style = files("autoglm_edge_converter.report").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"{report.name}@{report.version}")
    sections = (_heading, _variants, _picture, _tried, _pruned, _noise, _worst, _sizes, _disagreements, _made)
    body = "".join(section(report) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: conversion report</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _heading(report: ReportDocument) -> str:
    shipped = [entry for entry in report.entries if entry.state == SHIPPED]
    refusals = "".join(
        f'<p class="refusal"><b>No {escape(precision)} variant.</b> {escape(reason)}.</p>'
        for precision, reason in report.refusals
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes)
    source = f"{report.source.get('file', '')}, {_size(report.source.get('size_bytes'))}"
    return (
        f"<header><h1>{escape(report.name)} <small>{escape(report.version)}</small></h1><p>From {escape(source)}, to "
        f"{len(shipped)} verified variant{'s'[: len(shipped) != 1]}.</p></header>{_tiles(shipped)}{refusals}{notes}"
    )


def _tiles(shipped: Sequence[Entry]) -> str:
    if not shipped:
        return ""
    best = max(shipped, key=lambda entry: entry.speedup or 0.0)
    sizes = [entry.size_bytes for entry in shipped if entry.size_bytes]
    smallest = min(shipped, key=lambda entry: entry.size_bytes or 0)
    tiles = [
        (f"{best.speedup or 0:.2f}&times;", f"speed of {best.id} against the float variant"),
        (_share(best.value), f"{best.metric} of {best.id}{_interval(best)}"),
        (_size(min(sizes, default=None)), f"size of {smallest.id}"),
        (str(best.samples or 0), "held-back samples"),
    ]
    drawn = "".join(f"<div><b>{value}</b><span>{escape(text)}</span></div>" for value, text in tiles)
    return f'<div class="tiles">{drawn}</div>'


def _interval(entry: Entry) -> str:
    return f" (95 %: {entry.low:.2%} to {entry.high:.2%})" if entry.low is not None and entry.high is not None else ""


def _variants(report: ReportDocument) -> str:
    metric = next((entry.metric for entry in report.entries if entry.metric), "quality")
    head = ["form", "", "size", metric, "noise", "latency", "CPU time", "speed", "memory", "why"]
    rows = [_measured_row(entry) for entry in report.entries]
    return (
        f"<section><h2>What was measured</h2>{_table(head, rows)}<p class=legend>Quality is on samples that took no "
        "part in calibration or search nor, where there are enough, in the choice; below it is the 95 % interval. "
        "Latency and CPU time: medians of runs in turns, one thread, on "
        f"{escape(report.machine)}. Speed: CPU time of the float variant divided by that of the form, in the same run. "
        "Memory: peak of a process that loads and runs it.</p></section>"
    )


def _measured_row(entry: Entry) -> list[str]:
    why = "; ".join((entry.reason, *entry.notes))
    return [
        f"<b>{escape(entry.id)}</b><br><small>{escape(entry.precision)}</small>",
        _state(entry),
        _size(entry.size_bytes),
        _share(entry.value) + _bounds(entry),
        _decibels(entry),
        _milliseconds(entry.median_us),
        _milliseconds(entry.cpu_us),
        f"{entry.speedup:.2f}&times;" if entry.speedup else "-",
        f"{entry.memory_bytes / 1e6:.0f} MB" if entry.memory_bytes else "-",
        f'<span class="why">{escape(why)}</span>',
    ]


def _bounds(entry: Entry) -> str:
    if entry.low is None or entry.high is None:
        return ""
    return f"<br><small>{entry.low:.1%} to {entry.high:.1%}</small>"


def _state(entry: Entry) -> str:
    mark = ' <span class="mark" title="on the Pareto front">front</span>' if entry.front else ""
    return f'<span class="state {entry.state}">{entry.state}</span>{mark}'


def _picture(report: ReportDocument) -> str:
    # What was tried and shipped stands among the entries already, with its quality on held-back samples.
    rest = (entry for entry in report.tried if entry.state == DROPPED)
    drawn = pareto((*report.entries, *rest), report.max_drop)
    if not drawn:
        return ""
    return (
        f"<section><h2>Quality and time</h2><figure>{drawn}</figure><p class=legend>Up and to the left is better; the "
        "area of a bubble is the size of the file. The line joins the Pareto front; what is on it for its size alone "
        "has a coloured rim. Candidates not measured in the end stand at their quality on the samples of the search. "
        '<span class="key shipped"></span> shipped, <span class="key reference"></span> reference, '
        '<span class="key dropped"></span> dropped.</p></section>'
    )


def _tried(report: ReportDocument) -> str:
    passes = "".join(
        f'<li class="{DROPPED if entry.dropped else "kept"}">{escape(entry.name)}'
        f"{f': {escape(entry.dropped)}' if entry.dropped else ''}</li>"
        for entry in report.passes
    )
    rewrites = (
        "<p class=legend>Rewrites of the float graph; each is kept only where the answers stay the same:</p>"
        f"<ul class=passes>{passes}</ul>"
    )
    if not report.tried:
        return f"<section><h2>What was tried</h2>{rewrites}</section>"
    shown = report.tried[:MOST_TRIED]
    rows = [_tried_row(entry) for entry in shown]
    rest = len(report.tried) - len(shown)
    more = f"<p class=legend>{rest} more are in report.json.</p>" if rest else ""
    table = _table(["candidate", "", "size", "drop", "noise", "speed", "why"], rows)
    return (
        f"<section><h2>What was tried</h2>{rewrites}<p class=legend>Candidates, scored on the samples for the search; "
        f"at most {report.max_drop:.2%} may be lost.</p>{table}{more}</section>"
    )


def _tried_row(entry: Entry) -> list[str]:
    floats = ""
    if entry.float_nodes:
        names = escape(", ".join(entry.float_nodes))
        floats = f"<details><summary>{len(entry.float_nodes)} kept in float</summary>{names}</details>"
    return [
        escape(entry.label) + floats,
        _state(entry),
        _size(entry.size_bytes),
        _share(entry.drop),
        _decibels(entry),
        f"{entry.speedup:.2f}&times;" if entry.speedup else "-",
        f'<span class="why">{escape(entry.reason)}</span>',
    ]


def _pruned(report: ReportDocument) -> str:
    found = report.pruning
    if found is None:
        return ""
    done = f"{found.multiplications_removed:.0%} of the multiplications, {found.weights_removed:.0%} of the weights."
    summary = f"Nothing was taken out: {found.reason}." if found.reason else f"Taken out of the pruned graph: {done}"
    rows = [
        Bar(", ".join(group.layers), group.before - group.after, _channels(group), "float" if group.reason else "")
        for group in found.groups
    ]
    rows.sort(key=lambda row: -row.value)
    more = f" {MOST_BARS} of {len(rows)} groups." if len(rows) > MOST_BARS else ""
    return (
        f"<section><h2>Pruned channels</h2><p class=legend>{escape(summary)} Channels taken out of each group of "
        f"layers that share them.{more}</p>{bars(rows[:MOST_BARS])}</section>"
    )


def _channels(group: PrunedGroup) -> str:
    return group.reason if group.reason and group.before == group.after else f"{group.before} to {group.after}"


def _noise(report: ReportDocument) -> str:
    layers = report.noise.layers
    if not layers:
        return ""
    shown = layers[:MOST_BARS]
    more = f" The {len(shown)} worst of {len(layers)}." if len(layers) > len(shown) else ""
    drawn = bars([_layer_bar(layer) for layer in shown])
    return (
        f"<section><h2>Sensitivity of the layers</h2><p class=legend>{escape(_sentence(report.noise.how))} As a share "
        f"of the signal (amplitude).{more}</p>{drawn}</section>"
    )


def _layer_bar(layer: Layer) -> Bar:
    label = layer.name + (" (float)" if layer.in_float else "")
    if layer.problem:
        return Bar(label, 0.0, layer.problem[:60], "off")
    if layer.sqnr_db is None:
        return Bar(label, 0.0, "none", "off")
    noise = 10 ** (-layer.sqnr_db / 20)
    return Bar(label, noise, f"{noise:.2%} ({layer.sqnr_db:.0f} dB)", "float" if layer.in_float else "")


def _worst(report: ReportDocument) -> str:
    if report.worst is None:
        return ""
    drawn = "".join(
        f"<figure><figcaption>{escape(entry.title)}"
        f"{f', {entry.levels} different values after' if entry.levels else ''}</figcaption>{histogram(entry)}</figure>"
        for entry in report.worst.histograms
    )
    return (
        f"<section><h2>The worst layer: {escape(report.worst.name)}</h2><p class=legend>Before quantization "
        f'(<span class="key before"></span> filled) and after (<span class="key after"></span> line), '
        f"{escape(report.worst.how)}. Heights are square roots, so that rare values show.</p>"
        f'<div class="charts">{drawn}</div></section>'
    )


def _sizes(report: ReportDocument) -> str:
    rows = [row for row in report.sizes if row.before_bytes]
    if not rows:
        return ""
    shown = rows[:MOST_BARS]
    drawn = bars(
        [
            Bar(
                row.name,
                row.before_bytes,
                _size(row.before_bytes) + (f" to {_size(row.after_bytes)}" if row.after_bytes is not None else ""),
                "" if row.after_bytes is not None and row.after_bytes < row.before_bytes else "float",
            )
            for row in shown
        ]
    )
    total = sum(row.before_bytes for row in rows)
    more = f"The {len(shown)} largest of {len(rows)} layers, " if len(rows) > len(shown) else ""
    return (
        f"<section><h2>Size by layer</h2><p class=legend>{more}{_size(total)} of weights in all; in grey what stays "
        f"as large as it was.</p>{drawn}</section>"
    )


def _disagreements(report: ReportDocument) -> str:
    if not report.disagreements:
        return ""
    body = "".join(_of_variant(entry) for entry in report.disagreements)
    return f"<section><h2>Where the variants and the original disagree</h2>{body}</section>"


def _of_variant(entry: Disagreements) -> str:
    shown = f", {len(entry.shown)} of them shown" if entry.found > len(entry.shown) else ""
    summary = (
        f"<p class=legend><b>{escape(entry.variant)}</b>: another top answer on {entry.found} of {entry.of} held-back "
        f"samples{shown}.</p>"
    )
    cards = "".join(_card(sample) for sample in entry.shown)
    return summary + (f'<div class="cards">{cards}</div>' if cards else "")


def _card(sample: Disagreement) -> str:
    image = f'<img alt="sample {sample.sample}" src="{escape(sample.image)}">' if sample.image else ""
    truth = f"<dt>true</dt><dd>{escape(sample.truth)}</dd>" if sample.truth else ""
    return (
        f"<div>{image}<dl><dt>sample</dt><dd>{sample.sample}</dd>{truth}<dt>original</dt><dd>{_answers(sample.original)}"
        f"</dd><dt>variant</dt><dd>{_answers(sample.variant)}</dd></dl></div>"
    )


def _answers(answers: Sequence[Answer]) -> str:
    return "<br>".join(f"{escape(answer.label)} <small>{answer.score:.3g}</small>" for answer in answers)


def _made(report: ReportDocument) -> str:
    limits = _table(
        ["variant", "output", "at least"],
        [[escape(limit.variant), escape(limit.output), escape(limit.text)] for limit in report.limits],
    )
    commands = "".join(f"<pre>{escape(line)}</pre>" for line in report.commands)
    tools = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    digest = f"Source SHA-256 {report.source.get('sha256', 'unknown')}"
    return (
        "<section><h2>What a device checks</h2><p class=legend>Every device replays the golden set on its own "
        f"accelerator before it activates a variant.</p>{limits}</section>"
        f"<section><h2>How it was made</h2><pre>{escape(report.plan)}</pre><p class=legend>Again, and a look at it:</p>"
        f"{commands}<p class=legend>{escape(digest)}. {escape(tools)}.</p></section>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _decibels(entry: Entry) -> str:
    if entry.sqnr_db is not None:
        return f"{entry.sqnr_db:.1f} dB"
    return "identical" if entry.value is not None and entry.drop is not None and abs(entry.drop) < 1e-9 else "-"


def _milliseconds(time_us: float | None) -> str:
    return "-" if time_us is None else f"{time_us / 1000:.3f} ms"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "-"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
