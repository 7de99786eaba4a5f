"""Mistakes as people and machines make them, put into a good catalogue one at a time, and what it should say."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

DEFINED_BY_KEYS = re.compile(
    r"(actions|rules|caps|cool_offs|quiet_hours|quotas|personas|context|channels(\.\w+)?|groups)\.[\w-]+$"
    r"|.*content\.\w+\.\w+$"
)
"""Keys that are names of the file's own: another spelling is another name, not a mistake."""
REFERRING = re.compile(
    r".*\.(issue|group|member|scoring|campaign_type|stage|counted|unit|calendar|after|strategy|success|purpose|"
    r"default_outcome|positive|propensity|placement)$|.*(placements|channels|factors)\[\d+\]$|fallback$|time_zone$|.*\.scope$"
)
"""Values that must be one of what is known."""
WORD = re.compile(r"'[^']+'|\w+")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A catalogue with one mistake.

    Attributes:
        kind: typo | damage. path: Where the mistake is; "" for somewhere.
        line: 1-based. word: What stood there.
    """

    kind: str
    text: str
    path: str = ""
    line: int = 0
    word: str = ""
    typo: str = ""


@dataclass(frozen=True, slots=True)
class _Spot:
    path: str
    start: int
    end: int
    line: int


def typos(text: str, n: int, seed: int) -> Iterator[Mutant]:
    """Yield mutants with one letter wrong: in a key, in a name that refers to something, or in a rule."""
    rng = random.Random(seed)
    spots = list(_spots(text))
    made = 0
    while made < n:
        spot = rng.choice(spots)
        word = text[spot.start : spot.end]
        typo = _mistype(word, rng)
        if typo != word:
            made += 1
            mutated = text[: spot.start] + typo + text[spot.end :]
            yield Mutant("typo", mutated, spot.path, spot.line, word, typo)


def _mistype(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1) if len(word) > 1 else 0
    if word.startswith("'"):
        at = min(max(1, at), len(word) - 3)
    return rng.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :],
            word[:at] + rng.choice("aeinrst") + word[at + 1 :],
        ]
    )


def _spots(text: str) -> Iterator[_Spot]:
    """Yield the places of words that mean something to the loader, each with at least four letters."""
    for path, node, is_key in _scalars(yaml.compose(text, Loader=yaml.SafeLoader), ""):
        start, end, line = node.start_mark.index, node.end_mark.index, node.start_mark.line + 1
        if is_key:
            if not DEFINED_BY_KEYS.match(path) and len(node.value) > 3 and text[start:end] == node.value:
                yield _Spot(path, start, end, line)
        elif path.endswith(".rule") or path.startswith("personas."):
            for found in WORD.finditer(text[start:end]):
                if len(found[0].strip("'")) > 3 and not found[0].isdigit():
                    yield _Spot(path, start + found.start(), start + found.end(), line)
        elif REFERRING.match(path) and len(node.value) > 3 and text[start:end] == node.value and node.value != "none":
            yield _Spot(path, start, end, line)


def _scalars(node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.ScalarNode, bool]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else key.value
            yield inner, key, True
            yield from _scalars(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _scalars(value, f"{path}[{i}]")
    elif isinstance(node, yaml.ScalarNode):
        yield path, node, False


def damaged(text: str, n: int, seed: int) -> Iterator[Mutant]:
    """Yield mutants as broken tools leave them: cut off, a line twice, indentation lost, a value of another kind."""
    rng = random.Random(seed)
    lines = text.splitlines(keepends=True)
    used = [i for i, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    numbers = list(re.finditer(r"(?<=: )\d+(\.\d+)?(?=[,}\n])", text))
    for _ in range(n):
        kind, i = rng.randrange(7), rng.choice(used)
        at = rng.choice(numbers)
        if kind == 0:
            cut = rng.randrange(len(text) // 3, len(text) - 1)
            yield Mutant("damage", text[: cut if text[cut - 1] != "\n" else cut - 1])
        elif kind == 1:
            yield Mutant("damage", "".join([*lines[: i + 1], lines[i], *lines[i + 1 :]]))
        elif kind == 2:
            yield Mutant("damage", "".join([*lines[:i], lines[i].replace(":", "", 1), *lines[i + 1 :]]))
        elif kind == 3:
            wrong = rng.choice(["-1", "many", "1e999", "'5'", "[1]", "{a: 1}", "yes", ".nan", "!!int 5", "&a 5"])
            yield Mutant("damage", text[: at.start()] + wrong + text[at.end() :])
        elif kind == 4:
            yield Mutant("damage", "".join([*lines[:i], "\t" + lines[i], *lines[i + 1 :]]))
        elif kind == 5:
            yield Mutant("damage", text + rng.choice(["---\na: b\n", "%\n", "\x00\n", "]\n", "unheard_of: 1\n"]))
        else:
            quote = text.find('"', rng.randrange(len(text) // 2, len(text) * 9 // 10))
            yield Mutant("damage", text[:quote] + text[quote + 1 :])
