"""Which TLS credentials a handle uses: libnbd's rules, on `nbdtest.net.tls`."""

from __future__ import annotations

import errno

from nbdtest.client.constants import TLS_DISABLE
from nbdtest.client.errors import Failure
from nbdtest.client.settings import Settings
from nbdtest.errors import NBDTestError, UsageError
from nbdtest.net.tls import (
    PSK,
    X509,
    ClientCredentials,
    TLSContext,
    client_context,
    default_directory,
    default_identity,
    parse_priority,
    psk_support,
)

__all__ = ["Credentials"]


class Credentials:
    """The credentials that the settings ask for. `connected_host` is the TCP host, "" for other transports."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.connected_host = ""

    @property
    def hostname(self) -> str:
        """The name that the server's certificate has to carry; "" if none."""
        return self._settings.tls_hostname or self.connected_host

    @property
    def username(self) -> str:
        """The identity for a pre-shared key."""
        if self._settings.tls_username is not None:
            return self._settings.tls_username
        try:
            return default_identity()
        except UsageError as error:
            raise Failure(str(error)) from None

    def check(self) -> None:
        """Look, before anything is sent, whether this Python can do what is asked for.

        Raises:
            Failure: it cannot; the text says what to do.
        """
        settings = self._settings
        wanted = settings.tls != TLS_DISABLE and settings.tls_psk_file is not None
        if wanted and not (support := psk_support()):
            raise Failure(support.reason, errno.ENOTSUP)

    def context(self) -> TLSContext:
        """Load what is needed.

        Raises:
            Failure: a file is missing or makes no sense, or this Python cannot do it.
        """
        settings = self._settings
        try:
            versions = parse_priority(settings.tls_priority) if settings.tls_priority else None
            return client_context(self._credentials(), versions)
        except (NBDTestError, OSError) as error:
            raise Failure(str(error), errno.EINVAL) from error

    def _credentials(self) -> ClientCredentials:
        settings = self._settings
        if settings.tls_psk_file is not None:
            return _psk(settings.tls_psk_file, self.username)
        directory = settings.tls_certificates or default_directory()
        return X509(directory=directory, hostname=self.hostname or None, verify_peer=settings.tls_verify_peer)


def _psk(file: str, username: str) -> PSK:
    try:
        return PSK.from_file(file, username)
    except UsageError as error:
        if isinstance(error.__cause__, OSError):
            raise Failure.of_os(f"open: {file}", error.__cause__) from error
        raise
