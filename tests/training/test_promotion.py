"""Who may move the champion, and how it is taken back: on a real MLflow with real versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest
import typer
from mlflow import MlflowClient
from typer.testing import CliRunner

from features.contract import REGISTERED_MODEL
from tests.small_world import SmallWorld
from training import registry_commands
from training.gate import Verdict
from training.promotion import CHALLENGER, CHAMPION, PromotionError, Registry

app = typer.Typer()
registry_commands.register(app)


@pytest.fixture
def registry(small_world: SmallWorld, tmp_path: Path) -> Registry:
    """A copy of the small world's MLflow in which its first model is the only one, and registered twice."""
    source = Path(small_world.mlflow_uri.removeprefix("sqlite:///"))
    copy = tmp_path / "mlflow.db"
    shutil.copy(source, copy)
    uri = f"sqlite:///{copy}"
    client = MlflowClient(uri, uri)
    for version in client.search_model_versions(f"name = '{REGISTERED_MODEL}'"):
        if str(version.version) != "1":
            client.delete_model_version(REGISTERED_MODEL, version.version)
    first = client.get_model_version(REGISTERED_MODEL, "1")
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)  # the client looks the model up there, whatever its own address is
    second = client.create_model_version(REGISTERED_MODEL, first.source, first.run_id, tags=first.tags).version
    mlflow.set_tracking_uri(before)
    client.set_registered_model_alias(REGISTERED_MODEL, "challenger", second)
    return Registry(uri)


@pytest.fixture
def second(registry: Registry) -> str:
    """The number of the challenger."""
    return registry.version_of(CHALLENGER) or ""


def _run(registry: Registry, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "--mlflow-uri", registry.uri])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, " ".join(done.output.split())


def test_training_wrote_down_its_own_move(registry: Registry) -> None:
    """The first version is champion, moved by the command that trained it."""
    assert registry.version_of(CHAMPION) == "1"
    (move,) = registry.moves()
    assert (move["version"], move["before"], move["who"]) == ("1", "", "nba train")


def test_a_challenger_that_is_no_worse_is_promoted_and_can_be_taken_back(registry: Registry, second: str) -> None:
    """The same model passes the gate; a rollback brings the one before; a further one finds nothing."""
    code, said = _run(registry, "promote", "--force", "--who", "ana", "--why", "same model")
    assert code == 0, said
    assert f"version {second} is the champion, before it was 1" in said
    code, said = _run(registry, "rollback", "--who", "rui", "--why", "complaints")
    assert code == 0, said
    assert registry.version_of(CHAMPION) == "1"
    assert [(m["version"], m["who"], m["is_rollback"]) for m in registry.moves()[1:]] == [
        (second, "ana", False), ("1", "rui", True),
    ]  # fmt: skip
    code, said = _run(registry, "rollback", "--who", "rui", "--why", "again")
    assert code == 2
    assert "no version before the champion" in said
    code, said = _run(registry, "versions")
    assert "complaints" in said


def test_the_two_are_compared_on_the_held_out_rows_of_the_challenger(registry: Registry, second: str) -> None:
    """Both models' measures stand side by side, with the gain and its interval."""
    verdict = registry.verdict(second)
    retention = verdict.measures["retention"]
    assert retention["auc"] == retention["champion.auc"]
    assert retention["gain_low"] == retention["gain"] == retention["gain_high"] == 0.0


def test_what_the_gate_refuses_needs_a_name_and_a_reason(registry: Registry) -> None:
    """A version that cannot be judged stays; force without who and why is refused."""
    client = MlflowClient(registry.uri, registry.uri)
    unknown = str(client.create_model_version(REGISTERED_MODEL, "runs:/nothing/model", None).version)
    code, said = _run(registry, "promote", unknown)
    assert code == 2
    assert "no held-out rows" in said
    code, said = _run(registry, "promote", unknown, "--force")
    assert code == 2
    assert "--who and --why" in said
    assert registry.version_of(CHAMPION) == "1"


def test_a_version_that_is_not_there_is_said(registry: Registry) -> None:
    """The number is named, and where to look."""
    with pytest.raises(PromotionError, match="no version 77"):
        registry.verdict("77")


def test_moves_keep_what_the_gate_had_against_them(registry: Registry, second: str) -> None:
    """A forced promotion carries the refusals."""
    registry.promote(second, "ana", "because", Verdict(("upsell: worse",), {}))
    assert registry.moves()[-1]["refusals"] == ["upsell: worse"]
