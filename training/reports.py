"""Pictures and tables of a trained model, for MLflow and for people. Decides nothing that a decision depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import AISLES
from service.decision.model import ISSUES
from training.dataset import Dataset
from training.drift import SHIFTED, WATCH, drift, reading
from training.evaluate import reliability
from training.train import Trained, is_unused

Floats = NDArray[np.float64]

SCORE = "the score"
EXPLAINED_ROWS, EXPLAINED_INPUTS, DRIFTING_INPUTS = 300, 15, 18
TITLES = {
    "upsell": "Upsell: coupon of the aisle redeemed",
    "cross_sell": "Cross-sell: aisle bought within 30 days",
    "retention": "Retention: silent for 30 days",
}
LABELS = {
    "lightgbm": "LightGBM, calibrated",
    "logistic_regression": "Logistic regression",
    "popularity": "Rate of the action",
}
COLOURS = {"lightgbm": "#0b5394", "logistic_regression": "#e07b00", "popularity": "#7f7f7f"}


def draw_all(
    folder: Path, dataset: Dataset, trained: Trained, actions: Mapping[str, Mapping[str, float]]
) -> list[Path]:
    """Draw calibration, gain, importance, contributions, AUC by action and drift as PNG files.

    Args:
        folder: Where the files go.
        actions: `issue|member` -> measures on the test slice, with `interval_low` and `interval_high` of the AUC.
    """
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
    paths = []
    with plt.rc_context(style):
        for name, draw in (("calibration", _calibration), ("gain", _gain)):
            figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
            for axis, issue in zip(axes, TITLES, strict=True):
                _issue_panel(axis, issue, dataset, trained, draw)
            if name == "calibration":
                axes[0].legend(loc="upper left", frameon=False)
            paths.append(_save(figure, folder / f"{name}.png"))
        figure, axis = plt.subplots(figsize=(8, 6.5), layout="constrained")
        _importance(axis, trained, dataset.names)
        paths.append(_save(figure, folder / "importance.png"))
        figure, axes = plt.subplots(1, 2, figsize=(12, 7), layout="constrained")
        for axis, issue in zip(axes, ("upsell", "cross_sell"), strict=True):
            _by_action(axis, issue, actions)
        paths.append(_save(figure, folder / "auc_by_action.png"))
        figure, axes = plt.subplots(1, 3, figsize=(16, 6.5), layout="constrained")
        for axis, issue in zip(axes, TITLES, strict=True):
            _contributions(axis, issue, dataset, trained)
        paths.append(_save(figure, folder / "contributions.png"))
        figure, axes = plt.subplots(1, 3, figsize=(16, 6), layout="constrained")
        for axis, issue in zip(axes, TITLES, strict=True):
            _drift(axis, issue, dataset, trained)
        paths.append(_save(figure, folder / "drift.png"))
    plt.close("all")
    return paths


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    return path


def _issue_panel(axis: Any, issue: str, dataset: Dataset, trained: Trained, draw: Any) -> None:
    own = trained.slices.test & _own(dataset, issue)
    labels = dataset.column("label")[own].astype(np.float64)
    axis.set_title(f"{TITLES[issue]}\n{int(labels.sum()):,} of {len(labels):,} test rows", fontsize=10)
    for name in LABELS:
        draw(axis, name, labels, trained.scores[name][own])


def _calibration(axis: Any, name: str, labels: Floats, p: Floats) -> None:
    if np.ptp(p) == 0:
        axis.plot([100 * p[0]], [100 * labels.mean()], "s", color=COLOURS[name], label=LABELS[name])
    else:
        predicted, observed, _ = reliability(labels, p)
        axis.plot(100 * predicted, 100 * observed, "o-", ms=4, lw=1.3, color=COLOURS[name], label=LABELS[name])
    low, high = axis.get_xlim()
    top = max(high, 100 * labels.mean() * 1.1)
    if name == "lightgbm":
        axis.axhline(100 * labels.mean(), color="#999999", lw=0.8, ls=":", label="Base rate")
        axis.plot([0, 100], [0, 100], color="black", lw=0.8, ls="--", label="Perfect", scalex=False, scaley=False)
        axis.set(xlabel="Predicted probability, %", ylabel="Observed rate, %  (15 bins of equal mass)")
    axis.set_xlim(min(low, 0), top)
    axis.set_ylim(bottom=0)


def _gain(axis: Any, name: str, labels: Floats, p: Floats) -> None:
    order = np.lexsort((np.random.default_rng(0).random(len(p)), -p))
    share = np.arange(1, len(p) + 1) / len(p)
    caught = np.cumsum(labels[order]) / labels.sum()
    thin = np.unique(np.linspace(0, len(p) - 1, 400).astype(int))
    lift = caught[max(len(p) // 10 - 1, 0)] * 10
    label = f"{LABELS[name]}: lift {lift:.1f} in the top 10 %"
    axis.plot(100 * share[thin], 100 * caught[thin], lw=1.5, color=COLOURS[name], label=label)
    if name == "lightgbm":
        axis.plot([0, 100], [0, 100], color="black", lw=0.8, ls="--", label="By chance")
        axis.set(xlabel="Rows contacted, best first, %", ylabel="Positives reached, %", xlim=(0, 100), ylim=(0, 101))
    axis.legend(loc="lower right", frameon=False, fontsize=8)


def _importance(axis: Any, trained: Trained, names: tuple[str, ...]) -> None:
    gain = trained.booster.feature_importance("gain")
    top = np.argsort(gain)[-25:]
    axis.barh([names[i] for i in top], 100 * gain[top] / gain.sum(), color=COLOURS["lightgbm"])
    axis.set(xlabel="Share of the total gain of all splits, %")
    axis.set_title(f"What the trees split on: the 25 inputs of the greatest gain, of {len(names)}", fontsize=10)
    axis.grid(axis="y", visible=False)


def _contributions(axis: Any, issue: str, dataset: Dataset, trained: Trained) -> None:
    """Draw what each input added to the log-odds, a dot a row of the test: exact Shapley values of the trees."""
    rows = np.flatnonzero(trained.slices.test & _own(dataset, issue))
    rows = np.random.default_rng(0).permutation(rows)[:EXPLAINED_ROWS]
    parts = np.asarray(trained.booster.predict(dataset.inputs[rows], pred_contrib=True))[:, :-1]
    top = np.argsort(np.abs(parts).mean(axis=0))[-EXPLAINED_INPUTS:]
    values = dataset.inputs[np.ix_(rows, top)]
    ranks, missing = values.argsort(axis=0).argsort(axis=0), np.isnan(values)
    places = np.arange(len(top)) + np.random.default_rng(1).uniform(-0.3, 0.3, values.shape)
    for own, look in ((missing, {"color": "#b7b7b7"}), (~missing, {"c": ranks[~missing], "cmap": "coolwarm"})):
        axis.scatter(parts[:, top][own], places[own], s=4, linewidths=0, **look)
    axis.axvline(0.0, color="black", lw=0.8)
    axis.set_yticks(range(len(top)), [dataset.names[column] for column in top], fontsize=8)
    axis.set(xlabel="Added to the log-odds; blue low, red high, grey missing")
    axis.set_title(f"{TITLES[issue]}\n{len(rows):,} test rows", fontsize=10)


def _drift(axis: Any, issue: str, dataset: Dataset, trained: Trained) -> None:
    """Draw how far the score, and the inputs that may be split on, moved from what was fitted on to the test."""
    own, test = _own(dataset, issue), trained.slices.test
    columns = {name: dataset.inputs[:, i] for i, name in enumerate(dataset.names) if not is_unused(name)}
    columns[SCORE] = trained.raw
    moved = drift({n: v[own & ~test] for n, v in columns.items()}, {n: v[own & test] for n, v in columns.items()})
    most = [(name, psi) for name, psi in moved.items() if psi == psi and name != SCORE][:DRIFTING_INPUTS]
    found = [(SCORE, moved[SCORE]), *most][::-1]
    colours = {"stable": COLOURS["lightgbm"], "watch": COLOURS["logistic_regression"], "shifted": "#b00020"}
    axis.barh([n for n, _ in found], [psi for _, psi in found], color=[colours[reading(psi)] for _, psi in found])
    for limit in (WATCH, SHIFTED):
        axis.axvline(limit, color="black", lw=0.8, ls="--")
    axis.tick_params(axis="y", labelsize=8)
    axis.set(xlabel=f"Population stability index; {WATCH:g} watch, {SHIFTED:g} shifted")
    axis.set_title(f"{TITLES[issue]}\nfrom the rows fitted on to the test", fontsize=10)
    axis.grid(axis="y", visible=False)


def _own(dataset: Dataset, issue: str) -> NDArray[np.bool_]:
    return np.asarray(dataset.inputs[:, dataset.names.index("issue")] == ISSUES.index(issue))


def _by_action(axis: Any, issue: str, actions: Mapping[str, Mapping[str, float]]) -> None:
    found = {m: actions[f"{issue}|{m}"] for m in AISLES if "auc" in actions.get(f"{issue}|{m}", {})}
    order = sorted(found, key=lambda member: found[member]["auc"])
    for place, member in enumerate(order):
        measured = found[member]
        axis.plot([measured["interval_low"], measured["interval_high"]], [place, place], color="#9fbfdf", lw=3)
        axis.plot(measured["auc"], place, "o", ms=5, color=COLOURS["lightgbm"])
    axis.axvline(0.5, color="black", lw=0.8, ls="--")
    axis.text(0.505, -0.8, "by chance", fontsize=8)
    labels = [f"{member} ({int(found[member]['positives'])})" for member in order]
    axis.set_yticks(range(len(order)), labels)
    axis.set(xlabel="AUC on the test slice, 95 % interval by household", xlim=(0.3, 1.0))
    axis.set_title(f"{TITLES[issue]}\nby aisle (positives), at least 10 positives", fontsize=10)


def as_markdown(table: Mapping[str, Mapping[str, float]]) -> str:
    """Lay measures out as a Markdown table, one line a subject."""
    columns = ("rows", "positives", "base_rate", "auc", "log_loss", "brier_skill", "ece", "ece_ratio", "slope",
               "predicted_ratio", "within_auc", "recall_at_3")  # fmt: skip
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for subject, measured in table.items():
        cells = [_cell(name, measured.get(name)) for name in columns]
        lines.append(f"| {subject.replace('|', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(name: str, value: float | None) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if name in ("rows", "positives") else f"{value:.4f}"
