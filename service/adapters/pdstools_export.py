"""The log in the column names that Pega's open-source pdstools reads: DecisionAnalyzer (extract v2) and ih.IH.

Decides what our stages and outcomes are called there. Customers are written as hashes; those who object to marketing
are left out. A column that we have nothing for is not written.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from service.adapters.durable import replaced_file
from service.adapters.log_views import open_log
from service.decision.model import Stage

STAGES = {
    Stage.SWITCHED_OFF: ("AvailableActions", "ActionAvailability", 100),
    Stage.OUT_OF_DATES: ("AvailableActions", "ActionAvailability", 100),
    Stage.OUT_OF_REACH: ("AvailableActions", "ActionAvailability", 100),
    Stage.ISSUE_NOT_ASKED: ("ChannelAvailabilityProductAssociations", "InboundChannelAvailability", 500),
    Stage.ELIGIBILITY: ("EngagementPolicies", "IssueGroupEligibility", 1000),
    Stage.APPLICABILITY: ("EngagementPolicies", "IssueGroupApplicability", 1100),
    Stage.SUITABILITY: ("EngagementPolicies", "IssueGroupSuitability", 1200),
    Stage.NO_CONSENT: ("JourneysContactPolicies", "ContactPoliciesActionSuppressions", 2000),
    Stage.CONTACT_POLICY: ("JourneysContactPolicies", "ContactPoliciesActionSuppressions", 2000),
    Stage.MUST_BE_LOGGED: ("JourneysContactPolicies", "ContactPoliciesActionSuppressions", 2000),
    Stage.BELOW_THRESHOLD: ("ActionPropensity", "ActionPropensityThresholds", 3000),
    Stage.NOT_SELECTED: ("Arbitration", "Arbitration", 3800),
    Stage.HELD_OUT: ("FinalActionsProcessing", "ContactPoliciesActionLimits", 4500),
    Stage.RESERVATION_REFUSED: ("FinalActionsProcessing", "ContactPoliciesActionLimits", 4500),
    Stage.RANKED: ("Output", "Output", 5000),
}
"""Our stage -> stage group, stage and order of Pega's pipeline, as pdstools names them."""
OUTCOMES = {
    "impression": "Impression",
    "click": "Clicked",
    "accept": "Accepted",
    "reject": "Rejected",
    "conversion": "Conversion",
}
OUTBOUND = ("email", "sms", "push", "mail", "outbound")
"""Channels that reach out; on the others the customer comes to us."""
ROWS = 50_000

_SUBJECT = "left(sha256({table}.customer_id), 32)"
_OBJECTED = """
SELECT customer_id FROM (
  SELECT customer_id, bool_and(NOT (properties->>'$.granted')::BOOLEAN) AS objects, occurred_at FROM events
  WHERE type = 'consent_changed' AND properties->>'$.channel' = 'all'
    AND properties->>'$.purpose' IN ('marketing', 'all')
  GROUP BY customer_id, occurred_at QUALIFY occurred_at = max(occurred_at) OVER (PARTITION BY customer_id))
WHERE objects
"""
_DECISIONS = f"""
SELECT CASE WHEN c.stage = 'ranked' THEN 'OUTPUT' ELSE 'FILTERED_OUT' END AS pxRecordType,
  {_SUBJECT.format(table="c")} AS Primary_pySubjectID, 'Customer' AS Primary_pySubjectType,
  decision_id AS pxInteractionID, decision_time::TIMESTAMP AS pxDecisionTime, coalesce(issue, '') AS pyIssue,
  coalesce("group", '') AS pyGroup, coalesce(action_id, treatment_id) AS pyName, treatment_id AS pyTreatment,
  coalesce(placement, '') AS PlacementType, 'nba' AS pxStrategyName, channel AS Primary_ContainerPayload_Channel,
  CASE WHEN channel IN {OUTBOUND} THEN 'Outbound' ELSE 'Inbound' END AS Primary_ContainerPayload_Direction,
  s.name AS Stage_pyName, s.stage_group AS Stage_pyStageGroup, s.position AS Stage_pyOrder,
  c.stage AS pxComponentName, CASE WHEN c.stage = 'ranked' THEN 'Strategy' ELSE 'Filter' END AS pxComponentType,
  "value" AS "Value", context_weight AS ContextWeight, lever AS Weight,
  CASE WHEN isnan(propensity) THEN NULL ELSE propensity END AS FinalPropensity,
  (CASE WHEN isnan(priority) THEN NULL ELSE priority END)::FLOAT AS Priority, rank AS pxRank, arm AS ModelControlGroup,
  selection_probability, 'nba' AS pyApplication, catalogue_version AS pyApplicationVersion
FROM candidates c JOIN pega s ON s.stage = c.stage
WHERE NOT dry_run AND customer_id NOT IN ({_OBJECTED})
"""
_HISTORY = f"""
SELECT {_SUBJECT.format(table="o")} AS pySubjectID, o.decision_id AS pxInteractionID, n.label AS pyOutcome,
  occurred_at::TIMESTAMP AS pxOutcomeTime, o.channel AS pyChannel,
  CASE WHEN o.channel IN {OUTBOUND} THEN 'Outbound' ELSE 'Inbound' END AS pyDirection,
  o.issue AS pyIssue, o."group" AS pyGroup, o.action_id AS pyName, o.treatment_id AS pyTreatment,
  d.propensities[list_position(d.treatment_ids, o.treatment_id)] AS pyPropensity,
  'GradientBoost' AS pyModelTechnique, d.arm AS ExperimentGroup, o."value" AS "Value"
FROM outcomes o JOIN labels n ON n.type = o.type LEFT JOIN decisions d ON d.decision_id = o.decision_id
WHERE NOT o.is_orphan AND o.customer_id NOT IN ({_OBJECTED})
"""


def export(lake: Path, catalogues: Path, out: Path) -> dict[Path, int]:
    """Write `decisions.parquet` and `ih.parquet`, each in one step. Returns how many rows each has."""
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    with open_log(lake, catalogues) as con:
        con.execute("CREATE TABLE pega (stage VARCHAR, stage_group VARCHAR, name VARCHAR, position INTEGER)")
        con.executemany("INSERT INTO pega VALUES (?, ?, ?, ?)", [(s.name.lower(), *to) for s, to in STAGES.items()])
        con.execute("CREATE TABLE labels (type VARCHAR, label VARCHAR)")
        con.executemany("INSERT INTO labels VALUES (?, ?)", list(OUTCOMES.items()))
        for name, query in (("decisions.parquet", _DECISIONS), ("ih.parquet", _HISTORY)):
            rows, count = con.execute(query).to_arrow_reader(ROWS), 0
            with replaced_file(out / name) as file, pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
                for batch in rows:
                    writer.write_batch(batch)
                    count += batch.num_rows
            written[out / name] = count
    return written
