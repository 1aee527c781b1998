"""Downloads over TLS from a server whose authority is named."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.loader.loading import archive, content, request, source, start
from tests.loader.webserver import WebServer

FILES = {"model.bin": b"w" * 5000}


def authority(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for localhost, and the certificate of who signed it."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "localhost")]
    made = []
    for which, is_authority in ((0, True), (1, False)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[which])
            .issuer_name(names[0])
            .public_key(keys[which].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").write_bytes(made[0])
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(key + made[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, folder / "ca.pem"


def test_https(target: Path, tmp_path: Path) -> None:
    """Without the setting for tests: TLS, checked by name and authority; a redirect to plain http is not followed."""
    context, authority_file = authority(tmp_path)
    with WebServer(context) as web:
        uri = web.serve("/m.tar.gz", archive(FILES))
        asked = request(source(uri, target)) | {"allowLoopbackHttp": False}
        code, message, _ = start(asked, tmp_path / "message").end()
        assert (code, message["reason"]) == (1, "ModelDataFailed")
        assert "the certificate of localhost is not trusted" in message["error"]
        code, message, log = start(asked, tmp_path / "message", SSL_CERT_FILE=str(authority_file)).end()
        assert code == 0, log
        assert content(target) == FILES
        by_address = request(source(uri.replace("localhost", "127.0.0.1"), target)) | {"allowLoopbackHttp": False}
        code, message, _ = start(by_address, tmp_path / "message", SSL_CERT_FILE=str(authority_file)).end()
        assert "the certificate of 127.0.0.1 is not trusted" in message["error"]
        plain = f"http://localhost:{web.port}/m.tar.gz"
        web.answer("/m.tar.gz", lambda handler, _: handler.plain(302, b"", Location=plain))
        code, message, _ = start(asked, tmp_path / "message", SSL_CERT_FILE=str(authority_file)).end()
        assert "it redirects to http:, only https is followed" in message["error"]
