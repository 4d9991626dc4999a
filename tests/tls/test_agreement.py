"""Whatever options surround STARTTLS, in whatever order, both sides agree on what is negotiated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdtest.client import NBD, TLS_DISABLE, Error
from nbdtest.fakeserver import FakeServer, TLSMode
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.session import Session
from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.net.tls import server_context

STEPS = {
    "starttls": lambda handle: handle.opt_starttls(),
    "structured": lambda handle: handle.opt_structured_reply(),
    "extended": lambda handle: handle.opt_extended_headers(),
    "list": lambda handle: handle.opt_list(lambda _name, _description: 0),
    "list contexts": lambda handle: handle.opt_list_meta_context_queries([], lambda _name: 0),
    "select": lambda handle: handle.opt_set_meta_context_queries(["base:allocation"], lambda _name: 0),
    "select nothing": lambda handle: handle.opt_set_meta_context_queries(["base:nonsense"], lambda _name: 0),
    "info": lambda handle: handle.opt_info(),
    "go nowhere": lambda handle: go_nowhere(handle),
}


def go_nowhere(handle: NBD) -> None:
    handle.set_export_name("nowhere")
    try:
        handle.opt_go()
    finally:
        handle.set_export_name("")


def knows_size(handle: NBD) -> bool:
    try:
        return handle.get_size() == 4096
    except Error:
        return False


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    """The sessions of the server, the newest last."""
    return []


@pytest.fixture(scope="module")
def server(nbd_psk: PSKMaterial, sessions: list[Session]) -> Iterator[FakeServer]:
    # What a client may not do is not the question here.
    context = server_context(nbd_psk.server())
    with FakeServer(size=4096, tls=context, tls_mode=TLSMode.SELECTIVE, tolerate=["*"]) as made:
        made.on(Moment.GREETING, where=lambda session: sessions.append(session) is None).pass_through()
        yield made


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.sampled_from(sorted(set(STEPS) - {"starttls"})), max_size=5),
    after=st.lists(st.sampled_from(sorted(STEPS)), max_size=6),
    tls=st.booleans(),
)
def test_both_sides_agree_after_any_options(
    server: FakeServer, sessions: list[Session], nbd_psk: PSKMaterial, before: list[str], after: list[str], tls: bool
) -> None:
    with NBD() as handle:
        handle.set_tls(TLS_DISABLE)
        handle.set_tls_psk_file(nbd_psk.file)
        handle.set_tls_username(nbd_psk.identity)
        handle.set_opt_mode(True)
        handle.set_request_meta_context(False)
        handle.set_request_structured_replies(False)
        handle.connect_unix(server.path)
        described = False
        for step in [*before, *(["starttls"] if tls else []), *after]:
            encrypted = handle.get_tls_negotiated()
            try:
                STEPS[step](handle)
            except Error:
                assert handle.aio_is_negotiating(), step
            session = sessions[-1]
            if step in ("info", "go nowhere"):
                described = step == "info"
            described = described and handle.get_tls_negotiated() == encrypted
            assert knows_size(handle) == described
            assert handle.get_tls_negotiated() == session.in_tls
            assert handle.get_extended_headers_negotiated() == session.extended
            assert handle.get_structured_replies_negotiated() == (session.structured or session.extended)
        contexts = sessions[-1].contexts
        handle.opt_go()
        assert handle.pread(512, 0) == bytes(512)
        if handle.get_structured_replies_negotiated():
            assert handle.can_meta_context("base:allocation") == ("base:allocation" in contexts)
        handle.shutdown()
