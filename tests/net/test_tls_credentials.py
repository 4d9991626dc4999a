"""Credentials as values: key files, directories, limits, priority strings, and what is said of files that cannot be
used."""

import os
import ssl
from pathlib import Path

import pytest

from nbdtest.errors import UsageError
from nbdtest.fixtures.pki import Flaw, PKIMaterial
from nbdtest.net.tls import (
    PSK,
    X509,
    ServerPSK,
    ServerX509,
    VersionRange,
    client_context,
    default_directory,
    parse_priority,
    server_context,
)

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def key_file(tmp_path: Path):
    def write(content: bytes) -> Path:
        path = tmp_path / "keys.psk"
        path.write_bytes(content)
        return path

    return write


FOUND = [
    ("plain", b"alice:00ff10\n", "00ff10"),
    ("CRLF", b"bob:11\r\nalice:00ff10\r\n", "00ff10"),
    ("no final newline", b"bob:11\nalice:00ff10", "00ff10"),
    ("capitals", b"alice:00FF10\n", "00ff10"),
    ("the first of two", b"alice:aa\nalice:bb\n", "aa"),
    ("a line without a key is passed over", b"alice:\nalice:bb\n", "bb"),
    ("a name that only begins so", b"alice2:aa\nalice:bb\n", "bb"),
    ("a comment", b"# alice:aa\nalice:bb\n", "bb"),
]


