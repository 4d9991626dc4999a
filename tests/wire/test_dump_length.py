"""A line of the dump stays a line, whatever a peer sends."""

from nbdtest.wire import ExportName, dump


def test_a_long_string_is_shortened() -> None:
    line = dump(ExportName(name="n" * 4096))
    assert line == f'ExportName name="{"n" * 100}"… (4096 characters)'


def test_a_short_string_is_whole() -> None:
    assert dump(ExportName(name="n" * 100)) == f'ExportName name="{"n" * 100}"'
