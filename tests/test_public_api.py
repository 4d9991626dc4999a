"""What other projects may rely on. A change here is a change of the public interface and belongs in CHANGELOG.md."""

import importlib

import pytest

PUBLIC = {
    "nbdtest.client": """
        AsyncNBD Buffer ClosedHandle Error StatusExtent install_as_nbd nbd
    """,
    "nbdtest.client.kernel": """
        ConfigFlag DeviceBusy DeviceError DeviceStatus Interface LinkEvents NBDDevice NBDNetlink NoModule
        NotPermitted Parameters StillInUse UnsuitableConnection
    """,
    "nbdtest.conformance": """
        Capability Check Complaint Coverage Hangup NoAnswer NotApplicable Requirement ServerSource
        ServerTarget Vitals check coverage each_check each_requirement in_order requirement run_check
        run_suite select
    """,
    "nbdtest.conformance.expect": """
        UNKNOWN_OPTION expect expect_bytes expect_end expect_equal expect_error expect_in_step expect_refused
        expect_reply expect_silence expect_success
    """,
    "nbdtest.errors": """
        Disconnected NBDTestError PeerViolation TimedOut TransportError UsageError
    """,
    "nbdtest.fakeserver": """
        Action Allocation BlockSizes Context DirtyBitmap Engine Export FakeServer FileDisk Journal MemoryDisk Moment
        Peer Phase Plan Quirks Rule RuleBook SendRule Settings Style TLSMode TLSQuirks UserContext VerificationFailed
        Violation ack action_from_json action_to_json chunk close cut data drip error export_reply greeting
        hold hole info_block_size info_description info_export info_name info_other mangle meta_context
        no_data oldstyle_greeting opt_error opt_reply pass_through pause raw release server_export simple
        stall status
    """,
    "nbdtest.fuzz.strategies": """
        Command Fault Misbehaviour Reply actions any_message block_sizes commands error_replies exports
        faulty_read_replies interleaved legal_commands legal_dialogues message_classes messages misbehaviours
        numbers option_dialogues options pattern read_replies scripts sessions status_replies
    """,
    "nbdtest.model": """
        CustomDisk DATA Disk DiskError HOLE IntervalMap MemoryDisk Objection Run Situation Verdict ZERO judge objection
    """,
    "nbdtest.wire": """
        BlockStatus BlockStatusExt ByteQueue CHUNK_PAYLOADS CLISERV_MAGIC ClientFlag ClientFlags Cmd CmdFlag
        EXTENDED_REPLY_MAGIC EXTENDED_REQUEST_MAGIC Errno ErrorChunk ErrorOffset ErrorText ExportName
        ExportNameReply ExportNameReplyPadded ExtendedReply ExtendedReplyHeader ExtendedRequest Extent
        GreetingStart HandshakeFlag Info InfoBlockSize InfoDescription InfoExport InfoName InfoOther
        InfoRequest Message MetaContext MetaContextRequest NBD_MAGIC NewstyleGreeting Nothing OPTION_MAGIC
        OPTION_REPLY_MAGIC OffsetData OffsetHole OldstyleGreeting Opt Option OptionHeader OptionReply
        OptionReplyHeader OtherChunk OtherData REQUEST_MAGIC Readable Record Rep ReplyFlag ReplyType Request
        SIMPLE_REPLY_MAGIC STRUCTURED_REPLY_MAGIC Sender ServerExport SimpleReply State StatusFilter
        StructuredReply StructuredReplyHeader Transcript TransmissionFlag Truncated decode_chunk_payload
        decode_option_data decode_option_reply_data dump hexdump shorten
    """,
    "nbdtest.wire.mangle": """
        cut flip insert overwrite
    """,
}
"""The names of each public module. libnbd's constants, which `nbdtest.client` has as well, are not repeated."""


def exported(module: str) -> list[str]:
    names = importlib.import_module(module).__all__
    return sorted(name for name in names if not (module == "nbdtest.client" and name.isupper()))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_these(module: str) -> None:
    assert exported(module) == sorted(PUBLIC[module].split())


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_exists_and_says_what_it_is(module: str) -> None:
    namespace = importlib.import_module(module)
    for name in exported(module):
        value = getattr(namespace, name)
        assert not callable(value) or value.__doc__, name
