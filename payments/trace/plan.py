"""What each model is made of (``made_of.yml``), and the steps in which a trace goes down from a model."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from payments.errors import UsageError

MADE_OF = Path(__file__).with_name("made_of.yml")
_STAGING = "stg_"


class Origin(BaseModel):
    """How the rows of an upstream model are found that a row is made of, and which of its figures they add up to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: tuple[str, ...] = ()
    on: str | None = None
    figures: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _columns_alone(cls, given: object) -> object:
        return {"by": given} if isinstance(given, list) else given

    def condition(self, upstream: str) -> str:
        """Return the condition between ``this``, a row, and ``up``, one of the relation of the upstream model."""
        equal = [f'up."{column}" = this."{column}"' for column in self.by]
        also = [f"({self.on.replace('{up}', upstream)})"] if self.on else []
        return " and ".join([*equal, *also])


@dataclass(frozen=True)
class Link:
    """That rows of ``model`` are made of rows of ``upstream``, another model or a seed."""

    model: str
    upstream: str
    origin: Origin


@dataclass(frozen=True)
class Plan:
    """The way down from a model: ``models`` in an order in which each stands behind all that is made of it."""

    models: tuple[str, ...]
    links: tuple[Link, ...]
    raw: dict[str, str]
    """The relation of the raw zone (``oltp.charges``) of each model that is read from one."""

    def links_to(self, upstream: str) -> list[Link]:
        """Return the links by which rows of a model are found."""
        return [link for link in self.links if link.upstream == upstream]


Declared = dict[str, dict[str, Origin]]


@cache
def declared(path: Path = MADE_OF) -> Declared:
    """Return what is written down of every model."""
    written: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        model: {upstream: Origin.model_validate(origin) for upstream, origin in origins.items()}
        for model, origins in written.items()
    }


def plan_of(model: str, made_of: Declared, seeds: frozenset[str] = frozenset()) -> Plan:
    """Return the way down from a model.

    Raises UsageError when it is not written down what a model on the way is made of.
    """
    links: list[Link] = []
    raw: dict[str, str] = {}
    finished: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise AssertionError(f"{name} is made of itself: {' > '.join([*above, name])}")
        if name in finished:
            return
        # What finishes last stands first: so the upstream models come in the order in which they are written down.
        for upstream, origin in reversed(_origins(name, made_of, seeds).items()):
            if "." in upstream:
                raw[name] = upstream
            else:
                links.append(Link(name, upstream, origin))
                visit(upstream, (*above, name))
        finished[name] = None

    visit(model, ())
    order = tuple(reversed(finished))
    return Plan(order, tuple(links), {name: raw[name] for name in order if name in raw})


def _origins(model: str, made_of: Declared, seeds: frozenset[str]) -> dict[str, Origin]:
    if model in made_of:
        return made_of[model]
    if model in seeds:
        return {}
    if model.startswith(_STAGING):
        return {model.removeprefix(_STAGING).replace("__", ".", 1): Origin()}
    raise UsageError(f"What {model} is made of is not written down: add it to payments/trace/{MADE_OF.name}.")
