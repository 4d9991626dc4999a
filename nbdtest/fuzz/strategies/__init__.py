"""Hypothesis strategies for the NBD protocol, for tests of any client or server.

>>> from hypothesis import given
>>> from nbdtest.fuzz.strategies import messages
>>> from nbdtest.wire import Request
>>> @given(messages(Request))
... def test_my_parser_survives(request):
...     my_parser(request.encode())
"""

from nbdtest.fuzz.strategies.codec import any_message, message_classes, messages, numbers

__all__ = ["any_message", "message_classes", "messages", "numbers"]
