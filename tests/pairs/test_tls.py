"""The pair with TLS between the engines, by a pre-shared key on both sides: what holds in clear holds there as well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.fakeserver.export import Export, Settings, Style, TLSMode
from nbdtest.fuzz.strategies import exports
from nbdtest.net.tls import TLSContext, psk_support
from tests.pairs.link import paces
from tests.pairs.test_option_mode import NAMES, Step, negotiate, settings_of_servers, steps
from tests.pairs.test_sessions import CONTEXT, hold_session
from tests.pairs.tls_link import TLSLink, psk_contexts

pytestmark = pytest.mark.skipif(not psk_support(), reason="this Python has no TLS-PSK")


@pytest.fixture(scope="module")
def contexts() -> tuple[TLSContext, TLSContext]:
    return psk_contexts()


def required(settings: Settings, *exports: Export) -> Settings:
    """The settings with TLS, and with these exports if there are any."""
    kept = {name: getattr(settings, name) for name in Settings.__slots__}
    changed: dict[str, object] = {"tls_mode": TLSMode.REQUIRED, "style": Style.FIXED}
    return Settings(**(kept | changed | ({"exports": exports} if exports else {})))


@given(settings=settings_of_servers, dialogue=steps, last=st.sampled_from(NAMES), pace=paces())
def test_all_three_agree_under_tls(
    contexts: tuple[TLSContext, TLSContext], settings: Settings, dialogue: list[Step], last: str, pace: list[int]
) -> None:
    server = required(settings)
    link = TLSLink(
        contexts,
        server=server,
        pace=pace,
        opt_mode=True,
        request_structured_replies=False,
        request_extended_headers=False,
        request_meta_context=False,
    )
    link.connect()
    assert link.established
    negotiate(link, server, dialogue, last)


@given(data=st.data(), export=exports(), pace=paces(), structured=st.booleans(), extended=st.booleans())
def test_any_legal_session_reads_what_was_written_under_tls(
    contexts: tuple[TLSContext, TLSContext],
    data: st.DataObject,
    export: Export,
    pace: list[int],
    structured: bool,
    extended: bool,
) -> None:
    settings = required(Settings(structured_replies=structured, extended_headers=extended), export)
    link = TLSLink(contexts, server=settings, pace=pace, meta_contexts=[CONTEXT])
    link.connect()
    assert link.established
    hold_session(link, export, data)
