"""The figures of a log as one self-contained HTML page: plots as SVG inside, no script, nothing fetched."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from training.drift import SHIFTED, WATCH, reading
from training.log_figures import AUC_LIMITS, LogFigures

MOST_BARS = 15
BLUE, ORANGE, GREY = "#0b5394", "#e07b00", "#7f7f7f"
COLOURS = {"upsell": BLUE, "cross_sell": ORANGE, "retention": "#38761d", "service": GREY}
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1060px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;width:100%;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #eee}th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:#555}.note{color:#666;font-size:.9rem}svg{max-width:100%;height:auto}
.kept{color:#38761d}.missed,.alarm{color:#b00020;font-weight:600}
"""


def page(figures: LogFigures) -> str:
    """Return the whole page."""
    since, until = (datetime.fromtimestamp(moment, UTC) for moment in (figures.since, figures.until))
    degraded = ", ".join(f"{count:,} {reason}" for reason, count in figures.degraded.items()) or "none"
    parts = [
        "<h1>Report of the decision log</h1>",
        f'<p class="note">{figures.decisions:,} decisions for {figures.customers:,} customers, '
        f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC; catalogues {escape(', '.join(figures.catalogues))}; "
        f"degraded: {escape(degraded)}. Intervals: 95 %, whole customers resampled.</p>",
        _health(figures), _lift(figures), _funnel(figures), _choice(figures), _models(figures), _drift(figures),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>Decision log</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}' + "\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"


def _health(figures: LogFigures) -> str:
    rows = [
        (escape(h.what), escape(h.found), escape(h.limit), f'<span class="{h.verdict.split()[0]}">{h.verdict}</span>')
        for h in figures.health
    ]
    note = "Limits as Pega publishes them for its engine; they are customs, not laws."
    return f'<h2>Health</h2>{_table(("what", "found", "limit", "verdict"), rows)}<p class="note">{note}</p>'


def _lift(figures: LogFigures) -> str:
    rows = [
        (escape(a.arm), f"{a.customers:,}", f"{a.spend.value:,.2f}", _range(a.spend), _value(a.lift), _range(a.lift))
        for a in figures.arms
    ]
    lifts = [a for a in figures.arms if a.lift is not None]
    heads = ("arm", "customers", "spend a customer and week", "interval", "lift over hold-out", "interval")
    note = (
        "Bought in all, whatever was shown, from each customer's first decision on."
        if lifts
        else "No lift can be told: the log has no hold-out."
    )

    def draw(axis: Any) -> None:
        for place, arm in enumerate(lifts):
            if arm.lift is not None:
                axis.plot([arm.lift.low, arm.lift.high], [place, place], color="#9fbfdf", lw=4)
                axis.plot(arm.lift.value, place, "o", color=BLUE)
        axis.axvline(0, color="black", lw=0.8, ls="--")
        axis.set_yticks(range(len(lifts)), [arm.arm for arm in lifts])
        axis.set(xlabel="lift over the hold-out, money a customer and week", ylim=(-0.6, len(lifts) - 0.4))

    drawn = _svg(draw, 1.1 + 0.45 * len(lifts)) if lifts else ""
    return f'<h2>Incremental lift by arm</h2>{_table(heads, rows)}{drawn}<p class="note">{note}</p>'


def _value(found: Any) -> str:
    return "" if found is None else f"{found.value:+,.2f}"


def _range(found: Any) -> str:
    return "" if found is None else f"[{found.low:,.2f}, {found.high:,.2f}]"


def _funnel(figures: LogFigures) -> str:
    heads = ("action", "placed", "seen", "clicked", "accepted", "rejected", "positive", "positive / seen")
    rows = [
        (escape(action), *(f"{n:,}" for n in counts), f"{counts[-1] / counts[1]:.1%}" if counts[1] else "")
        for action, *counts in figures.funnel
    ]
    return f"<h2>Funnel by action</h2>{_table(heads, rows)}"