@pytest.mark.parametrize(("content", "key"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_a_clients_key(key_file, content: bytes, key: str) -> None:
    found = PSK.from_file(key_file(content), "alice")
    assert (found.identity, found.key) == ("alice", bytes.fromhex(key))


REFUSED_KEYS = [
    ("unknown identity", b"bob:11\n", "alice", "keys.psk: username alice was not found in PSK file"),
    ("empty identity", b":11\n", "", r"the PSK identity \(username\) is empty"),
    (
        "not hexadecimal",
        b"bob:1\nalice:0xff\n",
        "alice",
        "keys.psk:2: the key is not an even number of hexadecimal digits",
    ),
    ("odd", b"alice:fff\n", "alice", "not an even number"),
    ("blanks", b"alice:ff 00\n", "alice", "not an even number"),
    ("long key", b"alice:" + b"00" * 513 + b"\n", "alice", "the PSK key of 'alice' has 513 bytes, it must be 1 to 512"),
    ("long identity", b"a" * 256 + b":00\n", "a" * 256, "the PSK identity has 256 bytes, at most 255"),
]


@pytest.mark.parametrize(
    ("content", "identity", "message"), [row[1:] for row in REFUSED_KEYS], ids=[row[0] for row in REFUSED_KEYS]
)
def test_a_clients_key_that_cannot_be_used(key_file, content: bytes, identity: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PSK.from_file(key_file(content), identity)


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^open: .*/none: No such file or directory$"):
        PSK.from_file(tmp_path / "none", "alice")


@pytest.mark.parametrize(
    ("identity", "key", "message"),
    [
        ("", b"k", "is empty"),
        ("a\0b", b"k", "NUL"),
        ("ä" * 128, b"k", "256 bytes"),
        ("\udcff", b"k", "not UTF-8"),
        ("a", b"", "0 bytes"),
        ("a", b"k" * 513, "513 bytes"),
    ],
)
def test_limits_hold_for_both_sides(identity: str, key: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PSK(identity=identity, key=key)
    with pytest.raises(UsageError, match=message):
        ServerPSK(keys={identity: key})


def test_a_server_knows_every_key_of_the_file(key_file) -> None:
    content = b"# made by hand\nalice:00ff\r\n\nbob:11\nalice:22\n#7a6fc3ab:33\n"
    assert ServerPSK.from_file(key_file(content)).keys == {"alice": b"\0\xff", "bob": b"\x11", "zoë": b"\x33"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no key in this PSK file"),
        (b"alice\n", "keys.psk:1: a line of a PSK file is identity:hexkey, this one has no colon"),
        (b"a:11\nalice:zz\n", "keys.psk:2: the key is not"),
        (b":11\n", r"keys.psk:1: the PSK identity \(username\) is empty"),
        (b"alice:\n", "keys.psk:1: the PSK key of 'alice' has 0 bytes"),
        (b"#zz:11\n", "keys.psk:1: after '#' the identity must be written in hexadecimal"),
        (b"\xff:11\n", "keys.psk:1: the identity is not UTF-8"),
    ],
)
def test_a_servers_key_file_that_cannot_be_used(key_file, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ServerPSK.from_file(key_file(content))


def test_a_server_needs_a_key() -> None:
    with pytest.raises(UsageError, match="at least one key"):
        ServerPSK(keys={})


def test_keys_are_not_printed() -> None:
    assert "secret" not in repr(PSK(identity="alice", key=b"secret")) + repr(ServerPSK(keys={"alice": b"secret"}))


class TestDefaultDirectory:
    """libnbd's places, in its order."""

    @staticmethod
    def place(*parts: str | Path) -> str:
        directory = Path(*parts)
        directory.mkdir(parents=True)
        (directory / "ca-cert.pem").touch()
        return str(directory)

    def test_a_user_has_two_places(self, tmp_path: Path) -> None:
        assert default_directory(home=tmp_path, root=False) is None
        second = self.place(tmp_path, ".config", "pki", "libnbd")
        assert default_directory(home=tmp_path, root=False) == second
        first = self.place(tmp_path, ".pki", "libnbd")
        assert default_directory(home=tmp_path, root=False) == first

    def test_root_has_one(self, tmp_path: Path) -> None:
        self.place(tmp_path, ".pki", "libnbd")
        assert default_directory(home=tmp_path, root=True, system=str(tmp_path)) is None
        system = self.place(tmp_path, "pki", "libnbd")
        assert default_directory(home=tmp_path, root=True, system=str(tmp_path)) == system

    def test_a_place_without_an_authority_does_not_count(self, tmp_path: Path) -> None:
        (tmp_path / ".pki" / "libnbd").mkdir(parents=True)
        assert default_directory(home=tmp_path, root=False) is None


def test_files_that_cannot_be_used_are_named(nbd_pki: PKIMaterial, tmp_path: Path) -> None:
    ca, certificate, key = (tmp_path / name for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"))
    with pytest.raises(UsageError, match=f"{certificate}: No such file"):
        server_context(ServerX509(directory=str(tmp_path)))
    certificate.write_bytes((nbd_pki.directory / certificate.name).read_bytes())
    with pytest.raises(UsageError, match=f"{key}: No such file"):
        server_context(ServerX509(directory=str(tmp_path)))
    key.write_bytes((nbd_pki.flawed[Flaw.EXPIRED] / key.name).read_bytes())
    with pytest.raises(UsageError, match=f"{certificate}, {key}: key values mismatch"):
        server_context(ServerX509(directory=str(tmp_path)))
    key.write_text("rubbish")
    with pytest.raises(UsageError, match=f"{key}: "):
        server_context(ServerX509(directory=str(tmp_path)))
    key.write_bytes((nbd_pki.directory / key.name).read_bytes())
    server_context(ServerX509(directory=str(tmp_path)))
    with pytest.raises(UsageError, match=f"{ca}: No such file"):
        server_context(ServerX509(directory=str(tmp_path), verify_peer=True))
    ca.write_text("rubbish")
    with pytest.raises(UsageError, match=f"{ca}: no certificate or crl found"):
        client_context(X509(directory=str(tmp_path)))


def test_a_key_with_a_password_is_refused_without_asking(nbd_pki: PKIMaterial, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    plain = form.load_pem_private_key((nbd_pki.directory / "client-key.pem").read_bytes(), None)
    locked = plain.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))
    (tmp_path / "client-key.pem").write_bytes(locked)
    for name in ("ca-cert.pem", "client-cert.pem"):
        (tmp_path / name).write_bytes((nbd_pki.directory / name).read_bytes())
    with pytest.raises(UsageError, match=r"client-key\.pem: the key is protected by a password"):
        client_context(X509(directory=str(tmp_path)))


def test_a_client_certificate_is_used_only_with_its_key(nbd_pki: PKIMaterial, tmp_path: Path) -> None:
    for name in ("ca-cert.pem", "client-cert.pem"):
        (tmp_path / name).symlink_to(nbd_pki.directory / name)
    client_context(X509(directory=str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("NORMAL", VersionRange(TLS12, TLS13)),
        ("NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", VersionRange(TLS12, TLS13)),
        ("NORMAL:-VERS-TLS1.3", VersionRange(TLS12, TLS12)),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2", VersionRange(TLS12, TLS12)),
        ("PERFORMANCE:-VERS-TLS-ALL:+VERS-TLS1.3", VersionRange(TLS13, TLS13)),
        ("NORMAL:!VERS-TLS1.2:-VERS-TLS1.0:-VERS-SSL3.0", VersionRange(TLS13, TLS13)),
        ("NORMAL:-VERS-ALL:+VERS-ALL", VersionRange(TLS12, TLS13)),
    ],
)
def test_priorities_that_can_be_honoured(text: str, versions: VersionRange) -> None:
    assert parse_priority(text) == versions


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' cannot be honoured"),
        ("SECURE256", "'SECURE256' cannot be honoured"),
        ("@SYSTEM", "'@SYSTEM' cannot be honoured"),
        ("NORMAL:-CHACHA20-POLY1305", "'-CHACHA20-POLY1305' cannot be honoured"),
        ("NORMAL:+VERS-TLS1.1", r"'\+VERS-TLS1\.1' cannot be honoured"),
        ("NORMAL:-ECDHE-PSK", "'-ECDHE-PSK' cannot be honoured"),
        ("NORMAL:%COMPAT", "'%COMPAT' cannot be honoured"),
        ("NORMAL:-VERS-ALL", "leaves no version of TLS"),
    ],
)
def test_priorities_that_cannot(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_priority(text)


def test_no_version_before_1_2_can_be_asked_for() -> None:
    with pytest.raises(UsageError, match="possible are TLSv1_2 and TLSv1_3"):
        VersionRange(TLS13, TLS12)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_key_counts_as_absent(nbd_pki: PKIMaterial, tmp_path: Path) -> None:
    for name in ("ca-cert.pem", "client-cert.pem"):
        (tmp_path / name).symlink_to(nbd_pki.directory / name)
    (tmp_path / "client-key.pem").touch(mode=0)
    client_context(X509(directory=str(tmp_path)))
