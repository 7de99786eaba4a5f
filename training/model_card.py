"""The model card: what a version is for, what it was made from, how good it is and where it must not be trusted.

After Mitchell et al. 2019, "Model Cards for Model Reporting". Decides nothing; writes down what others measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from features.contract import REGISTERED_MODEL
from features.version import features_version
from service.decision.bundle_scorer import LEAST_POSITIVES
from service.decision.model import ISSUES
from training.dataset import Dataset
from training.reports import as_markdown
from training.train import CALIBRATION_FROM, TEST_FROM, Trained

Measures = Mapping[str, Mapping[str, float]]

LABELS = {
    "upsell": "a coupon of the aisle is redeemed within the campaign (which coupons were shown is unknown: intent to "
    "treat)",
    "cross_sell": "a first or returning purchase in the aisle within 30 days",
    "retention": "30 days without a purchase",
}


def model_card(dataset: Dataset, trained: Trained, overall: Measures, actions: Measures) -> str:
    """Write the card as Markdown.

    Args:
        overall: `<model>.<part>` -> measures on the test slice. actions: `issue|member` -> measures.
    """
    slices = trained.slices
    return "\n\n".join(
        (
            f"# {REGISTERED_MODEL}",
            "## What it is for\n\nP(positive | shown) of an action for a customer, calibrated, as one factor of the "
            "priority by which a next best action is chosen. Not for credit, prices, employment or anything with legal "
            "effect on a person. Nothing it was trained on is randomised: it says what goes together with a response, "
            "not what a contact causes.",
            "## What a positive is\n\n"
            + "\n".join(f"- **{issue}**: {LABELS[issue]}" for issue in ISSUES if issue in LABELS)
            + "\n\nThese are different events: their probabilities are never compared with each other without a value.",
            "## What it was made from\n\n"
            f"- dataset `{dataset.fingerprint[:16]}`, feature contract `{features_version()}`, "
            f"{len(dataset.names)} inputs\n"
            f"- fitted on {int((~slices.test).sum()):,} rows before {TEST_FROM:%Y-%m-%d}, calibrated on those from "
            f"{CALIBRATION_FROM:%Y-%m-%d} by models that had not seen them, judged on {int(slices.test.sum()):,} rows "
            "after\n"
            f"- of all, {int(dataset.is_logged.sum()):,} rows are answers of the decision log, by which their issues "
            "are calibrated and judged\n"
            f"- {trained.rounds} trees; a logistic line an issue, moved for each group of actions by as much as groups "
            "differ beyond chance, turns scores into probabilities",
            "## How good it is, beside plain models\n\nOn the test slice, which lies after everything it was fitted "
            "on; intervals are 95 %, by household.\n\n" + as_markdown(overall),
            "## By action\n\n" + (as_markdown(actions) if actions else "No action has enough positives to be judged."),
            "## Where not to trust it\n\n" + "\n".join(f"- {line}" for line in _limits(overall, actions)),
        )
    )


def _limits(overall: Measures, actions: Measures) -> list[str]:
    """Return what the measures themselves warn of."""
    found = [
        "a customer of whom nothing is known is scored as the typical new one",
        f"an action with fewer than {LEAST_POSITIVES} positives is scored as any other of its group; one of an issue "
        "that was never seen is not scored: the catalogue's assumption stands",
    ]
    for issue in ISSUES:
        own, plain = overall.get(f"lightgbm.{issue}", {}), overall.get(f"logistic_regression.{issue}", {})
        if own and own.get("log_loss", 0.0) >= plain.get("log_loss", float("inf")):
            found.append(f"{issue}: a logistic regression does as well or better here")
        if own and not 0.8 <= own.get("predicted_ratio", 1.0) <= 1.25:
            found.append(f"{issue}: the level is off on the test (predicted / observed {own['predicted_ratio']:.2f})")
    weak = [name for name, measured in actions.items() if measured.get("interval_low", 1.0) < 0.5]
    if weak:
        found.append("not told from chance on the test: " + ", ".join(sorted(weak)))
    return found
