"""Signing in to OpenSearch, and that no secret of it is shown."""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.errors import UserError
from include.rag.stores import Place, open_store
from tests.opensearch.launcher import server
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import DIMENSION, opensearch_at, rows

SECRET = "p4ss-w0rd"  # noqa: S105


@pytest.mark.parametrize("service", ["es", "aoss"])
def test_sigv4_signs_for_the_service_and_the_region(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    proxy.is_serverless = service == "aoss"
    signed = {"auth": "sigv4", "service": service, "engine": "faiss" if service == "aoss" else "lucene"}
    with opensearch_at(proxy.url, where, monkeypatch, **signed) as store:
        store.replace(["a"], rows("a", ["one"]))
        assert len(store.documents()) == 1
    for method, path, headers in proxy.requests:
        said = {name.lower(): value for name, value in headers.items()}
        credential = said["authorization"].split("Credential=")[1].split(",")[0]
        assert said["authorization"].startswith("AWS4-HMAC-SHA256 "), (method, path)
        assert credential.split("/")[0] == "test"
        assert credential.split("/")[2:] == ["eu-west-1", service, "aws4_request"]
        if path.endswith("/_bulk"):
            assert said["content-encoding"] == "gzip"
            assert said["x-amz-content-sha256"] == hashlib.sha256(proxy.bodies[0]).hexdigest()
    assert b'"one"' in gzip.decompress(proxy.bodies[0])


def test_the_region_may_be_named_as_containers_name_it(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    with opensearch_at(proxy.url, where, monkeypatch, auth="sigv4") as store:
        store.documents()
    assert "/ap-south-1/es/aws4_request" in str(proxy.requests[0][2])


@pytest.mark.parametrize(
    ("unset", "says"),
    [(["AWS_DEFAULT_REGION"], "AWS_DEFAULT_REGION"), (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "credentials")],
)
def test_sigv4_without_region_or_credentials_is_one_line(
    where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unset: list[str], says: str
) -> None:
    for name in unset:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("FMOPS_OPENSEARCH_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FMOPS_OPENSEARCH_AUTH", "sigv4")
    with pytest.raises(UserError, match=f"opensearch_auth='sigv4' needs AWS {says} in the environment"):
        open_store("opensearch", where, DIMENSION)


def test_user_and_password_are_sent_and_never_shown(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with opensearch_at(proxy.url, where, monkeypatch, auth="basic", user="ann", password=SECRET, deadline_s=1) as store:
        store.replace(["a"], rows("a", ["one"]))
        sent = base64.b64encode(f"ann:{SECRET}".encode()).decode()
        assert {dict(headers)["authorization"] for _, _, headers in proxy.requests} == {f"Basic {sent}"}
        errors = []
        for fault in ("401", "403", "drop", "503", "400"):
            proxy.faults = [fault] * 100
            with pytest.raises((PermissionError, ConnectionError, RuntimeError)) as caught:
                store.documents()
            errors.append(str(caught.value))
        proxy.faults = []
    assert "refused the sign-in (401): see FMOPS_OPENSEARCH_AUTH" in errors[0]
    assert "refused the sign-in (403)" in errors[1]
    shown = " ".join([*errors, store.uri, repr(store), caplog.text])
    assert SECRET not in shown
    assert sent not in shown


@pytest.mark.parametrize("lacking", ["user", "password"])
def test_basic_without_user_or_password_is_one_line(
    where: Place, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    for name, value in {"url": "http://h", "auth": "basic", "user": "ann", "password": SECRET}.items():
        monkeypatch.setenv(f"FMOPS_OPENSEARCH_{name.upper()}", "" if name == lacking else value)
    with pytest.raises(UserError, match=r"needs FMOPS_OPENSEARCH_USER and FMOPS_OPENSEARCH_PASSWORD; one is empty"):
        open_store("opensearch", where, DIMENSION)


def test_without_a_url_the_setting_is_named(where: Place) -> None:
    with pytest.raises(UserError, match="store 'opensearch' needs FMOPS_OPENSEARCH_URL"):
        open_store("opensearch", where, DIMENSION)


@pytest.mark.parametrize(
    "url",
    [
        f"https://ann:{SECRET}@search.example",
        f"https://search.example/?key={SECRET}",
        "search",
        "http://h:x",
        "ftp://h",
    ],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused_without_showing_it(
    where: Place, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("FMOPS_OPENSEARCH_URL", url)
    with pytest.raises(UserError, match="must be http://HOST:PORT or https://HOST without user") as caught:
        open_store("opensearch", where, DIMENSION)
    assert SECRET not in str(caught.value)


def test_a_certificate_is_checked_and_may_be_ones_own(
    where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls = Proxy(server().url)
    tls.use_tls(context)
    with tls, opensearch_at(tls.url, where, monkeypatch, ca_file=certificate) as store:
        store.replace(["a"], rows("a", ["one"]))
        assert len(store.documents()) == 1
        monkeypatch.delenv("FMOPS_OPENSEARCH_CA_FILE")
        with pytest.raises(UserError, match="is not trusted: .*certificate.*; see FMOPS_OPENSEARCH_CA_FILE"):
            open_store("opensearch", where, DIMENSION).documents()


def self_signed(folder: Path) -> Path:
    """A certificate of localhost with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    at = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), at, at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "localhost.pem"
    file.write_bytes(key.private_bytes(*plain) + made.public_bytes(serialization.Encoding.PEM))
    return file