def _choice(figures: LogFigures) -> str:
    rows = [
        (escape(channel), f"{n:,}", f"{share:.1%}", f"{figures.options[channel]:.1f}")
        for channel, (n, share) in figures.empty.items()
    ]
    heads = ("channel", "decisions", "without any action", "actions to choose from")
    return f"<h2>No action, and optionality</h2>{_table(heads, rows)}"


def _models(figures: LogFigures) -> str:
    if not figures.models:
        return '<h2>Ranking and calibration</h2><p class="note">No response window is over yet.</p>'
    rows = [
        (
            escape(issue), f"{m['rows']:,.0f}", f"{m['positives']:,.0f}",
            f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]" if "auc" in m else "",
            f"{m['predicted_ratio']:.2f}" if "auc" in m else "",
            f"{m['slope']:.2f}" if "slope" in m else "",
            f"{m['ece_ratio']:.2f}" if "auc" in m else "",
        )
        for issue, m in figures.models.items()
    ]  # fmt: skip
    heads = ("issue", "responses", "positives", "AUC", "predicted / observed", "slope", "ECE / base rate")

    def draw(axes: Any) -> None:
        left, right = axes
        for issue in sorted({week.issue for week in figures.weeks}):
            own = [week for week in figures.weeks if week.issue == issue]
            days = [datetime.fromtimestamp(week.start, UTC) for week in own]
            colour = COLOURS.get(issue, GREY)
            left.plot(days, [week.auc for week in own], "o-", ms=4, color=colour, label=issue)
            right.plot(days, [100 * week.observed for week in own], "o-", ms=4, color=colour)
            right.plot(days, [100 * week.predicted for week in own], "--", lw=1.2, color=colour)
        for limit in AUC_LIMITS:
            left.axhline(limit, color="black", lw=0.7, ls=":")
        left.set(ylabel="AUC, week shown", ylim=(0.3, 1.0))
        left.legend(frameon=False, fontsize=8)
        right.set(ylabel="positive, %")
        for axis in axes:
            axis.tick_params(axis="x", rotation=30)

    drawn = _svg(draw, 3.4, panels=2)
    note = (
        "Treatments whose response window is over, by the week in which they were shown. Left: AUC. Right: observed, "
        "and dashed what was predicted. What the engine chose to show has a narrower range of scores than all there is."
    )
    return f'<h2>Ranking and calibration</h2>{_table(heads, rows)}{drawn}<p class="note">{note}</p>'


def _drift(figures: LogFigures) -> str:
    top = [(name, psi) for name, psi in figures.moved.items() if psi == psi][:MOST_BARS]
    if not top:
        return '<h2>Drift</h2><p class="note">The decisions span no time to compare.</p>'

    def draw(axis: Any) -> None:
        names, values = zip(*reversed(top), strict=True)
        colours = [{"shifted": "#b00020", "watch": ORANGE}.get(reading(value), BLUE) for value in values]
        axis.barh(names, values, color=colours)
        for limit in (WATCH, SHIFTED):
            axis.axvline(limit, color="black", lw=1.0, ls=":")
        axis.set(xlabel=f"PSI; dotted: {WATCH:.2f} watch, {SHIFTED:.2f} shifted")

    note = "Columns as decided on: the newest third of the decisions against the oldest. Largest first."
    return f'<h2>Drift</h2>{_svg(draw, 0.8 + 0.26 * len(top))}<p class="note">{note}</p>'


def _svg(draw: Callable[[Any], None], height: float, panels: int = 1) -> str:
    """Draw into an SVG element."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
    }
    with plt.rc_context({**style, "svg.hashsalt": "nba"}):
        figure, axes = plt.subplots(1, panels, figsize=(10, height), layout="constrained")
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
        plt.close(figure)
    text = written.getvalue()
    return text[text.index("<svg") :]
