"""The report: one HTML file that explains a conversion to whoever has to trust it. No script, no network, no clock."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from autoglm_edge_converter.charts import Bar, bars
from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.plan import Plan
from autoglm_edge_converter.results import Findings, Measured, Options
from autoglm_edge_converter.search import Sensitivity, Trial
from autoglm_edge_protocol.manifest import Tolerance, Variant

MOST_BARS = 40
_FLOAT_IDS = ("original", "fp32")


@dataclass(frozen=True)
class Report:
    """What the report tells, besides the variants as they stand in the manifest."""

    name: str
    version: str
    source: str
    calibration: str
    options: Options
    plan: Plan
    measured: tuple[Measured, ...]
    findings: Findings


def render(report: Report, variants: tuple[Variant, ...]) -> str:
    """Return the page."""
    style = files("autoglm_edge_converter").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"{report.name}@{report.version}")
    sections = [
        _heading(report, variants),
        _variants(report, variants),
        _charts(report, variants),
        _tried(report),
        _sensitivity(report.findings),
        _golden(variants),
        _made(report),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _heading(report: Report, variants: tuple[Variant, ...]) -> str:
    refusals = "".join(
        f'<p class="refusal"><b>No {escape(refusal.precision)} variant.</b> {escape(refusal.reason)}.</p>'
        for refusal in report.findings.refusals
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.findings.notes)
    return (
        f"<header><h1>{escape(report.name)} <small>{escape(report.version)}</small></h1>"
        f"<p>{escape(report.source)} converted into {len(variants)} verified variant{'s'[: len(variants) != 1]}</p>"
        f"</header>{_tiles(variants)}{refusals}{notes}"
    )


def _tiles(variants: tuple[Variant, ...]) -> str:
    best = max(variants, key=lambda variant: variant.latency.speedup)
    tiles = [
        (f"{best.latency.speedup:.2f}&times;", f"speed of {best.id} against fp32"),
        (f"{best.quality.value:.2%}", f"{best.quality.metric} of {best.id}"),
        (f"{best.quality.samples}", "held-back samples"),
        (f"{len(variants)}", f"variant{'s'[: len(variants) != 1]} shipped"),
    ]
    return (
        '<div class="tiles">' + "".join(f"<div><b>{a}</b><span>{escape(b)}</span></div>" for a, b in tiles) + "</div>"
    )


def _variants(report: Report, variants: tuple[Variant, ...]) -> str:
    shipped = {variant.id: variant for variant in variants}
    rows = []
    for item in report.measured:
        variant = shipped.get(item.id)
        state = "shipped" if variant else ("reference" if item.id == "original" else "not shipped")
        noise = "identical" if item.quality.sqnr_db is None else f"{item.quality.sqnr_db:.1f} dB"
        rows.append(
            [
                f"<b>{item.id}</b>",
                f'<span class="{state.replace(" ", "-")}">{state}</span>',
                item.precision,
                _kilobytes(item.size_bytes),
                f"{item.quality.value:.2%}",
                noise,
                f"{item.timing.wall_us / 1000:.3f} ms" if item.timing else "-",
                f"{item.speedup:.2f}&times;" if item.speedup else "-",
                f"{item.memory_bytes / 2**20:.0f} MB" if item.memory_bytes else "-",
                escape("; ".join(variant.notes) if variant else ""),
            ]
        )
    metric = report.measured[0].quality.metric
    head = ["variant", "", "precision", "size", metric, "noise", "latency", "speed", "memory", "notes"]
    return f"<section><h2>Variants</h2>{_table(head, rows)}{_legend(report)}</section>"


def _legend(report: Report) -> str:
    return (
        "<p class=legend>Quality is agreement with the original on "
        f"{report.measured[0].quality.samples} samples that took no part in calibration or search. Latency: median of "
        f"runs in turns, one thread, on {escape(machine_name())}. Speed: processor time of fp32 divided by the "
        "variant's, in the same run. Memory: peak of a process that loads and runs it.</p>"
    )


def _charts(report: Report, variants: tuple[Variant, ...]) -> str:
    shipped = {variant.id for variant in variants}

    def rows(values: Sequence[tuple[Measured, float, str]]) -> list[Bar]:
        return [
            Bar(
                item.id,
                value,
                text,
                "bar float" if item.id in _FLOAT_IDS else "bar" if item.id in shipped else "bar off",
            )
            for item, value, text in values
        ]

    size = rows([(item, item.size_bytes, _kilobytes(item.size_bytes)) for item in report.measured])
    timed = [(item, item.timing) for item in report.measured if item.timing]
    time = rows([(item, timing.cpu_us, f"{timing.cpu_us / 1000:.3f} ms") for item, timing in timed])
    memory = rows(
        [
            (item, item.memory_bytes, f"{item.memory_bytes / 2**20:.0f} MB")
            for item in report.measured
            if item.memory_bytes
        ]
    )
    charts = (("Size", size), ("Processor time of one run", time), ("Peak memory", memory))
    drawn = "".join(
        f"<figure><figcaption>{name}</figcaption>{bars(data, name)}</figure>" for name, data in charts if data
    )
    return f'<section class="charts">{drawn}</section>'


def _tried(report: Report) -> str:
    search = report.findings.search
    passes = _table(
        ["pass", "outcome"],
        [[escape(p.name), escape(p.dropped) if p.dropped else "kept: same answers"] for p in report.findings.passes],
    )
    if search is None:
        return f"<section><h2>What was tried</h2>{passes}</section>"
    drops = [
        Bar(_short(t), t.score.drop, f"{t.score.drop:.2%}", _bar_style(t, report)) for t in search.trials if t.score
    ]
    chart = (
        bars(drops, "drop of each candidate", report.plan.max_drop, f"budget {report.plan.max_drop:.2%}")
        if drops
        else ""
    )
    rows = [_trial_row(trial, report) for trial in search.trials]
    table = _table(["INT8 candidate", "kept in float", "size", "drop", "noise", "outcome"], rows)
    return (
        f"<section><h2>What was tried</h2>{passes}<figure><figcaption>Drop of each INT8 candidate on the search samples"
        f"</figcaption>{chart}</figure>{table}</section>"
    )


def _short(trial: Trial) -> str:
    floats = len(trial.candidate.float_nodes)
    return f"{trial.candidate.recipe}" + (f", {floats} float" if floats else "")


def _bar_style(trial: Trial, report: Report) -> str:
    found = report.findings.search.found if report.findings.search else None
    return "bar" if found is not None and trial.candidate == found.candidate else "bar off"


def _trial_row(trial: Trial, report: Report) -> list[str]:
    found = report.findings.search.found if report.findings.search else None
    recipe = escape(str(trial.candidate.recipe))
    floats = escape(", ".join(trial.candidate.float_nodes)) or "-"
    if trial.score is None:
        return [recipe, floats, "-", "-", "-", escape(trial.problem or "failed")]
    if found is not None and trial.candidate == found.candidate:
        outcome = "<b>chosen</b>"
    elif trial.score.drop > report.plan.max_drop + 1e-9:
        outcome = "over the budget"
    else:
        outcome = "within the budget, another was better"
    noise = "identical" if trial.score.sqnr_db is None else f"{trial.score.sqnr_db:.1f} dB"
    return [recipe, floats, _kilobytes(trial.size_bytes), f"{trial.score.drop:.2%}", noise, outcome]


def _sensitivity(findings: Findings) -> str:
    entries = findings.search.sensitivities if findings.search else ()
    if not entries:
        return ""
    shown = entries[:MOST_BARS]
    drawn = bars([_sensitivity_bar(entry) for entry in shown], "noise of each node")
    more = (
        f"<p class=legend>The {len(shown)} noisiest of {len(entries)} nodes.</p>" if len(entries) > len(shown) else ""
    )
    return (
        "<section><h2>Sensitivity</h2><p class=legend>Noise in the answers when this node alone is quantized, "
        f"as a share of the signal (amplitude).</p><figure>{drawn}</figure>{more}</section>"
    )


def _sensitivity_bar(entry: Sensitivity) -> Bar:
    if entry.problem:
        return Bar(entry.node, 0.0, entry.problem[:40], "bar off")
    noise = 0.0 if entry.sqnr_db is None else 10 ** (-entry.sqnr_db / 20)
    text = "none" if entry.sqnr_db is None else f"{noise:.2%} ({entry.sqnr_db:.0f} dB)"
    return Bar(entry.node, noise, text)


def _golden(variants: tuple[Variant, ...]) -> str:
    rows = [
        [escape(variant.id), escape(tolerance.output), _limits(tolerance)]
        for variant in variants
        for tolerance in variant.tolerances
    ]
    return (
        "<section><h2>What a device checks</h2><p class=legend>Every device replays the golden set on its own "
        f"accelerator before it activates a variant.</p>{_table(['variant', 'output', 'at least'], rows)}</section>"
    )


def _limits(tolerance: Tolerance) -> str:
    parts = []
    if tolerance.min_sqnr_db is not None:
        parts.append(f"{tolerance.min_sqnr_db:.1f} dB to the original")
    if tolerance.min_top1_agreement is not None:
        parts.append(f"{tolerance.min_top1_agreement:.1%} equal top answers")
    if tolerance.min_equal is not None:
        parts.append(f"{tolerance.min_equal:.1%} equal elements")
    return ", ".join(parts)


def _made(report: Report) -> str:
    tools = ", ".join(f"{name} {number}" for name, number in versions().items())
    return (
        f"<section><h2>How it was made</h2><pre>{escape(str(report.plan))}</pre><p>Again:</p>"
        f"<pre>{escape(command(report))}</pre><p class=legend>{escape(tools)}</p></section>"
    )


def command(report: Report) -> str:
    """Return the command that makes this bundle again, beside its inputs."""
    options = report.options
    words = ["autoglm-edge", "convert", report.source, "--calibration", report.calibration, "--output", "bundles"]
    words += ["--name", report.name, "--version", report.version, "--max-drop", f"{options.max_drop:g}"]
    words += [word for precision in options.precisions for word in ("--precision", precision)]
    for name, shape in options.shapes:
        words += ["--shape", f"{name}={','.join(str(axis) for axis in shape)}"]
    words += ["--labels", options.labels.name] if options.labels else []
    words += ["--license", options.license.name] if options.license else []
    return shlex.join([*words, "--seed", str(options.seed)])


def _kilobytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024:,.0f} KB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
