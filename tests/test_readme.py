"""The README is true: links lead somewhere, settings and commands exist, its curl call answers as printed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from service.decision.record import DEGRADED_REASONS
from service.settings import Settings
from tests.served import Served

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_links_lead_to_files() -> None:
    """Every relative link of the README and the decision records is a file of the repository."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        boxes = re.findall(r'^\s+click \w+ "([^"]+)"', text, re.M)
        for target in boxes + re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_file_of_the_tree_exists() -> None:
    """The picture of the house names files that are there."""
    tree = re.search(r"```\n(features/ .*?)```", README, re.S)
    assert tree
    folder = ""
    for line in tree.group(1).splitlines():
        names = re.split(r"\s{2,}", line.strip())[0]
        if not line.startswith(" "):
            folder = names.split()[0]
            assert all((ROOT / name).exists() for name in names.split())
        else:
            assert all((ROOT / folder / name).exists() for name in names.split()), line


def test_every_setting_is_documented() -> None:
    """Each setting stands in the README with its variable and what it means."""
    for name, field in Settings.model_fields.items():
        assert f"`NBA_{name.upper()}`" in README
        assert field.description
        assert field.description in README, f"NBA_{name.upper()} is described otherwise in the README"


def test_every_reason_is_documented() -> None:
    """Each reason of the closed list stands in the README."""
    assert all(f"`{reason}`" in README for reason in DEGRADED_REASONS)


def test_every_make_target_exists() -> None:
    """The README names no make target that is not there, and the Makefile none that the README is silent about."""
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M))
    assert named <= targets
    assert targets - named <= {"help", "clean", "format", "lint"}


def shape(value: Any) -> Any:
    """Return the structure of an answer without its values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name not in ("content", "reasons")}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "value"


def test_the_curl_call_answers_as_printed(served: Served) -> None:
    """The README's curl call is accepted as printed, and its printed answer has the fields that the service gives."""
    block = re.search(r"<!-- curl -->.*?```bash\n(.*?)```\n\n```json\n(.*?)```", README, re.S)
    assert block
    words = shlex.split(block.group(1).replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    printed = json.loads(block.group(2))
    assert printed["actions"]
    status, answer = served.call("POST", "/v1/decisions", body)
    assert status == 200
    if answer["actions"]:
        assert shape(answer) == shape(printed)
