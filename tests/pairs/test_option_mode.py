"""Random option sequences: client, fake server and a small model of the specification agree on what is negotiated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from nbdtest.client import negotiation, states
from nbdtest.client.engine import Engine as Client
from nbdtest.fakeserver.export import Export, Settings
from nbdtest.fakeserver.session import Phase
from nbdtest.fuzz.strategies import options
from nbdtest.wire import Opt, Option
from tests.pairs.link import Link, paces

NAMES = ("first", "second", "nowhere")
SIZES = {"first": 4096, "second": 8192}
CONTEXT = "base:allocation"
HARMLESS = {Opt.LIST, Opt.PEEK_EXPORT, Opt.LIST_META_CONTEXT}

settings_of_servers = st.builds(
    Settings,
    exports=st.just(tuple(Export(name, size=size) for name, size in SIZES.items())),
    structured_replies=st.booleans(),
    extended_headers=st.booleans(),
    meta_contexts=st.booleans(),
)


@dataclass
class Model:
    """What the specification says has been agreed on."""

    server: Settings
    name: str = ""
    structured: bool = False
    extended: bool = False
    contexts: set[str] = field(default_factory=set)
    contexts_of: str = ""
    """The export for which they were selected: for another one they do not count."""

    def structured_reply(self) -> None:
        # EXT-040: extended headers take precedence.
        self.structured |= self.server.structured_replies

    def extended_headers(self) -> None:
        if self.server.extended_headers:
            self.structured = self.extended = True

    def set_meta_contexts(self, queries: tuple[str, ...]) -> None:
        # META-024: the earlier selection is gone, whatever comes of this one.
        answered = self.structured and self.server.meta_contexts and self.name in SIZES
        self.contexts = {CONTEXT} & set(queries) if answered else set()
        self.contexts_of = self.name


@dataclass(frozen=True)
class Step:
    """One thing a client does in option mode."""

    what: str
    name: str = "first"
    queries: tuple[str, ...] = ()
    option: Option | None = None


steps = st.lists(
    st.one_of(
        st.just(Step("structured_reply")),
        st.just(Step("extended_headers")),
        st.builds(Step, st.just("list_exports")),
        st.builds(
            Step,
            st.just("set_meta_contexts"),
            st.sampled_from(NAMES),
            st.lists(st.sampled_from([CONTEXT, "base:", "x-none:"]), max_size=3).map(tuple),
        ),
        st.builds(Step, st.just("info"), st.sampled_from(NAMES)),
        st.builds(
            Step,
            st.just("raw_option"),
            option=options(NAMES).filter(lambda option: option.option in HARMLESS or not option.option.is_known),
        ),
    ),
    max_size=9,
)


def raw(engine: Client, option: Option, heard: list[int]) -> negotiation.Dialogue:
    """Send any option and keep the types of its replies."""
    return negotiation.raw_option(engine, option.option, option.data, lambda kind, data: heard.append(kind))


def carry_out(link: Link, model: Model, step: Step) -> None:
    client = link.client
    client.settings.export_name = model.name = step.name
    heard: list[int] = []
    listed: list[str] = []

    def make(engine: Client) -> negotiation.Dialogue:
        match step.what:
            case "list_exports":
                return negotiation.list_exports(engine, lambda name, description: listed.append(name))
            case "set_meta_contexts":
                return negotiation.set_meta_contexts(engine, step.queries)
            case "raw_option":
                assert step.option is not None
                return raw(engine, step.option, heard)
        dialogue: Callable[[Client], negotiation.Dialogue] = getattr(negotiation, step.what)
        return dialogue(engine)

    link.option(make)
    match step.what:
        case "structured_reply":
            model.structured_reply()
        case "extended_headers":
            model.extended_headers()
        case "set_meta_contexts":
            model.set_meta_contexts(step.queries)
        case "list_exports":
            assert listed in (list(SIZES), [])  # a server may refuse to list twice
        case "raw_option":
            assert heard


@given(settings=settings_of_servers, dialogue=steps, last=st.sampled_from(NAMES), pace=paces())
def test_all_three_agree_after_every_option(
    settings: Settings, dialogue: list[Step], last: str, pace: list[int]
) -> None:
    link = Link(
        server=settings,
        pace=pace,
        opt_mode=True,
        request_structured_replies=False,
        request_extended_headers=False,
        request_meta_context=False,
    ).connect()
    negotiate(link, settings, dialogue, last)


def negotiate(link: Link, settings: Settings, dialogue: list[Step], last: str) -> None:
    """Carry out the dialogue on a link in option mode, and see all three agree after every step."""
    model = Model(settings)
    client, session = link.client, link.server.session
    for step in dialogue:
        carry_out(link, model, step)
        assert client.state is states.NEGOTIATING, (step, link.log)
        assert client.structured == (session.structured or session.extended) == model.structured, step
        assert client.extended == session.extended == model.extended, step
        assert {name for _, name in client.contexts} == set(session.contexts) == model.contexts, step
        if step.what == "info":
            assert client.export.size == SIZES.get(step.name, 0)
    client.settings.export_name = last
    client.begin_option(negotiation.go(client), None, then=states.READY)
    link.run()
    if last not in SIZES:
        assert client.state is states.NEGOTIATING
        assert session.phase is Phase.HAGGLING
        return
    assert client.state is states.READY
    assert session.phase is Phase.TRANSMISSION
    assert client.export.size == SIZES[last]
    assert client.export.flags == session.flags
    if model.contexts_of == last:
        assert {name: number for number, name in client.contexts} == session.contexts


@given(sent=st.lists(options(NAMES), max_size=8), pace=paces(), settings=settings_of_servers)
def test_any_option_is_answered_or_ends_the_connection(sent: list[Option], pace: list[int], settings: Settings) -> None:
    link = Link(server=settings, pace=pace, opt_mode=True, request_structured_replies=False).connect()
    for option in sent:
        if option.option in (Opt.EXPORT_NAME, Opt.GO, Opt.ABORT, Opt.STARTTLS):
            continue
        heard: list[int] = []
        link.option(functools.partial(raw, option=option, heard=heard))
        if link.client.over:
            break
        assert link.client.state is states.NEGOTIATING
        assert heard
        assert len([kind for kind in heard if kind == 1 or kind >> 31]) == 1
    assert link.journal.problems == []
