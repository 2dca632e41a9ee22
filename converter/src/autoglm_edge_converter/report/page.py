"""The report as one HTML page that needs nothing else: style and charts are inside, no script, no address."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from autoglm_edge_converter.report.charts import FORMAT_NAMES, Bar, bars, pareto
from autoglm_edge_converter.report.document import (
    DROPPED,
    SHIPPED,
    Answer,
    Disagreement,
    Disagreements,
    Entry,
    PrunedGroup,
    ReportDocument,
)
from autoglm_edge_converter.report.explained import explained
from autoglm_edge_converter.report.layer_sections import MOST_BARS, layer_sections, size_text
from autoglm_edge_protocol.manifest import common_metric

MOST_TRIED = 60


def page(report: ReportDocument) -> str:
    """Return the page."""
    style = files("autoglm_edge_converter.report").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"{report.name}@{report.version}")
    sections = (
        _heading,
        _variants,
        _picture,
        _tried,
        _pruned,
        _layers,
        _operators,
        _disagreements,
        _made,
    )
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
    source = f"{report.source.get('file', '')}, {size_text(report.source.get('size_bytes'))}"
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
        (size_text(min(sizes, default=None)), f"size of {smallest.id}"),
        (str(best.samples or 0), "held-back samples"),
    ]
    drawn = "".join(f"<div><b>{value}</b><span>{escape(text)}</span></div>" for value, text in tiles)
    return f'<div class="tiles">{drawn}</div>'


def _interval(entry: Entry) -> str:
    return f" (95 %: {entry.low:.2%} to {entry.high:.2%})" if entry.low is not None and entry.high is not None else ""


def _variants(report: ReportDocument) -> str:
    metric = common_metric(entry.metric for entry in report.entries if entry.metric)
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
        size_text(entry.size_bytes),
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
        f'<span class="key dropped"></span> dropped{_format_keys(report)}.</p></section>'
    )


def _format_keys(report: ReportDocument) -> str:
    """Tell circles from squares where both are there."""
    formats = {entry.format for entry in (*report.entries, *report.tried)}
    if len(formats) < 2:
        return ""
    keys = (f'<span class="key of-{form}"></span> {name}' for form, name in FORMAT_NAMES.items() if form in formats)
    return f"; {', '.join(keys)}"


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
        size_text(entry.size_bytes),
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


def _layers(report: ReportDocument) -> str:
    several = len(report.layers) > 1
    suffixes = [f", {FORMAT_NAMES[entry.format]}" if several else "" for entry in report.layers]
    return "".join(layer_sections(entry, suffix) for entry, suffix in zip(report.layers, suffixes, strict=True))


def _operators(report: ReportDocument) -> str:
    return explained(report.explanations, _table)


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


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _decibels(entry: Entry) -> str:
    if entry.sqnr_db is not None:
        return f"{entry.sqnr_db:.1f} dB"
    return "identical" if entry.value is not None and entry.drop is not None and abs(entry.drop) < 1e-9 else "-"


def _milliseconds(time_us: float | None) -> str:
    return "-" if time_us is None else f"{time_us / 1000:.3f} ms"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
