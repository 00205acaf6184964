"""The compose file, read without docker: what it tells to export are settings, and lead to the servers it starts."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict
from pymongo.uri_parser import parse_uri

from payments.settings import PROJECT_ROOT, Settings

TEXT = (PROJECT_ROOT / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXPORTS = {name: value.strip("'") for name, value in re.findall(r"^#   export (\w+)=(.+)$", TEXT, re.MULTILINE)}


def published(service: str) -> str:
    """The address at which a service is reached from outside; one only."""
    ((host, port, _),) = [entry.rsplit(":", 2) for entry in SERVICES[service]["ports"]]
    return f"{host}:{port}"


def test_every_server_is_pinned_on_loopback_and_checked() -> None:
    assert {name: service["image"].partition(":")[0] for name, service in SERVICES.items()} == {
        "postgres": "postgres",
        "mongodb": "mongo",
        "kafka": "apache/kafka",
    }
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", service["image"].partition(":")[2]), name
        assert published(name).startswith("127.0.0.1:"), name
        assert service["healthcheck"]["test"], name
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= COMPOSE["volumes"].keys(), name
    assert SERVICES["postgres"]["image"].startswith("postgres:18.")


def test_what_is_exported_are_settings_that_lead_there(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {f"PAYMENTS_{name}".upper() for name in Settings.model_fields}
    assert EXPORTS.keys() <= variables
    assert {"PAYMENTS_OLTP_DSN", "PAYMENTS_DOCUMENTS_URI", "PAYMENTS_KAFKA_BOOTSTRAP"} <= EXPORTS.keys()
    for name, value in EXPORTS.items():
        monkeypatch.setenv(name, value)
    given = Settings()

    oltp = conninfo_to_dict(given.oltp_dsn or "")
    made = SERVICES["postgres"]["environment"]
    assert f"{oltp['host']}:{oltp['port']}" == published("postgres")
    assert (oltp["user"], oltp["password"], oltp["dbname"]) == (
        made["POSTGRES_USER"],
        made["POSTGRES_PASSWORD"],
        made["POSTGRES_DB"],
    )
    assert f"{given.warehouse_host}:{given.warehouse_port}" == published("postgres")
    script = COMPOSE["configs"]["warehouse"]["content"]
    assert f"create role {given.warehouse_user} login password '{given.warehouse_password}'" in script
    assert f"create database {given.warehouse_dbname} owner {given.warehouse_user}" in script

    uri = given.documents_uri or ""
    options = parse_uri(uri)["options"]
    command = SERVICES["mongodb"]["command"]
    assert urlsplit(uri).netloc == published("mongodb")
    assert options["replicaSet"] == command[command.index("--replSet") + 1]
    assert (options["w"], options["journal"]) == ("majority", True)
    check = SERVICES["mongodb"]["healthcheck"]["test"][-1]
    assert f'_id: "{options["replicaSet"]}"' in check
    assert f'host: "{published("mongodb")}"' in check

    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{published('kafka')}"
    assert given.kafka_bootstrap == published("kafka")
    # Topics are made with their partitions, never by a first message.
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
