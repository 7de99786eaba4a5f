"""All settings, in one frozen class, read from the environment (prefix NBA_) by the entry points only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

_REDIS = re.compile(
    r"(redis|rediss)://([^@/]*@)?(\[[0-9a-fA-F:]+\]|[^@:/\s]+)(:[0-9]{1,5})?(/[0-9]*)?(\?.*)?|unix://.+"
)
CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Every knob of the service. Each has a default that works on one machine with nothing else installed."""

    model_config = SettingsConfigDict(env_prefix="NBA_", env_file=".env", frozen=True, extra="ignore")

    var: Path = Field(CHECKOUT / "var", description="Folder of everything the service writes.")
    catalogue: Path = Field(CHECKOUT / "service" / "catalogue.yaml", description="The catalogue.")
    redis_url: SecretStr | None = Field(None, description="Feature store server; none: an embedded server under var/.")
    state_redis_url: SecretStr | None = Field(
        None, description="State and journal server; none: the same as redis_url."
    )
    fact_reader: Literal["redis", "sdk"] = Field(
        "redis", description="redis: facts straight from Feast's Redis layout; sdk: any online store, through Feast."
    )
    mlflow_uri: str = Field(
        f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}", description="MLflow tracking and registry."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    api_key: SecretStr | None = Field(None, description="One API key with all scopes; off loopback this or api_keys.")
    api_keys: str | None = Field(
        None, description="API keys: a JSON list, or a file of one, of what `nba key new` prints."
    )
    docs: bool | None = Field(None, description="Serve /docs and /openapi.json; none: on loopback only.")
    gather_deadline_ms: float = Field(
        10.0, gt=0, description="How long a decision waits for facts, contacts and switches."
    )
    explain_deadline_ms: float = Field(
        50.0, gt=0, description="How long after its start a decision with explain: full may wait for contributions."
    )
    record_deadline_ms: float = Field(30.0, gt=0, description="How long a decision waits for its reservation and log.")
    intake_deadline_ms: float = Field(1000.0, gt=0, description="How long an outcome or event waits for the journal.")
    most_in_flight: int = Field(
        512, ge=1, description="Decisions, outcomes and events that a process works on at once; more get a 503."
    )
    reload_seconds: float = Field(
        0.5, gt=0, description="How often a serving process looks for a new bundle or catalogue."
    )
    lake_seconds: float = Field(
        30.0, gt=0, description="How long the worker gathers entries before it writes the lake."
    )
    shadow_share: float = Field(
        0.0, ge=0, le=1, description="Share of decisions that the challenger also scores, after the answer went out."
    )
    retention_days: dict[Literal["decisions", "outcomes", "events", "switches", "shadows"], int] = Field(
        {}, description="Days that the log's tables keep, as JSON: table -> days; a table that is not named keeps all."
    )
    decision_ttl_days: float = Field(45.0, gt=0, description="How long outcomes find their decision.")
    idempotency_days: float = Field(35.0, gt=0, description="How long a repeated outcome, event or request is known.")
    clock: Literal["auto", "wall"] = Field(
        "auto", description="auto: obey var/clock.json where it exists; wall: never."
    )
    drain_seconds: float = Field(
        1.0, ge=0, description="How long /readyz says 503 before a serving process stops listening, on SIGTERM."
    )
    native_trees: bool = Field(
        False, description="Agent: compile each model's trees (needs a C compiler); serving: score with them."
    )
    traces: Literal["auto", "console", "off"] = Field(
        "auto", description="auto: spans go to OTEL_EXPORTER_OTLP_ENDPOINT where it is set; console: to stdout."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level of the JSON log.")

    @field_validator("redis_url", "state_redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _REDIS.fullmatch(url.get_secret_value()):
            raise PydanticCustomError("redis_url", "it is no redis://[[user]:password@]host[:port][/number]")
        return url

    @property
    def lake(self) -> Path:
        """Folder of the Parquet lake."""
        return self.var / "lake"


SECRET = ("redis_url", "state_redis_url", "api_key", "api_keys", "mlflow_uri")
"""Settings whose value may hold a password, and is never said."""


def explain_settings(error: BaseException) -> str | None:
    """Say which variables cannot be used, what they hold and what they may; None for another kind of failure."""
    if isinstance(error, SettingsError):  # a value that should have been JSON
        name = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        return f"NBA_{name.upper()} is no JSON; {_wanted(name)}" if name else None
    if not isinstance(error, ValidationError) or error.title != Settings.__name__:
        return None
    return "; ".join(_told(one) for one in error.errors(include_url=False, include_context=False))


def _told(error: Any) -> str:
    name = str(error["loc"][0])
    found = "" if name in SECRET else f" is {str(error['input'])[:60]!r}"
    return f"NBA_{name.upper()}{found}: {error['msg'][:1].lower()}{error['msg'][1:]}; {_wanted(name)}"


def _wanted(name: str) -> str:
    field = Settings.model_fields[name]
    default = field.default.relative_to(CHECKOUT) if isinstance(field.default, Path) else field.default
    usual = "" if name in SECRET else f" ({'none' if default is None else default})"
    return f"correct it, or leave it out for the default{usual}. {field.description}"
