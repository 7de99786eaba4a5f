"""A catalogue with a mistake is never taken, and single typos are named with line, path and the word that was meant."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from features.matrix import Columns
from service.catalogue.loader import CatalogueError, catalogue_of
from tests.service.catalogue.mutants import Mutant, damaged, typos

TEXT = (Path(__file__).parents[3] / "service" / "catalogue.yaml").read_text(encoding="utf-8")
COLUMNS = Columns()
VERSION = catalogue_of(TEXT, "catalogue.yaml", COLUMNS).version


def refusal(mutant: Mutant) -> CatalogueError | None:
    """Return what is said of a mutant; None where it is taken for what it was. Taken for something else fails."""
    try:
        taken = catalogue_of(mutant.text, "catalogue.yaml", COLUMNS)
    except CatalogueError as error:
        return error
    changed = [line for line in difflib.ndiff(TEXT.splitlines(), mutant.text.splitlines()) if line[0] in "+-"]
    assert taken.version == VERSION, f"activated: {mutant.path}: {changed}"
    return None


def is_named(mutant: Mutant, error: CatalogueError) -> bool:
    """Say whether a problem stands at the mistake's line and path, and its remedy has the word that was meant."""
    word = mutant.word.strip("'").lower()
    return any(
        abs(problem.line - mutant.line) <= 1
        and mutant.path.startswith(problem.path.rpartition(".")[0])
        and word in problem.remedy.lower()
        for problem in error.problems
    )


def check(n_typos: int, n_damaged: int, seed: int) -> None:
    named, unnamed = 0, []
    for mutant in typos(TEXT, n_typos, seed):
        error = refusal(mutant)
        # What is taken says what was meant in spite of the typo: a keyword of SQL in other letters, for example.
        if error is None or is_named(mutant, error):
            named += 1
        else:
            unnamed.append((mutant.path, mutant.word, mutant.typo, error.problems[:2]))
    print(f"{n_typos} typos, {named} named with line, path and hint")
    assert named >= 0.95 * n_typos, unnamed
    refused = [refusal(mutant) for mutant in damaged(TEXT, n_damaged, seed)]
    print(f"{n_damaged} damaged files, {sum(error is not None for error in refused)} refused, the rest unchanged")
    assert sum(error is not None for error in refused) >= 0.9 * n_damaged


@pytest.mark.prove
def test_three_hundred_mutations() -> None:
    """Of 300 mutants none is activated, and of 200 single typos 95 % are named with line, path and hint."""
    check(200, 100, 2)


def test_some_mutations() -> None:
    """Of 30 mutants none is activated, and single typos are named with line, path and hint."""
    check(20, 10, 1)
