"""Rules that were read before are read again without the SQL parser, and only those."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.adapters import rule_shelf
from service.adapters.rule_shelf import NAME, RuleShelf
from service.catalogue.problems import RuleError
from service.catalogue.rules import parse_rule
from service.catalogue.symbols import Symbols
from service.decision.expression import Expression
from tests.service.decision.fuzzed_rules import SYMBOLS

TEXT, OTHER = "n0 > 1 AND t0 = 'red'", "n1 IS NOT NULL"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of the rules that went to the parser."""
    texts: list[str] = []

    def noting(text: str, symbols: Symbols) -> Expression:
        texts.append(text)
        return parse_rule(text, symbols)

    monkeypatch.setattr(rule_shelf, "parse", noting)
    return texts


def kept(folder: Path, *texts: str) -> None:
    shelf = RuleShelf(folder)
    for text in texts:
        shelf.read(text, SYMBOLS)
    shelf.keep()


def test_a_rule_is_parsed_once(tmp_path: Path, parsed: list[str]) -> None:
    """The next start finds the tree; a rule that is gone is not kept."""
    kept(tmp_path, TEXT, OTHER)
    assert parsed == [TEXT, OTHER]
    assert RuleShelf(tmp_path).read(TEXT, dict(SYMBOLS)) == parse_rule(TEXT, SYMBOLS)
    assert parsed == [TEXT, OTHER]
    kept(tmp_path, OTHER)
    RuleShelf(tmp_path).read(TEXT, SYMBOLS)
    assert parsed == [TEXT, OTHER, TEXT]


def test_other_names_are_another_rule(tmp_path: Path, parsed: list[str]) -> None:
    """The same text over a vocabulary in another order means other codes, and is parsed anew."""
    kept(tmp_path, TEXT)
    turned = {**SYMBOLS, "t0": tuple(reversed(SYMBOLS["t0"]))}
    assert RuleShelf(tmp_path).read(TEXT, turned) == parse_rule(TEXT, turned) != parse_rule(TEXT, SYMBOLS)
    assert parsed == [TEXT, TEXT]


def test_other_code_reads_anew(tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What other code or another parser made is not believed."""
    kept(tmp_path, TEXT)
    monkeypatch.setattr(rule_shelf, "_code", lambda: "other")
    RuleShelf(tmp_path).read(TEXT, SYMBOLS)
    assert parsed == [TEXT, TEXT]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"1.0", b"2.0"),
        lambda content: b"",
        lambda content: b"\xff\xfe",
        lambda content: content.split(b"\n")[0] + b"\n[]\n",
    ],
    ids=["cut", "another number", "empty", "no text", "no mapping"],
)
def test_a_damaged_file_is_none(tmp_path: Path, parsed: list[str], damage: Callable[[bytes], bytes]) -> None:
    """A file that is not what was written is passed over and written anew; no rule is ever read wrong."""
    kept(tmp_path, TEXT)
    path = tmp_path / NAME
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    kept(tmp_path, TEXT)
    assert parsed == [TEXT, TEXT]
    assert path.read_bytes() == whole


def test_a_wrong_rule_is_never_kept(tmp_path: Path) -> None:
    """What the parser refuses it refuses at every start."""
    for _ in range(2):
        shelf = RuleShelf(tmp_path)
        with pytest.raises(RuleError):
            shelf.read("n0 +", SYMBOLS)
        shelf.keep()
    assert not (tmp_path / NAME).exists()


def test_where_nothing_can_be_written_rules_are_read_all_the_same(tmp_path: Path) -> None:
    """A folder that cannot be made costs the next start some time and nobody an answer."""
    (tmp_path / "file").write_text("")
    kept(tmp_path / "file" / "catalogues", TEXT)


def test_a_start_loads_no_sql_parser(tmp_path: Path) -> None:
    """A process that knows all rules of its catalogue loads the example's without sqlglot."""
    code = (
        "import json, sys; from pathlib import Path; from service.adapters.rule_shelf import RuleShelf; "
        "from service.catalogue.loader import catalogue_of; from service.settings import Settings; "
        f"shelf = RuleShelf(Path({str(tmp_path)!r})); text = Settings().catalogue.read_text(); "
        "version = catalogue_of(text, '', read_rule=shelf.read).version; shelf.keep(); "
        "print(json.dumps([version, 'sqlglot' in sys.modules]))"
    )
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)]
    (version, first), (again, second) = map(json.loads, done)
    assert version == again
    assert (first, second) == (True, False)
