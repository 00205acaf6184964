"""What the platform logs of itself: requests to the payments interface, and the errors of its services.

Now and then a release breaks one version of the interface for an hour: its requests fail, and nearly each of them
leaves an error with the same fingerprint.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from payments.simulation.arrays import Ints, pick
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, held, milliseconds
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, HOUR, SECOND
from payments.simulation.purchases import FAILED
from payments.simulation.streams import Streams
from payments.simulation.world import AUTHORIZATION_EXPIRED, AUTHORIZATION_VOIDED, FAILURES

_VERSIONS = ("2025-09-30", "2026-01-28", "2026-03-25")
_VERSION_SHARES = np.array([0.25, 0.35, 0.40])
_CONFIRMATION_SHARE, _OTHER_REQUEST_SHARE, _OTHER_ERROR_SHARE = 0.38, 0.10, 0.002
_OTHER_REQUESTS = (
    ("GET", "/v1/charges"),
    ("GET", "/v1/payment_intents/{id}"),
    ("GET", "/v1/balance_transactions"),
    ("POST", "/v1/refunds"),
    ("POST", "/v1/customers"),
    ("GET", "/v1/disputes"),
)
_ERRORS = (
    None,
    "parameter_invalid",
    "authentication_required",
    "resource_missing",
    "idempotency_key_in_use",
    "rate_limit",
    "api_error",
)
_ERROR_STATUS = (200, 400, 401, 404, 409, 429, 500)
_API_ERROR = _ERRORS.index("api_error")
_FEWEST_FOR_INCIDENTS = 300


@dataclass(frozen=True)
class _Fault:
    """A fault of a service: all its occurrences share a fingerprint."""

    service: str
    severity: str
    error_type: str
    message: str
    modules: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.service}:{self.error_type}:{self.message}".encode()).hexdigest()[:16]


# Those that break requests come first.
_FAULTS = (
    _Fault(
        "payments_interface", "error", "TimeoutError", "no connection within the limit", ("pool", "handlers", "app")
    ),
    _Fault(
        "checkout", "critical", "KeyError", "field is missing in the answer of the rules", ("rules", "confirm", "app")
    ),
    _Fault("ledger", "critical", "SerializationFailure", "gave up after repeated attempts", ("post", "retry", "app")),
    _Fault("fraud", "error", "ModelUnavailable", "no model answered in time", ("score", "client")),
    _Fault("webhooks", "warning", "EndpointUnreachable", "the endpoint did not answer", ("send", "queue")),
    _Fault("ledger", "warning", "SlowQuery", "a statement took longer than its budget", ("query",)),
    _Fault(
        "fraud", "warning", "FeatureMissing", "a feature was not known, its default was used", ("features", "score")
    ),
)
_BREAKING = 4


@dataclass(frozen=True)
class _Requests:
    """One row a request to the payments interface, in order of time; route -1 is the confirmation of an intent.

    `fault` counts in _FAULTS, -1 where nothing broke; `incident` is -1 outside of incidents.
    """

    merchant: Ints
    route: Ints
    error: Ints
    failure: Ints
    latency: Ints
    version: Ints
    occurred: Ints
    fault: Ints
    incident: Ints


@dataclass(frozen=True)
class _Occurrences:
    """One row an error of a service, in order of time; -1 where it concerned no merchant, request or version."""

    fault: Ints
    merchant: Ints
    request: Ints
    version: Ints
    occurred: Ints


class InterfaceLogs:
    """The requests and errors of a history."""

    def __init__(self, names: Names) -> None:
        self._requests = _draw_requests(names.streams, names.business)
        self._errors = _draw_errors(names.streams, names.business, self._requests)
        seed = names.business.plan.seed
        self._request_ids, self._error_ids = IdSpace(seed, "req"), IdSpace(seed, "err")
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()

    def collections(self) -> list[Collection]:
        """Return requests and errors."""
        return [
            collection("api_logs", self._request_ids, len(self._requests.occurred), self._request_documents),
            collection("error_logs", self._error_ids, len(self._errors.occurred), self._error_documents),
        ]

    def _request_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        requests = self._requests
        documents: list[Document | None] = []
        for request_id, merchant, route, error, failure, latency, version, moment in zip(
            ids,
            requests.merchant[rows].tolist(),
            requests.route[rows].tolist(),
            requests.error[rows].tolist(),
            requests.failure[rows].tolist(),
            requests.latency[rows].tolist(),
            requests.version[rows].tolist(),
            milliseconds(requests.occurred[rows]),
            strict=True,
        ):
            method, path = ("POST", "/v1/payment_intents/{id}/confirm") if route < 0 else _OTHER_REQUESTS[route]
            documents.append(
                {
                    "_id": request_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "method": method,
                    "path": path,
                    "status_code": 402 if failure >= 0 else _ERROR_STATUS[error],
                    "error_code": FAILURES[failure] if failure >= 0 else _ERRORS[error],
                    "latency_ms": latency,
                    "api_version": _VERSIONS[version],
                    "occurred_at": moment,
                    **always,
                }
            )
        return documents

    def _error_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        errors = self._errors
        luck = (self._error_ids.draws(np.arange(rows.start, rows.stop)) % np.uint64(997)).astype(np.int64).tolist()
        requests = self._request_ids.strings(np.maximum(errors.request[rows], 0))
        documents: list[Document | None] = []
        for error_id, code, merchant, request, request_id, version, moment, number in zip(
            ids,
            errors.fault[rows].tolist(),
            errors.merchant[rows].tolist(),
            errors.request[rows].tolist(),
            requests,
            errors.version[rows].tolist(),
            milliseconds(errors.occurred[rows]),
            luck,
            strict=True,
        ):
            fault = _FAULTS[code]
            context: Document = {"host": f"{fault.service}-{number % 4}", "attempt": 1 + number % 3}
            if version >= 0:
                context["api_version"] = _VERSIONS[version]
            documents.append(
                {
                    "_id": error_id,
                    "merchant_id": self._merchant_ids[merchant] if merchant >= 0 else None,
                    "request_id": request_id if request >= 0 else None,
                    "service": fault.service,
                    "severity": fault.severity,
                    "error_type": fault.error_type,
                    "message": fault.message,
                    "fingerprint": fault.fingerprint,
                    "stack": [
                        {"module": f"{fault.service}.{module}", "line": 20 + 37 * place + code}
                        for place, module in enumerate(fault.modules)
                    ],
                    "context": context,
                    "occurred_at": moment,
                    **always,
                }
            )
        return documents


def _draw_requests(streams: Streams, business: Business) -> _Requests:
    """Draw confirmations of a part of the charges, other requests at the hours at which people pay, and incidents."""
    generator = streams.stream("requests")
    plan, charges = business.plan, business.charges
    total = len(charges.created)
    confirmed = generator.permutation(total)[: round(plan.transactions * _CONFIRMATION_SHARE)]
    other = generator.integers(0, total, round(plan.transactions * _OTHER_REQUEST_SHARE))
    charge = np.concatenate([confirmed, other])
    count, is_confirmation = len(charge), np.arange(len(charge)) < len(confirmed)
    route = np.where(is_confirmation, -1, pick(generator, np.array([0.3, 0.3, 0.15, 0.1, 0.1, 0.05]), count))
    error = np.where(
        is_confirmation, 0, pick(generator, np.array([0.93, 0.02, 0.005, 0.02, 0.005, 0.015, 0.005]), count)
    )
    # An authorization that was voided later was confirmed all the same.
    was_authorized = np.isin(charges.failure, [AUTHORIZATION_VOIDED, AUTHORIZATION_EXPIRED])
    is_declined = is_confirmation & ((charges.status == FAILED) & ~was_authorized)[charge]
    latency = np.exp(generator.normal(np.where(is_confirmation, np.log(420), np.log(60)), 0.5))
    slow = (error == _API_ERROR) | (generator.random(count) < 0.004)
    delay = generator.integers(-600 * SECOND, 600 * SECOND, count)
    moment = charges.created[charge] + np.where(is_confirmation, 0, delay)
    version = pick(generator, _VERSION_SHARES, len(business.population.merchants.weight))
    merchant = business.sales.merchant[charge]
    ordinary = _Requests(
        merchant=merchant,
        route=route,
        error=error,
        failure=np.where(is_declined, charges.failure[charge], -1),
        latency=np.clip(latency * np.where(slow, 12, 1), 3, 30_000).astype(np.int64),
        version=version[merchant],
        occurred=np.clip(moment, plan.start_moment, plan.end_moment - SECOND),
        fault=np.where(error == _API_ERROR, np.arange(count) % _BREAKING, -1),
        incident=np.full(count, -1),
    )
    broken = _draw_incidents(streams, business, version)
    joined = {
        field.name: np.concatenate([getattr(ordinary, field.name), getattr(broken, field.name)])
        for field in fields(_Requests)
    }
    order = np.argsort(joined["occurred"], kind="stable")
    return _Requests(**{name: values[order] for name, values in joined.items()})


def _draw_incidents(streams: Streams, business: Business, version: Ints) -> _Requests:
    """Draw the failing requests of a few incidents: each breaks one version of the interface for less than an hour."""
    generator = streams.stream("incidents")
    plan, merchants = business.plan, business.population.merchants
    incidents = min(6, 2 + plan.transactions // 10_000) if plan.transactions >= _FEWEST_FOR_INCIDENTS else 0
    incident = np.repeat(np.arange(incidents), generator.integers(15, 45, incidents))
    count = len(incident)
    broken = version[pick(generator, merchants.weight, incidents)] if incidents else np.zeros(0, np.int64)
    merchant = np.zeros(count, np.int64)
    for number in range(incidents):
        rows = np.flatnonzero(incident == number)
        merchant[rows] = pick(generator, merchants.weight * (version == broken[number]), len(rows))
    begins = plan.start_moment + (generator.random(incidents) * (plan.days * DAY - HOUR)).astype(np.int64)
    return _Requests(
        merchant=merchant,
        route=np.where(generator.random(count) < 0.6, -1, generator.integers(0, len(_OTHER_REQUESTS), count)),
        error=np.full(count, _API_ERROR),
        failure=np.full(count, -1),
        latency=generator.integers(2_000, 30_000, count),
        version=broken[incident],
        occurred=begins[incident] + generator.integers(0, 50 * 60, count) * SECOND,
        fault=incident % _BREAKING,
        incident=incident,
    )


def _draw_errors(streams: Streams, business: Business, requests: _Requests) -> _Occurrences:
    """Draw the errors behind the failed requests, and others that no request waited for."""
    generator = streams.stream("errors")
    plan = business.plan
    failed = np.flatnonzero(requests.fault >= 0)
    # Some lose their request on the way, as the service that failed was not told of it.
    is_loose = (requests.incident[failed] >= 0) & (generator.random(len(failed)) < 0.15)
    others = round(plan.transactions * _OTHER_ERROR_SHARE)
    nobody = np.full(others, -1)
    anyone = generator.integers(0, len(business.population.merchants.weight), others)
    occurred = plan.start_moment + (generator.random(others) * (plan.days * DAY - SECOND)).astype(np.int64)
    errors = _Occurrences(
        fault=np.concatenate([requests.fault[failed], generator.integers(_BREAKING, len(_FAULTS), others)]),
        merchant=np.concatenate([requests.merchant[failed], np.where(generator.random(others) < 0.5, anyone, -1)]),
        request=np.concatenate([np.where(is_loose, -1, failed), nobody]),
        version=np.concatenate([requests.version[failed], nobody]),
        occurred=np.concatenate([requests.occurred[failed], occurred]),
    )
    order = np.argsort(errors.occurred, kind="stable")
    return _Occurrences(**{field.name: getattr(errors, field.name)[order] for field in fields(_Occurrences)})
