"""The tests notice deliberate bugs: each of them at full size, two that need no server at the size of CI."""

import pytest

from payments.settings import PROJECT_ROOT
from tests.cdc.mutants import MUTANTS, Mutant, judge_all, planted

WITHOUT_SERVER = ("a change that the broker repeats is taken twice", "the commit record before the data")


def test_every_bug_is_caught(full_size: bool) -> None:
    mutants = MUTANTS if full_size else [mutant for mutant in MUTANTS if mutant.name in WITHOUT_SERVER]
    verdicts = list(judge_all(mutants))
    for verdict in verdicts:
        print(f"{verdict.mutant.name}: {verdict.caught_by} ({verdict.seconds:.0f} s)")
    assert [verdict.mutant.name for verdict in verdicts if verdict.caught_by is None] == []
    assert len(verdicts) == (len(MUTANTS) if full_size else len(WITHOUT_SERVER))


def test_a_bug_without_a_place_is_told() -> None:
    mutant = Mutant("a bug", "a.py", "one", "two", ())
    assert planted("only one here", mutant) == "only two here"
    for text in ("nothing", "one and one"):
        with pytest.raises(ValueError, match="a bug: its text stands"):
            planted(text, mutant)


def test_the_place_of_every_bug_is_there() -> None:
    for mutant in MUTANTS:
        planted((PROJECT_ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
