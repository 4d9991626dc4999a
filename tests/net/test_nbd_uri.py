"""NBD URIs. The requirement ids are those of the catalogue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.errors import UsageError
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress, VsockAddress
from nbdtest.net.uri import NBDURI, SCHEMES, URIError, URIProblem, split


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("nbd://example.com/disk", "disk"),
        ("nbd+unix:///disk?socket=sock", "disk"),
        ("nbd://example.com/", ""),
        ("nbd://example.com", ""),
        ("nbd://example.com//disk", "/disk"),
        ("nbd://example.com/%2Fdisk", "/disk"),
        ("nbd://example.com/hello%20world", "hello world"),
        ("nbd://h/a%2Fb%20c", "a/b c"),
        ("nbd://h/a%2fb", "a/b"),
        ("nbd://h/%C3%A9/../x", "é/../x"),
        ("nbd://h/a+b", "a+b"),
        ("nbd://h/a:b@c;d=e", "a:b@c;d=e"),
        ("nbd://h/%FF", "\udcff"),
    ],
)
def test_the_path_without_its_first_slash_is_the_export(text: str, export: str) -> None:  # URI-002, URI-021 to URI-024
    assert NBDURI.parse(text).export == export


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nbd://h", TCPAddress("h", 10809)),
        ("nbd://h:/x", TCPAddress("h", 10809)),
        ("nbd://h:1/x", TCPAddress("h", 1)),
        ("nbds://h:0", TCPAddress("h", 0)),
        ("nbd://h%2Ex", TCPAddress("h.x", 10809)),
        ("nbd:///x", TCPAddress("localhost", 10809)),
        ("nbd://[::1]:99", TCPAddress("::1", 99)),
        ("nbd://[fe80::1%25eth0]", TCPAddress("fe80::1%eth0", 10809)),
        ("nbd+unix:///?socket=/run/nbd%20a", UnixAddress("/run/nbd a")),
        ("nbd+unix://ignored/?socket=s", UnixAddress("s")),
        ("nbd+unix:///?socket=%00/abstract", UnixAddress("\0/abstract")),
        ("nbd+unix:///?socket=a&SOCKET=b", UnixAddress("b")),
        ("nbd+vsock://", VsockAddress(2, 10809)),
        ("nbds+vsock://3:70000/x", VsockAddress(3, 70000)),
    ],
)
def test_where_a_uri_leads(text: str, address: Address) -> None:  # URI-004, URI-015, URI-016, URI-020, URI-026
    assert NBDURI.parse(text).address == address


def test_schemes_are_compared_without_case() -> None:  # URI-004
    uri = NBDURI.parse("NBDS+Unix:///?Socket=s")
    assert (uri.scheme, uri.transport, uri.tls, uri.socket) == ("nbds+unix", "unix", True, "s")


@pytest.mark.parametrize("name", SCHEMES)
def test_an_s_means_tls(name: str) -> None:  # URI-005 to URI-011
    assert SCHEMES[name].tls == name.startswith("nbds")


def test_user_and_parameters() -> None:  # URI-017, URI-027 to URI-034
    uri = NBDURI.parse("nbds://al%69ce:x@h/?tls-type=psk&tls-verify-peer=0&TLS-Verify-Peer=1&x-mine&&e=a%26b=c")
    assert uri.user == "alice:x"
    assert uri.parameter("tls-type") == "psk"
    assert uri.parameter("tls-verify-peer") == "1"
    assert uri.parameter("x-mine") == ""
    assert uri.parameter("e") == "a&b=c"
    assert uri.parameter("missing") is None
    assert [name for name, _ in uri.parameters] == ["tls-type", "tls-verify-peer", "TLS-Verify-Peer", "x-mine", "e"]


def test_an_ssh_uri_is_parsed_but_has_no_address() -> None:
    uri = NBDURI.parse("nbd+ssh://me@host:22/x?socket=/s")
    assert (uri.user, uri.host, uri.port, uri.socket, uri.transport) == ("me", "host", 22, "/s", "ssh")
    assert NBDURI.parse("nbds+ssh://host/x").socket is None
    with pytest.raises(UsageError, match="running ssh"):
        _ = uri.address


@pytest.mark.parametrize(
    ("text", "problem", "message"),
    [
        ("", URIProblem.NO_SCHEME, "no scheme (such as nbd:// or nbd+unix://) in NBD URI ''"),
        ("/path", URIProblem.NO_SCHEME, "no scheme"),
        ("localhost", URIProblem.NO_SCHEME, "no scheme"),
        ("//localhost/x", URIProblem.NO_SCHEME, "no scheme"),
        ("1nbd://h", URIProblem.NO_SCHEME, "no scheme"),
        ("nbd:export", URIProblem.NO_AUTHORITY_MARK, "no // after nbd:"),
        ("http://h/", URIProblem.UNKNOWN_SCHEME, "unknown scheme 'http' (known: nbd, nbds, "),
        ("localhost:10809", URIProblem.UNKNOWN_SCHEME, "unknown scheme 'localhost'"),
        ("nbd+unix:///x", URIProblem.SOCKET_MISSING, "no socket=PATH parameter, which nbd+unix: needs"),
        ("nbds+unix:///?socket=", URIProblem.SOCKET_MISSING, "no socket=PATH"),
        ("nbd://h/?socket=s", URIProblem.SOCKET_UNEXPECTED, "a socket= parameter, which nbd: does not take"),
        ("nbd+vsock://2/?socket=s", URIProblem.SOCKET_UNEXPECTED, "a socket= parameter"),
        ("nbd+unix:///?socket=a%00b", URIProblem.PARAMETER, "NUL in the socket's name 'a\\x00b'"),
        ("nbd://h/a%00b", URIProblem.EXPORT, "NUL in the export name 'a\\x00b'"),
        ("nbd://h/%zz", URIProblem.SYNTAX, "'%zz' is no percent-escape in the path"),
        ("nbd://h/%4", URIProblem.SYNTAX, "'%4' is no percent-escape"),
        ("nbd://h/?a=%", URIProblem.SYNTAX, "'%' is no percent-escape in the query"),
        ("nbd://a b/", URIProblem.SYNTAX, "' ' must be percent-encoded in the host"),
        ("nbd://h/a b", URIProblem.SYNTAX, "' ' must be percent-encoded in the path"),
        ("nbd://h/é", URIProblem.SYNTAX, "'é' must be percent-encoded"),
        ("nbd://h/a\nb", URIProblem.SYNTAX, "'\\n' must be percent-encoded"),
        ("nbd://h/?a[]", URIProblem.SYNTAX, "'[' must be percent-encoded in the query"),
        ("nbd://[::1", URIProblem.SYNTAX, "'[::1' is not [user@]host[:port]"),
        ("nbd://::1]", URIProblem.SYNTAX, "is not [user@]host[:port]"),
        ("nbd://[::1]x", URIProblem.SYNTAX, "is not [user@]host[:port]"),
        ("nbd://a@b@c", URIProblem.SYNTAX, "is not [user@]host[:port]"),
        ("nbd://[:::1]", URIProblem.HOST, "':::1' is no IPv6 address"),
        ("nbd://[v1.x]", URIProblem.HOST, "'v1.x' in brackets is no IPv6 address"),
        ("nbd://a%3Ab", URIProblem.HOST, "'a:b' is no IPv6 address"),
        ("nbd://a%5Bb", URIProblem.HOST, "'a[b' is no host name"),
        ("nbd+vsock://guest", URIProblem.HOST, "'guest' is no vsock context id"),
        ("nbd+vsock://4294967296", URIProblem.HOST, "is no vsock context id"),
        ("nbd://h:x/", URIProblem.PORT, "port 'x' is no number"),
        ("nbd://h:-1/", URIProblem.PORT, "port '-1' is no number"),
        ("nbd://h:65536", URIProblem.PORT, "port 65536 is out of range"),
        ("nbd+vsock://2:4294967296", URIProblem.PORT, "is out of range"),
        ("nbd://h/#f", URIProblem.FRAGMENT, "a fragment (write # as %23)"),
        ("nbd://h/?=x", URIProblem.PARAMETER, "a parameter cannot be called ''"),
    ],
)
def test_what_is_wrong(text: str, problem: URIProblem, message: str) -> None:  # URI-001, URI-007, URI-009, URI-024
    with pytest.raises(URIError) as caught:
        NBDURI.parse(text)
    assert caught.value.problem is problem
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"in NBD URI {text!r}")
    assert caught.value.uri == text


def test_split_keeps_what_was_written() -> None:
    parts = split("NBD://u%20@H:/a%2Fb?x=%20&y#z")
    assert (parts.scheme, parts.user, parts.host, parts.port) == ("NBD", "u%20", "H", "")
    assert (parts.path, parts.query, parts.fragment) == ("/a%2Fb", "x=%20&y", "z")
    assert parts.parameters() == [("x", " "), ("y", "")]


def test_split_tells_absent_from_empty() -> None:
    assert split("x").host is None
    assert split("x:").query is None
    assert split("x://?#") == split("x://?#")
    empty = split("x://?#")
    assert (empty.host, empty.user, empty.port, empty.query, empty.fragment) == ("", None, None, "", "")


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (NBDURI(host="h"), "nbd://h"),
        (NBDURI(host="h", export="/a b%?#é"), "nbd://h//a%20b%25%3F%23%C3%A9"),
        (NBDURI(scheme="nbds", host="::1", port=1, user="a b"), "nbds://a%20b@[::1]:1"),
        (NBDURI(scheme="nbd+unix", socket="/run/a;b&c"), "nbd+unix:///?socket=/run/a%3Bb%26c"),
        (NBDURI(scheme="nbd+unix", socket="\0x", export="e"), "nbd+unix:///e?socket=%00x"),
        (NBDURI(host="h", parameters=(("tls-type", "psk"), ("x", "="))), "nbd://h?tls-type=psk&x=%3D"),
    ],
)
def test_how_a_uri_is_written(uri: NBDURI, text: str) -> None:
    assert str(uri) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (TCPAddress("127.0.0.1", 7), "nbd://127.0.0.1:7/e"),
        (TCPAddress("::1", 7), "nbd://[::1]:7/e"),
        (UnixAddress("/s"), "nbd+unix:///e?socket=/s"),
        (VsockAddress(3, 7), "nbd+vsock://3:7/e"),
    ],
)
def test_the_uri_of_an_address(address: Address, text: str) -> None:
    assert str(NBDURI.of(address, export="e")) == text
    assert NBDURI.of(address, export="e").address == address
    assert NBDURI.of(address, tls=True, user="u").tls


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
hosts = st.one_of(
    st.just(""),
    st.sampled_from(["::1", "fe80::1%eth 0", "127.0.0.1", "2001:db8::"]),
    texts.filter(lambda text: not set(text) & set(":[]")),
)
parameters = st.lists(st.tuples(texts.filter(lambda name: name and name.lower() != "socket"), texts), max_size=3).map(
    tuple
)


@st.composite
def uris(draw: st.DrawFn) -> NBDURI:
    scheme = draw(st.sampled_from(sorted(SCHEMES)))
    transport = SCHEMES[scheme].transport
    needs_socket = transport == "unix"
    return NBDURI(
        scheme=scheme,
        user=draw(st.none() | texts),
        host=draw(st.integers(0, 0xFFFF_FFFF).map(str) if transport == "vsock" else hosts),
        port=draw(st.none() | st.integers(0, 0xFFFF)),
        export=draw(texts),
        socket=draw(texts.filter(bool).map(lambda path: "\0" + path) | texts.filter(bool)) if needs_socket else None,
        parameters=draw(parameters),
    )


@given(uris())
def test_what_is_written_is_read_back(uri: NBDURI) -> None:
    text = str(uri)
    assert text.isascii()
    assert NBDURI.parse(text) == uri
    assert str(NBDURI.parse(text)) == text


@given(st.binary(min_size=1, max_size=12).filter(lambda name: 0 not in name))
def test_export_and_socket_may_be_any_bytes(name: bytes) -> None:
    text = name.decode("utf-8", "surrogateescape")
    uri = NBDURI(scheme="nbd+unix", socket=text, export=text)
    parsed = NBDURI.parse(str(uri))
    assert parsed.export.encode("utf-8", "surrogateescape") == name
    assert parsed == uri


@given(st.text(max_size=30) | st.text("nbdsux+:/?#[]@%&=;01aF.- socket", max_size=40).map(lambda rest: "nbd://" + rest))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        uri = NBDURI.parse(text)
    except URIError:
        return
    assert NBDURI.parse(str(uri)) == uri
