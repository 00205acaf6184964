"""The certificate of the embedded PostgreSQL, where its build has OpenSSL.

An authority made for this one certificate signs it, and its key is thrown away: nothing else can ever be signed in its
name. Clients trust that authority alone and check the address.
"""

import ipaddress
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from payments.systems.folders import ServerUser, write_private
from payments.systems.oltp.conf import setting
from payments.systems.processes import LOOPBACK

_VALID_DAYS = 825
_RENEW_DAYS = 30
# Clocks of two machines differ; the certificate must hold at once on both.
_CLOCK_SKEW = timedelta(hours=1)


def authority(folder: Path) -> Path | None:
    """Return the file with the authority that clients trust, or None where the server has no TLS."""
    file = _folder(folder) / "authority.crt"
    return file if file.exists() else None


def ensure_certificate(folder: Path, user: ServerUser) -> None:
    """Make authority, certificate and key below a server's folder when they are missing or end within 30 days."""
    known = authority(folder)
    if known is not None:
        ends_at = x509.load_pem_x509_certificate(known.read_bytes()).not_valid_after_utc
        if ends_at - datetime.now(UTC) > timedelta(days=_RENEW_DAYS):
            return
    forget_certificate(folder)
    tls = _folder(folder)
    tls.mkdir()
    tls.chmod(0o755)  # whatever the umask: the server's user reads the certificate, clients the authority
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("payments embedded authority")
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
    certificate = (
        _certificate(_name("payments embedded PostgreSQL"), ca_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(tls / "server.key", secret.decode(), user)
    # The authority last: where it is, the others are.
    for name, public in (("server.crt", certificate), ("authority.crt", ca)):
        (tls / name).write_bytes(public.public_bytes(serialization.Encoding.PEM))
        (tls / name).chmod(0o644)


def forget_certificate(folder: Path) -> None:
    """Delete certificate and key, where the build at hand has no TLS."""
    shutil.rmtree(_folder(folder), ignore_errors=True)


def configuration(folder: Path) -> list[str]:
    """Return the lines that let a server speak TLS."""
    return [
        "ssl = on",
        setting("ssl_cert_file", str(_folder(folder) / "server.crt")),
        setting("ssl_key_file", str(_folder(folder) / "server.key")),
        setting("ssl_min_protocol_version", "TLSv1.2"),
    ]


def client_parameters(folder: Path) -> dict[str, str]:
    """Return the connection parameters of a client that verifies the server; none where the server has no TLS."""
    trusted = authority(folder)
    return {} if trusted is None else {"sslmode": "verify-full", "sslrootcert": str(trusted)}


def _folder(folder: Path) -> Path:
    return folder / "tls"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
