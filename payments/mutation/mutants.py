"""The small changes of a model's SQL, one at a time.

What a Jinja expression of the model unfolds to stands between two comments (``marked``); it stays as it is, for macros
have tests of their own. All else is the model's text, and is changed token by token.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokens import Token

_EXPRESSION = re.compile(r"(?<![\w'])\{\{(?:(?!\}\}).)*\}\}(?![\w'])", re.DOTALL)
_PIECE = re.compile(r"/\*<jinja\*/(.*?)/\*jinja>\*/", re.DOTALL)
_HOLE = re.compile(r"\bjinja_(\d+)_\b")
# Every clause that ends the condition before it, at the same depth of parentheses.
_ENDS = {
    *("GROUP BY", "ORDER BY", "HAVING", "WHERE", "WINDOW", "QUALIFY", "LIMIT", "UNION", "EXCEPT", "INTERSECT"),
    *("LEFT", "RIGHT", "FULL", "INNER", "CROSS", "JOIN", "THEN", "ELSE", "END"),
}  # fmt: skip
_SWAPS = {
    "<": ("<=", "boundary"),
    "<=": ("<", "boundary"),
    ">": (">=", "boundary"),
    ">=": (">", "boundary"),
    "=": ("<>", "comparison"),
    "<>": ("=", "comparison"),
    "+": ("-", "sign"),
    "LEFT": ("inner", "join"),
    "INNER": ("left", "join"),
    "DISTINCT": ("", "distinct"),
    "OR": ("and", "connective"),
    "MIN": ("max", "aggregate"),
    "MAX": ("min", "aggregate"),
    "SUM": ("max", "aggregate"),
    "LEAST": ("greatest", "function"),
    "GREATEST": ("least", "function"),
    "DESC": ("asc", "order"),
    "ASC": ("desc", "order"),
    "TRUE": ("false", "constant"),
    "FALSE": ("true", "constant"),
}
_OPERAND_ENDS = {"VAR", "IDENTIFIER", "NUMBER", "STRING", "R_PAREN"}


@dataclass(frozen=True)
class Mutant:
    """One change of a model's own text: the part from ``start`` to ``end`` gives way to ``text``."""

    kind: str
    line: int
    before: str
    text: str
    start: int
    end: int

    def __str__(self) -> str:
        """What changes, as a person reads it."""
        return f"line {self.line}: {self.before} -> {self.text or '(nothing)'} ({self.kind})"


@dataclass(frozen=True)
class Template:
    """The SQL of a model, with a hole ``jinja_<n>_`` for each of its Jinja expressions, and what fills the holes."""

    text: str
    fillings: tuple[str, ...]

    def filled(self, text: str) -> str:
        """Put the fillings into the holes of a text, which may have lost some."""
        return _HOLE.sub(lambda hole: self.fillings[int(hole[1])], text)

    def mutated(self, mutant: Mutant) -> str:
        """The SQL with one change in it."""
        return self.filled(self.text[: mutant.start] + mutant.text + self.text[mutant.end :])


def marked(source: str) -> str:
    """Put comments around each Jinja expression in the source of a model, but within a string or a name."""
    return _EXPRESSION.sub(lambda found: f"/*<jinja*/{found[0]}/*jinja>*/", source)


def template_of(compiled: str) -> Template:
    """Read the compiled SQL of a marked model."""
    fillings = tuple(_PIECE.findall(compiled))
    numbers = iter(range(len(fillings)))
    return Template(_PIECE.sub(lambda _: f"jinja_{next(numbers)}_", compiled), fillings)


def within(model: Template, around: str) -> Callable[[Mutant], str | None] | None:
    """Find a marked model in a longer compiled statement, as that of a unit test.

    Returns what makes the statement with a mutant of the model in it; it gives None for a mutant that cannot stand
    there: before the first Jinja expression dbt puts in what it has made of the inputs. None when the model is not
    there at all.
    """
    whole = template_of(around)
    first = model.text.find("jinja_0_")
    body = model.text[first:].rstrip()
    place = whole.text.find(body)
    if first < 0 or place < 0:
        return None

    def with_mutant(mutant: Mutant) -> str | None:
        if mutant.start < first:
            return None
        start, end = (place + position - first for position in (mutant.start, mutant.end))
        return whole.filled(whole.text[:start] + mutant.text + whole.text[end:])

    return with_mutant


def mutants(model: Template) -> list[Mutant]:
    """Every change of a model's own text that this knows of."""
    return _Reader(model.text).all()


