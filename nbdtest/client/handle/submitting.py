"""How commands are checked and handed to the engine, for the calls that wait and those that do not."""

from __future__ import annotations

from nbdtest.client.commands import Command, Extent64Callback
from nbdtest.client.constants import CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE
from nbdtest.client.engine import BATCH_BYTES
from nbdtest.client.errors import Failure
from nbdtest.client.handle.options import OptionCalls
from nbdtest.client.strict import check_command, check_filter, check_flags, check_request
from nbdtest.wire import Cmd, StatusFilter

__all__ = ["Submitting"]

FILTER_FLAGS = int(CMD_FLAG_REQ_ONE | CMD_FLAG_PAYLOAD_LEN)


class Submitting(OptionCalls):
    """Checks before, queueing, and errors after."""

    def _check(self, type_: int, offset: int, count: int, flags: int, allowed: int) -> int:
        """Check a command and return the flags to send.

        Raises:
            Failure: it must not be sent.
        """
        engine = self._engine
        check_flags(self._settings.strict, flags, allowed)
        flags = check_command(engine, type_, flags)
        check_request(engine, type_, offset, count)
        return flags

    def _filter_command(
        self, count: int, offset: int, contexts: list[str], extent64: Extent64Callback, flags: int
    ) -> Command:
        """Check and make a BLOCK_STATUS command for some contexts only.

        Raises:
            Failure: it must not be sent.
        """
        engine = self._engine
        check_flags(self._settings.strict, flags, FILTER_FLAGS)
        flags = check_command(engine, Cmd.BLOCK_STATUS, flags)
        flags, ids = check_filter(engine, flags, contexts)
        payload = StatusFilter(length=count, context_ids=tuple(ids)).encode()
        check_request(engine, Cmd.BLOCK_STATUS, offset, count, filter_size=len(payload))
        return Command.block_status(offset, count, flags, extent64, wide=True, payload=payload)

    def _submit(self, command: Command) -> int:
        """Queue a command. When others are on their way it waits for company, until the handle is looked at again."""
        engine = self._engine
        alone = not engine.in_flight
        cookie = engine.submit(command)
        if alone or engine.outgoing or len(engine.tail) >= BATCH_BYTES:
            self._driver.flush()
        if self._lane is None:
            self._open_lane()
        return cookie

    def _raise_error_of(self, command: Command) -> None:
        """Raise what went wrong with a finished command, if anything did.

        Raises:
            Failure: with the exception of a callback as its cause, if that is what went wrong.
        """
        if command.error:
            raise Failure(f"{command.name}: command failed", command.error) from command.raised
