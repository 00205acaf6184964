"""What an entity diagram shows, whichever store it was read from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column (or document field) with its type as its store names it."""

    name: str
    data_type: str
    is_nullable: bool


@dataclass(frozen=True)
class Reference:
    """A foreign key, or a relationships test: ``columns`` of the owner point to ``target_columns`` of ``target``."""

    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]


@dataclass(frozen=True)
class Entity:
    """A table, model or collection; ``name`` is unique in its diagram, ``group`` is the frame it is drawn in."""

    group: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    references: tuple[Reference, ...]
    comment: str = ""

    @property
    def foreign_key_columns(self) -> frozenset[str]:
        """The columns that stand in a reference."""
        return frozenset(column for reference in self.references for column in reference.columns)

    def column(self, name: str) -> Column:
        """Return the column of that name.

        Raises:
            KeyError: the entity has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name}")