class _Reader:
    """Reads the tokens of a model once."""

    def __init__(self, text: str) -> None:
        self.source = text
        self.tokens: list[Token] = DuckDB().tokenize(text)
        self.depths = self._depths()

    def all(self) -> list[Mutant]:
        found = [*self._swapped(), *self._dropped_conditions(), *self._dropped_branches(), *self._dropped_defaults()]
        return sorted(set(found), key=lambda mutant: (mutant.start, mutant.end, mutant.text))

    def _mutant(self, kind: str, first: int, last: int, text: str) -> Mutant:
        """The change of the tokens from the first to the last of two numbers."""
        start, end = self.tokens[first].start, self.tokens[last].end + 1
        before = " ".join(self.source[start:end].split())
        return Mutant(kind, self.source.count("\n", 0, start) + 1, before, text, start, end)

    def _swapped(self) -> Iterator[Mutant]:
        for number, token in enumerate(self.tokens):
            word, text = self._word(number), self.source[token.start : token.end + 1]
            if word in _SWAPS and not self._is_name(number):
                text, kind = _SWAPS[word]
                yield self._mutant(kind, number, number, text)
            elif word == "-" and self._kind(number - 1) in _OPERAND_ENDS:
                yield self._mutant("sign", number, number, "+")
            elif word == "-":
                yield self._mutant("sign", number, number, "")
            elif word == "UNION" and self._word(number + 1) != "ALL":
                yield self._mutant("union", number, number, "union all")
            elif word == "AND" and not self._is_of_between(number):
                yield self._mutant("connective", number, number, "or")
            elif word == "IS" and self._word(number + 1) == "NOT":
                yield self._mutant("null", number, number + 1, "is")
            elif word == "IS":
                yield self._mutant("null", number, number, "is not")
            elif word == "NOT" and self._word(number - 1) != "IS":
                yield self._mutant("not", number, number, "")
            elif self._kind(number) == "NUMBER" and token.text.isdigit() and not self._is_of_type(number):
                yield self._mutant("number", number, number, str(int(token.text) + 1))
            elif self._kind(number) == "STRING" and self._is_compared_or_chosen(number):
                yield self._mutant("text", number, number, f"{text[:-1]}~'")

    def _dropped_conditions(self) -> Iterator[Mutant]:
        """Drop one condition of several after ``on``, and any after ``where`` or ``having``."""
        for number in range(len(self.tokens)):
            if self._word(number) not in {"ON", "WHERE", "HAVING"}:
                continue
            conditions = list(self._conditions(number + 1))
            if self._word(number) == "ON" and len(conditions) == 1:
                continue
            for first, last in conditions:
                yield self._mutant("condition", first, last, "true")

    def _dropped_branches(self) -> Iterator[Mutant]:
        for number in range(len(self.tokens)):
            if self._word(number) == "WHEN":
                then = next(n for n in self._same_depth(number + 1) if self._word(n) == "THEN")
                yield self._mutant("branch", number + 1, then - 1, "false")

    def _dropped_defaults(self) -> Iterator[Mutant]:
        """Leave of ``coalesce(a, b)`` the ``a``."""
        for number in range(len(self.tokens)):
            if self._word(number) == "COALESCE" and self._word(number + 1) == "(":
                inner = list(self._same_depth(number + 2))
                comma = next((n for n in inner if self._word(n) == ","), None)
                if comma is not None:
                    first, last = self.tokens[number + 2].start, self.tokens[comma - 1].end + 1
                    yield self._mutant("default", number, inner[-1] + 1, self.source[first:last])

    def _conditions(self, begin: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last token of each condition that ``and`` connects, from a token on."""
        places = [n for n in self._same_depth(begin) if n >= begin]
        end = next((n for n in places if self._word(n) in _ENDS), places[-1] + 1 if places else begin)
        cuts = [n for n in places if n < end and self._word(n) == "AND" and not self._is_of_between(n)]
        if any(self._word(n) == "OR" for n in places if n < end):
            cuts = []
        for before, after in pairwise([begin - 1, *cuts, end]):
            if before + 1 <= after - 1:
                yield before + 1, after - 1

    def _same_depth(self, begin: int) -> Iterator[int]:
        """Yield the numbers of the tokens from one on, until the parentheses around it close."""
        depth = self.depths[begin] if begin < len(self.tokens) else 0
        for number in range(begin, len(self.tokens)):
            if self.depths[number] < depth:
                return
            if self.depths[number] == depth:
                yield number

    def _depths(self) -> list[int]:
        """The depth of parentheses of each token; a closing one counts as outside, as the opening one does."""
        depth, depths = 0, []
        for token in self.tokens:
            depth -= token.text == ")"
            depths.append(depth)
            depth += token.text == "("
        return depths

    def _word(self, number: int) -> str:
        if not 0 <= number < len(self.tokens):
            return ""
        return "" if self._kind(number) in {"STRING", "IDENTIFIER"} else self.tokens[number].text.upper()

    def _kind(self, number: int) -> str:
        return self.tokens[number].token_type.name if 0 <= number < len(self.tokens) else ""

    def _is_name(self, number: int) -> bool:
        """Whether a word that could be a function or keyword names a column here."""
        word = self._word(number)
        is_function = word in {"MIN", "MAX", "SUM", "LEAST", "GREATEST"}
        if word in {"LEFT", "INNER"}:
            return self._word(number + 1) != "JOIN"
        return self._word(number - 1) == "." or (is_function and self._word(number + 1) != "(")

    def _is_of_between(self, number: int) -> bool:
        """Whether an ``and`` parts the two ends of a ``between``."""
        for before in range(number - 1, -1, -1):
            if self.depths[before] < self.depths[number] or self._word(before) in {
                "AND",
                "WHERE",
                "ON",
                "HAVING",
                "WHEN",
            }:
                return False
            if self._word(before) == "BETWEEN" and self.depths[before] == self.depths[number]:
                return True
        return False

    def _is_of_type(self, number: int) -> bool:
        """Whether a number is one of the size of a type, as in ``numeric(24, 4)``."""
        return self._called(number) in {"NUMERIC", "DECIMAL", "VARCHAR", "CHAR"}

    def _is_compared_or_chosen(self, number: int) -> bool:
        """Whether a text stands beside a comparison, in a list of ``in``, or is what a ``case`` gives."""
        if self._word(number - 1) in {"=", "<>", "THEN", "ELSE"} or self._word(number + 1) in {"=", "<>"}:
            return True
        return self._called(number) == "IN"

    def _called(self, number: int) -> str:
        """The word before the parentheses that a token stands in."""
        outside = self.depths[number] - 1
        opened = (n for n in range(number, 0, -1) if self._word(n) == "(" and self.depths[n] == outside)
        return self._word(next(opened, 0) - 1)
