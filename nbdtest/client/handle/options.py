"""Calls of option mode: options sent by hand, before the export is chosen."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from nbdtest.client import arguments, negotiation
from nbdtest.client.commands import CompletionCallback, ContextCallback, ListCallback
from nbdtest.client.constants import HANDSHAKE_FLAG
from nbdtest.client.errors import Failure
from nbdtest.client.handle.call import HAGGLING, permitted
from nbdtest.client.handle.core import HandleCore
from nbdtest.client.negotiation import Dialogue
from nbdtest.client.states import CLOSED, CONNECTING, NEGOTIATING, READY, State

__all__ = ["OptionCalls"]


class OptionCalls(HandleCore):
    """Each option, waiting (opt_...) and not waiting (aio_opt_...).

    A completion callback gets an errno value as soon as the final reply is there; what it returns does not matter.
    """

    # ---- the export

    @permitted(HAGGLING, since="1.4")
    def opt_go(self) -> None:
        """Enter transmission on the export that `set_export_name` chose."""
        with self._enter("opt_go"):
            self._go(None)
            self._wait_for_agreement()

    @permitted(HAGGLING, since="1.4")
    def aio_opt_go(self, completion: CompletionCallback | None = None) -> None:
        """Ask to enter transmission."""
        _check(completion)
        with self._enter("aio_opt_go", completion=completion):
            self._go(completion)

    @permitted(HAGGLING, since="1.4")
    def opt_info(self) -> None:
        """Ask about the export, so that its flags and sizes are known."""
        with self._enter("opt_info"):
            self._info(None)
            self._wait_for_agreement()

    @permitted(HAGGLING, since="1.4")
    def aio_opt_info(self, completion: CompletionCallback | None = None) -> None:
        """Ask about the export."""
        _check(completion)
        with self._enter("aio_opt_info", completion=completion):
            self._info(completion)

    @permitted(HAGGLING, since="1.4")
    def opt_abort(self) -> None:
        """End the negotiation and the connection."""
        with self._enter("opt_abort"):
            self._abort_negotiation()
            self._wait_for_option()

    @permitted(HAGGLING, since="1.4")
    def aio_opt_abort(self) -> None:
        """Begin to end the negotiation and the connection."""
        with self._enter("aio_opt_abort"):
            self._abort_negotiation()

    # ---- the connection

    @permitted(HAGGLING, since="1.16")
    def opt_starttls(self) -> bool:
        """Ask for TLS; True if it is running now, False if the server refused."""
        with self._enter("opt_starttls") as call:
            self._begin_option(negotiation.starttls(self._engine))
            return call.returns(self._wait_for_answer("starttls"))

    @permitted(HAGGLING, since="1.16")
    def aio_opt_starttls(self, completion: CompletionCallback | None = None) -> None:
        """Ask for TLS."""
        _check(completion)
        with self._enter("aio_opt_starttls", completion=completion):
            self._begin_option(negotiation.starttls(self._engine), completion)

    @permitted(HAGGLING, since="1.18")
    def opt_extended_headers(self) -> bool:
        """Ask for extended headers; True if the server agreed."""
        with self._enter("opt_extended_headers") as call:
            self._begin_option(negotiation.extended_headers(self._engine))
            return call.returns(self._wait_for_answer("extended_headers"))

    @permitted(HAGGLING, since="1.18")
    def aio_opt_extended_headers(self, completion: CompletionCallback | None = None) -> None:
        """Ask for extended headers."""
        _check(completion)
        with self._enter("aio_opt_extended_headers", completion=completion):
            self._begin_option(negotiation.extended_headers(self._engine), completion)

    @permitted(HAGGLING, since="1.16")
    def opt_structured_reply(self) -> bool:
        """Ask for structured replies; True if the server agreed."""
        with self._enter("opt_structured_reply") as call:
            self._begin_option(negotiation.structured_reply(self._engine))
            return call.returns(self._wait_for_answer("structured_reply"))

    @permitted(HAGGLING, since="1.16")
    def aio_opt_structured_reply(self, completion: CompletionCallback | None = None) -> None:
        """Ask for structured replies."""
        _check(completion)
        with self._enter("aio_opt_structured_reply", completion=completion):
            self._begin_option(negotiation.structured_reply(self._engine), completion)

    # ---- lists

    @permitted(HAGGLING, since="1.4")
    def opt_list(self, list: ListCallback) -> int:
        """Call `list(name, description)` for each export and return how many there are."""
        arguments.callback("list", list)
        with self._enter("opt_list", list=list) as call:
            told = _Told(self, list)
            self._begin_option(negotiation.list_exports(self._engine, told))
            self._wait_for_end("list")
            return call.returns(told.count)

    @permitted(HAGGLING, since="1.4")
    def aio_opt_list(self, list: ListCallback, completion: CompletionCallback | None = None) -> None:
        """Call `list(name, description)` for each export, when the server tells."""
        arguments.callback("list", list)
        _check(completion)
        with self._enter("aio_opt_list", list=list, completion=completion):
            self._begin_option(negotiation.list_exports(self._engine, _Told(self, list)), completion)

    @permitted(HAGGLING, since="1.6")
    def opt_list_meta_context(self, context: ContextCallback) -> int:
        """Call `context(name)` for each metadata context that matches those asked for by `add_meta_context`."""
        arguments.callback("context", context)
        with self._enter("opt_list_meta_context", context=context) as call:
            return call.returns(self._meta_contexts(negotiation.list_meta_contexts, None, context))

    @permitted(HAGGLING, since="1.6")
    def aio_opt_list_meta_context(self, context: ContextCallback, completion: CompletionCallback | None = None) -> int:
        """Ask which metadata contexts match those of `add_meta_context`."""
        arguments.callback("context", context)
        _check(completion)
        with self._enter("aio_opt_list_meta_context", context=context, completion=completion) as call:
            self._begin_meta_contexts(negotiation.list_meta_contexts, None, context, completion)
            return call.returns(0)

    @permitted(HAGGLING, since="1.16")
    def opt_list_meta_context_queries(self, queries: Sequence[str], context: ContextCallback) -> int:
        """Call `context(name)` for each metadata context that matches `queries`, and return how many there are."""
        wanted = arguments.string_list("queries", queries)
        arguments.callback("context", context)
        with self._enter("opt_list_meta_context_queries", queries=wanted, context=context) as call:
            return call.returns(self._meta_contexts(negotiation.list_meta_contexts, wanted, context))

    @permitted(HAGGLING, since="1.16")
    def aio_opt_list_meta_context_queries(
        self, queries: Sequence[str], context: ContextCallback, completion: CompletionCallback | None = None
    ) -> int:
        """Ask which metadata contexts match `queries`."""
        wanted = arguments.string_list("queries", queries)
        arguments.callback("context", context)
        _check(completion)
        with self._enter(
            "aio_opt_list_meta_context_queries", queries=wanted, context=context, completion=completion
        ) as call:
            self._begin_meta_contexts(negotiation.list_meta_contexts, wanted, context, completion)
            return call.returns(0)

    @permitted(HAGGLING, since="1.16")
    def opt_set_meta_context(self, context: ContextCallback) -> int:
        """Select the metadata contexts of `add_meta_context`; call `context(name)` for each that was selected."""
        arguments.callback("context", context)
        with self._enter("opt_set_meta_context", context=context) as call:
            return call.returns(self._meta_contexts(negotiation.set_meta_contexts, None, context))

    @permitted(HAGGLING, since="1.16")
    def aio_opt_set_meta_context(self, context: ContextCallback, completion: CompletionCallback | None = None) -> int:
        """Ask to select the metadata contexts of `add_meta_context`."""
        arguments.callback("context", context)
        _check(completion)
        with self._enter("aio_opt_set_meta_context", context=context, completion=completion) as call:
            self._begin_meta_contexts(negotiation.set_meta_contexts, None, context, completion)
            return call.returns(0)

    @permitted(HAGGLING, since="1.16")
    def opt_set_meta_context_queries(self, queries: Sequence[str], context: ContextCallback) -> int:
        """Select the metadata contexts that match `queries`; call `context(name)` for each that was selected."""
        wanted = arguments.string_list("queries", queries)
        arguments.callback("context", context)
        with self._enter("opt_set_meta_context_queries", queries=wanted, context=context) as call:
            return call.returns(self._meta_contexts(negotiation.set_meta_contexts, wanted, context))

    @permitted(HAGGLING, since="1.16")
    def aio_opt_set_meta_context_queries(
        self, queries: Sequence[str], context: ContextCallback, completion: CompletionCallback | None = None
    ) -> int:
        """Ask to select the metadata contexts that match `queries`."""
        wanted = arguments.string_list("queries", queries)
        arguments.callback("context", context)
        _check(completion)
        with self._enter(
            "aio_opt_set_meta_context_queries", queries=wanted, context=context, completion=completion
        ) as call:
            self._begin_meta_contexts(negotiation.set_meta_contexts, wanted, context, completion)
            return call.returns(0)

    # ---- how

    @property
    def _is_fixed_newstyle(self) -> bool:
        return bool(self._settings.handshake_flags & HANDSHAKE_FLAG.FIXED_NEWSTYLE.value)

    def _begin_option(
        self, dialogue: Dialogue, completion: CompletionCallback | None = None, then: State = NEGOTIATING
    ) -> None:
        if not self._is_fixed_newstyle:
            dialogue.close()
            raise Failure("server is not using fixed newstyle protocol", errno.ENOTSUP)
        self._begin_dialogue(dialogue, completion, then)

    def _begin_dialogue(self, dialogue: Dialogue, completion: CompletionCallback | None, then: State) -> None:
        self._engine.begin_option(dialogue, completion, then=then)
        self._driver.flush()

    def _go(self, completion: CompletionCallback | None) -> None:
        self._begin_dialogue(negotiation.go(self._engine), completion, READY)

    def _info(self, completion: CompletionCallback | None) -> None:
        self._begin_option(negotiation.info(self._engine), completion)

    def _abort_negotiation(self) -> None:
        if not self._is_fixed_newstyle:
            self._engine.die(Failure("handshake: server is not using fixed newstyle", errno.ENOTSUP))
            self._driver.flush()
            return
        self._begin_dialogue(negotiation.abort(self._engine), None, CLOSED)

    def _begin_meta_contexts(
        self,
        dialogue: Callable[..., Dialogue],
        queries: list[str] | None,
        context: ContextCallback,
        completion: CompletionCallback | None = None,
    ) -> _Told:
        told = _Told(self, context)
        wanted = list(self._settings.meta_contexts) if queries is None else queries
        self._begin_option(dialogue(self._engine, wanted, told), completion)
        return told

    def _meta_contexts(
        self, dialogue: Callable[..., Dialogue], queries: list[str] | None, context: ContextCallback
    ) -> int:
        told = self._begin_meta_contexts(dialogue, queries, context)
        self._wait_for_end("meta context")
        return told.count

    def _wait_for_option(self) -> None:
        self._driver.run_while(CONNECTING, self._deadline())

    def _wait_for_agreement(self) -> None:
        """Wait for the final reply.

        Raises:
            Failure: the server refused, in its own words, or the connection died.
        """
        self._wait_for_option()
        if (failure := self._engine.failure or self._engine.refusal) is not None:
            raise failure

    def _wait_for_answer(self, option: str) -> bool:
        """Wait for the final reply and say whether the server agreed.

        Raises:
            Failure: the connection died.
        """
        self._wait_for_option()
        if self._engine.over:
            raise Failure(f"failed to get response to opt_{option} request", errno.ENOTCONN)
        return self._engine.refusal is None

    def _wait_for_end(self, request: str) -> None:
        """Wait for the final reply.

        Raises:
            Failure: the server refused, or the connection died.
        """
        self._wait_for_option()
        if self._engine.refusal is not None:
            raise Failure(f"server replied with error to {request} request", errno.ENOTSUP)
        if self._engine.over:
            raise Failure(f"server replied with error to {request} request", errno.ENOTCONN)


class _Told:
    """Passes on what the server lists, and counts it. What the callback returns does not matter."""

    def __init__(self, handle: HandleCore, callback: Callable[..., object]) -> None:
        self._engine = handle._engine
        self._callback = callback
        self.count = 0

    def __call__(self, *words: str) -> None:
        self.count += 1
        self._engine.call_back(None, self._callback, *words)


def _check(completion: CompletionCallback | None) -> None:
    if completion is not None:
        arguments.callback("completion", completion)
