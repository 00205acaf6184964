"""Mapping files: which column of a transaction file holds which canonical field (docs/transaction-files.md)."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from payments.errors import UsageError

FIELDS = (
    "transaction_id",
    "merchant_id",
    "customer_id",
    "amount",
    "amount_minor",
    "currency",
    "payment_method",
    "transaction_at",
    "ip_country",
    "device_type",
    "status",
    "anomaly_score",
    "is_fraud",
    "fraud_known_at",
)
"""The canonical fields of a transaction file; ``amount`` is in major units, ``amount_minor`` in minor units."""


class Mapping(BaseModel):
    """A mapping: file column of a field, value of a field that the file lacks, days until a fraud label is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, str] = Field(default_factory=dict)
    label_delay_days: int | None = Field(default=None, ge=0, le=3650)

    @model_validator(mode="after")
    def _fields_are_known(self) -> "Mapping":
        if unknown := sorted((set(self.columns) | set(self.defaults)) - set(FIELDS)):
            raise ValueError(f"no such field: {', '.join(unknown)} (fields are {', '.join(FIELDS)})")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("two fields name the same column")
        return self

    def column_of(self, field: str, present: list[str]) -> str | None:
        """Return the file column of a field: the mapped one, else that of the same name if it serves no other field."""
        if field in self.columns:
            return self.columns[field]
        return field if field in present and field not in self.columns.values() else None


def read_mapping(path: Path | None) -> Mapping:
    """Return the mapping of a file, or the empty one without a file.

    Raises ``UsageError`` when the file is missing, is no YAML or names what no mapping has.
    """
    if path is None:
        return Mapping()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Mapping.model_validate(content or {})
    except OSError as error:
        raise UsageError(f"Cannot read the mapping file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"The mapping file {path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "mapping"
        raise UsageError(f"The mapping file {path} is wrong at {place}: {first['msg']}.") from error
