"""A running service reads the evidence of outcomes by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import SecretStr

from service.bootstrap import open_runtime
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue
from service.ports import Caps, Outcome
from service.settings import Settings
from tests.service.decision.worlds import CATALOGUE, COLUMNS
from tests.service.rows import CHEESE, decision_row

PATIENT_SECONDS = 60.0


def test_an_impression_is_expected_of_without_anybody_asking(clean_url: str, tmp_path: Path) -> None:
    """An outcome that was taken is in the evidence that decisions are given, once the background has read it."""
    settings = Settings(
        redis_url=SecretStr(clean_url), var=tmp_path, clock="wall", catalogue=CATALOGUE, lake=tmp_path / "lake"
    )
    catalogue = compile_catalogue(load_catalogue(CATALOGUE), COLUMNS)
    cheese = catalogue.catalogue.index["upsell_cheese"]

    async def scenario() -> float:
        async with open_runtime(settings) as runtime:
            source, now = runtime.online.evidence, runtime.clock.now()
            assert source is not None
            assert source.of(catalogue).expected[cheese] == 0
            row = decision_row("a", now)
            offers = (CHEESE._replace(propensity=0.25),)
            await runtime.state.record(row, offers, Caps(), answer=None, request_digest="", deadline_seconds=5)
            outcome = Outcome("o1", row.decision_id, "upsell_cheese", "impression", None, now)
            [receipt] = await runtime.journal.append_outcomes([outcome], now)
            assert receipt.status == "accepted"
            async with asyncio.timeout(PATIENT_SECONDS):
                while source.of(catalogue).expected[cheese] == 0:
                    await asyncio.sleep(0.05)
            return float(source.of(catalogue).expected[cheese])

    assert 0.249 < asyncio.run(scenario()) <= 0.25
