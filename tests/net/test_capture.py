"""Output in bounded memory."""

from nbdtest.net.capture import Capture


def test_short_output_is_kept_whole() -> None:
    capture = Capture(10)
    for piece in (b"one ", b"", b"two ", b"three four five"[:12]):
        capture.feed(piece)
    assert capture.text() == "one two three four f"[:20]
    assert capture.total == 20


def test_of_long_output_the_beginning_and_the_end_stay() -> None:
    capture = Capture(4)
    for number in range(1000):
        capture.feed(b"%03d" % number)
    assert capture.bytes() == b"0000\n[... 2992 bytes left out ...]\n8999"
    assert capture.total == 3000


def test_one_large_piece_is_cut_the_same_way() -> None:
    capture = Capture(2)
    capture.feed(b"abcdefgh")
    assert capture.bytes() == b"ab\n[... 4 bytes left out ...]\ngh"


def test_bytes_that_are_no_text_are_replaced() -> None:
    capture = Capture()
    capture.feed(b"a\xffb")
    assert capture.text() == "a\ufffdb"
