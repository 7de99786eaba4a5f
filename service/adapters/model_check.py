"""Checks a candidate model in a process of its own: a damaged LightGBM file kills or hangs the process that loads it.

`check_in_child` is the parent's side; run as a module it is the child: limits first, then the text's header, then the
model itself, its inputs in order, and the golden rows. Both sides speak one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.adapters.scoring import Golden

WALL_SECONDS = 60.0
CPU_SECONDS = 45
MEMORY_BYTES = 4 * 1024**3
MAX_RAW = 50.0
"""Log-odds beyond this are no answer of a sound model."""
BINARY, REGRESSION = "binary sigmoid:1", "regression"
"""Objectives as LightGBM writes them: of the propensity model, of the effect model."""


def check_in_child(folder: Path, *, wall_seconds: float = WALL_SECONDS) -> dict[str, Any]:
    """Check model.txt against calibrator.json, contract.json and golden.json of a folder, and its effect model if any.

    Returns:
        golden.json, and uplift.json if there, with the raw scores as Booster gives them here, to the bit.

    Raises:
        ValueError: with why the model must not serve.
    """
    command = [sys.executable, "-m", "service.adapters.model_check", str(folder)]
    checkout = str(Path(__file__).resolve().parents[2])
    environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": checkout}
    try:
        done = subprocess.run(command, capture_output=True, timeout=wall_seconds, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"loading it took longer than {wall_seconds:g} s") from None
    if done.returncode < 0:
        raise ValueError(f"loading it killed the checking process ({signal.Signals(-done.returncode).name})")
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        verdict = answer["refused"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ValueError(
            f"the checking process gave no answer (exit {done.returncode}) {' '.join(last)[:200]}"
        ) from None
    if verdict is not None:
        raise ValueError(verdict)
    documents: dict[str, Any] = answer["documents"]
    return documents


def _check(folder: Path) -> dict[str, Any]:
    import numpy as np

    from features.version import describe_contract
    from service.adapters.bundle_dir import check_contract
    from service.adapters.scoring import Golden
    from service.decision.calibration import Calibrator

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    check_contract(read("contract.json"))
    calibrator, golden = Calibrator.from_document(read("calibrator.json")), Golden.from_document(read("golden.json"))
    inputs = describe_contract()["model_inputs"]
    raw = _check_booster(folder / "model.txt", golden, BINARY, inputs)
    issues = golden.rows[:, inputs.index("issue")]
    worst = float(np.max(np.abs(calibrator.apply(raw, issues) - golden.probabilities)))
    if not worst <= 1e-9:
        raise ValueError(f"calibrated probabilities differ from the golden ones by {worst:.3g}")
    documents = {"golden.json": Golden(golden.rows, raw, calibrator.apply(raw, issues)).document()}
    if (folder / "uplift.txt").exists():
        uplift = read("uplift.json")
        expected = Golden.from_document(uplift["golden"])
        scores = _check_booster(folder / "uplift.txt", expected, REGRESSION, inputs)
        documents["uplift.json"] = {**uplift, "golden": Golden(expected.rows, scores, scores).document()}
    return documents


def _check_booster(model: Path, golden: Golden, objective: str, inputs: list[str]) -> Any:
    """Return the golden rows' raw scores as Booster gives them here; ValueError where the model must not serve."""
    import numpy as np

    from service.adapters.scoring import open_lignum

    text = model.read_text(encoding="utf-8")
    check_header(text, inputs, objective)
    if golden.rows.shape[1] != len(inputs):
        raise ValueError(f"golden rows have {golden.rows.shape[1]} inputs, the contract has {len(inputs)}")

    import lightgbm

    booster = lightgbm.Booster(model_str=text)
    if booster.feature_name() != inputs:
        raise ValueError("the model's inputs are not the contract's, in its order")
    raw = np.asarray(booster.predict(golden.rows, raw_score=True, num_threads=1))
    if raw.shape != golden.raw.shape or not (np.abs(raw) <= MAX_RAW).all():
        raise ValueError("the model's scores are not log-odds within reason")
    worst = float(np.max(np.abs(raw - golden.raw)))
    if not worst <= 1e-9:
        raise ValueError(f"the model's scores differ from its golden ones by {worst:.3g}")
    fast = open_lignum(model)
    if fast is not None:
        fast(golden.rows)  # must not kill the process; that its bits are Booster's is checked wherever it serves
    return raw


def check_header(text: str, inputs: list[str], objective: str = BINARY) -> None:
    """Read the model text's own header before any native code does.

    Raises:
        ValueError: for a text that is cut, holds NUL bytes, has another objective, or other inputs.
    """
    if "\0" in text or not text.startswith("tree\n") or "\nend of trees\n" not in text:
        raise ValueError("model.txt is not a whole LightGBM text model")
    lines = dict(line.split("=", 1) for line in text[: text.find("\nTree=")].splitlines() if "=" in line)
    if lines.get("objective") != objective or lines.get("num_class") != "1":
        raise ValueError(f"the model's objective is {lines.get('objective')!r}; expected {objective!r}")
    if lines.get("feature_names", "").split(" ") != inputs:
        raise ValueError("the model's inputs are not the contract's, in its order")
    check_numbers(text)


def check_numbers(text: str) -> None:
    """Raise ValueError for a leaf that is no score: a leaf that no golden row reaches must be sound as well."""
    for line in text.splitlines():
        name, _, listed = line.partition("=")
        if name in ("leaf_value", "threshold"):
            numbers = [float(number) for number in listed.split(" ")]
            limit = MAX_RAW if name == "leaf_value" else float("inf")
            if not all(abs(number) <= limit for number in numbers):  # NaN is not
                raise ValueError(f"the model has a {name} that is no number within reason")


def main(folder: str) -> int:
    """Check one folder under limits and print the answer."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        documents = _check(Path(folder))
    except Exception as error:
        print(json.dumps({"refused": str(error) or type(error).__name__}))
        return 0
    print(json.dumps({"refused": None, "documents": documents}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
