"""The three things done with Feast: apply the definitions, materialize snapshots online, push rows online.

Decides nothing about facts. It must not know of models. Imports Feast inside its functions: `import feast` takes
seconds, and whoever only wants help or another step must not pay them.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import Floats, to_view

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_REPO = Path(__file__).resolve().parent.parent / "features"


@contextlib.contextmanager
def quiet_feast() -> Iterator[None]:
    """Keep Feast's advice for its own developers from the terminal; errors still come through."""
    noisy = logging.getLogger("feast")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            noisy.setLevel(level)


def open_store(repo: Path = FEATURE_REPO) -> FeatureStore:
    """Open Feast on feature_store.yaml, which expands NBA_FEAST_REDIS and NBA_FEAST_REGISTRY."""
    with quiet_feast():
        from feast import FeatureStore

        return FeatureStore(repo_path=str(repo))


def apply(store: FeatureStore | None = None, *, facts_folder: Path | None = None) -> list[str]:
    """Register the definitions, replacing those of the same name and deleting views that are no more.

    Args:
        store: Where to; by default the store of this project.
        facts_folder: Where the snapshots lie; by default as `features.definitions` finds it.

    Returns:
        The names of the feature views.
    """
    store = store or open_store()
    with quiet_feast():
        from feast import FeatureView

        from features.definitions import facts_folder as default_folder
        from features.definitions import feast_objects

        objects = list(feast_objects(facts_folder or default_folder()).values())
        names = [item.name for item in objects if isinstance(item, FeatureView)]
        gone = [view for view in store.list_feature_views() if view.name not in names]
        store.apply(objects, objects_to_delete=gone, partial=not gone)
    return names


def materialize(
    start: datetime, end: datetime, store: FeatureStore | None = None, *, console: Console | None = None
) -> list[str]:
    """Write each customer's latest snapshot row within [start, end] to the online store, view by view.

    Args:
        start: Aware; snapshots before it are left out.
        end: Aware; must not lie in the future of the service's clock, or later pushes are ignored.
        store: By default the store of this project.
        console: Where progress is shown; None shows nothing.

    Returns:
        The views that were written.
    """
    store = store or open_store()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    names = [view.name for view in LAYOUT.views]
    with Progress(*columns, console=console or Console(quiet=True)) as progress:
        task = progress.add_task("Materializing", total=len(names))
        for name in names:
            progress.update(task, description=f"Materializing {name}")
            with quiet_feast():
                store.materialize(start_date=start, end_date=end, feature_views=[name])
            progress.advance(task)
    return names


def push(view: str, rows: Mapping[str, Floats], moments: Sequence[float], store: FeatureStore | None = None) -> int:
    """Push customers' facts of one view to the online store; a row older than the stored one is ignored by Feast.

    Args:
        view: The view's name.
        rows: Customer id -> facts (LAYOUT.width,).
        moments: Unix seconds UTC of each row's last event, in the order of `rows`.
        store: By default the store of this project.

    Returns:
        How many rows were pushed.
    """
    import numpy as np
    import pandas as pd

    if not rows:
        return 0
    store = store or open_store()
    stamps = [datetime.fromtimestamp(moment, UTC) for moment in moments]
    # Arrays, not lists: of a column of lists of NaN Feast infers lists of nulls, and stores zeros without a word.
    records = [
        {name: np.asarray(value) if isinstance(value, list) else value for name, value in to_view(row, view).items()}
        for row in rows.values()
    ]
    frame = pd.DataFrame(records).assign(**{JOIN_KEY: list(rows)})
    frame["event_timestamp"] = frame["created"] = stamps
    with quiet_feast():
        from feast.data_source import PushMode

        store.push(f"{view}_push", frame, to=PushMode.ONLINE)
    return len(frame)


def facts_as_of(customer_ids: Sequence[str], moments: Sequence[datetime], store: FeatureStore | None = None) -> Any:
    """Join each (customer, moment) with the facts known then, point in time, through Feast's offline store.

    Returns:
        A pyarrow table with `row_id` (the position of the pair) and all facts, in any order: Feast keeps none.
    """
    import pandas as pd

    store = store or open_store()
    pairs = pd.DataFrame(
        {"row_id": range(len(moments)), JOIN_KEY: list(customer_ids), "event_timestamp": list(moments)}
    )
    with quiet_feast():
        service = store.get_feature_service(FEATURE_SERVICE)
        return store.get_historical_features(pairs, service).to_arrow()
