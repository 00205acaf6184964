"""Statements as a bank writes them: XML of ISO 20022 camt.053.001.08."""

from collections.abc import Sequence
from datetime import date, datetime
from xml.sax.saxutils import escape, quoteattr

from payments.systems.documents.statements import Entry, Statement

_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
_STATUSES = {"booked": "BOOK", "pending": "PDNG"}


def statement_xml(account: str, statements: Sequence[Statement], made_at: datetime, exponent: int) -> bytes:
    """Return statements of one account as a file of the bank.

    Args:
        account: the IBAN.
        statements: what the file says; all in one currency.
        made_at: when the bank made the file.
        exponent: the decimals of the currency.
    """
    name = f"{statements[0].statement_id}" if statements else "NONE"
    parts = [
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{_NAMESPACE}"><BkToCstmrStmt>',
        f"<GrpHdr><MsgId>{escape(name)}</MsgId><CreDtTm>{made_at.isoformat()}</CreDtTm></GrpHdr>",
    ]
    for statement in statements:
        currency = statement.currency
        parts += [
            f"\n<Stmt><Id>{escape(statement.statement_id)}</Id>",
            "<StmtPgntn><PgNb>1</PgNb><LastPgInd>true</LastPgInd></StmtPgntn>",
            f"<CreDtTm>{made_at.isoformat()}</CreDtTm>",
            f"<FrToDt><FrDtTm>{statement.period_start_on}T00:00:00+00:00</FrDtTm>",
            f"<ToDtTm>{statement.period_end_on}T23:59:59+00:00</ToDtTm></FrToDt>",
            f"<Acct><Id><IBAN>{escape(account)}</IBAN></Id><Ccy>{currency}</Ccy></Acct>",
            _balance("OPBD", statement.opening_balance_minor, currency, exponent, statement.period_start_on),
            _balance("CLBD", statement.closing_balance_minor, currency, exponent, statement.period_end_on),
            *(_entry(entry, exponent) for entry in statement.entries),
            "</Stmt>",
        ]
    return "".join([*parts, "</BkToCstmrStmt></Document>\n"]).encode()


def decimal_text(minor: int, exponent: int) -> str:
    """Return minor units, not below zero, as a decimal number."""
    digits = str(minor).rjust(exponent + 1, "0")
    return digits if exponent == 0 else f"{digits[:-exponent]}.{digits[-exponent:]}"


def _amount(minor: int, currency: str, exponent: int) -> str:
    return f"<Amt Ccy={quoteattr(currency)}>{decimal_text(abs(minor), exponent)}</Amt>"


def _balance(code: str, minor: int, currency: str, exponent: int, on: date) -> str:
    side = "CRDT" if minor >= 0 else "DBIT"
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount(minor, currency, exponent)}"
        f"<CdtDbtInd>{side}</CdtDbtInd><Dt><Dt>{on}</Dt></Dt></Bal>"
    )


def _entry(entry: Entry, exponent: int) -> str:
    reference = "" if entry.entry_ref is None else f"<NtryRef>{escape(entry.entry_ref)}</NtryRef>"
    days = [("BookgDt", entry.booked_on), ("ValDt", entry.value_on)]
    returned = f"<RtrInf><Rsn><Cd>{entry.reason_code}</Cd></Rsn></RtrInf>" if entry.reason_code else ""
    end_to_end = entry.payout_id or "NOTPROVIDED"
    return (
        f"\n<Ntry>{reference}{_amount(entry.amount_minor, entry.currency, exponent)}"
        f"<CdtDbtInd>{'CRDT' if entry.direction == 'credit' else 'DBIT'}</CdtDbtInd>"
        f"{'<RvslInd>true</RvslInd>' if entry.is_reversal else ''}<Sts><Cd>{_STATUSES[entry.status]}</Cd></Sts>"
        f"{''.join(f'<{name}><Dt>{day}</Dt></{name}>' for name, day in days if day is not None)}"
        f"<NtryDtls><TxDtls><Refs><EndToEndId>{end_to_end}</EndToEndId></Refs>{returned}</TxDtls></NtryDtls></Ntry>"
    )
