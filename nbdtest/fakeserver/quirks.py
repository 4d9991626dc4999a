"""Wrong decisions that no rule can reach, because they are about what the server does not do. All off by default."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Quirks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Named switches; each turns one deed of the correct server off, or into something else."""

    # the handshake
    ignores_client_flags: bool = False
    """Goes on when the client sets flags that were not offered."""
    forgets_what_follows_client_flags: bool = False
    """Loses what arrived in one segment with the client flags."""
    takes_segments_for_headers: bool = False
    """Hangs up when a header arrives in more than one piece."""
    always_pads_export_name: bool = False
    """Sends the 124 zero bytes although NO_ZEROES was agreed."""
    never_pads_export_name: bool = False
    """Leaves the 124 zero bytes out although NO_ZEROES was not agreed."""
    leaves_unknown_option_data: bool = False
    """Does not skip the data of an option that it does not know."""
    leaves_surplus_option_data: bool = False
    """Does not skip data that came with an option that takes none."""
    options_limit: int = 0
    """Hangs up after so many options; 0 for no limit."""
    ends_names_at_nul: bool = False
    """Compares export names as a C string."""
    serves_unknown_exports: bool = False
    """Takes every unknown name for the first export."""
    ignores_option_errors: bool = False
    """Does as well as it can with malformed INFO, GO and META_CONTEXT data instead of refusing it."""
    keeps_state_across_starttls: bool = False
    """What was negotiated in the clear stays valid under TLS."""
    allows_plain_transmission: bool = False
    """Serves exports that need TLS without it."""
    stays_after_abort: bool = False
    """Goes on haggling after ABORT."""
    # metadata contexts
    sets_contexts_without_structured: bool = False
    """Accepts SET_META_CONTEXT before structured replies."""
    keeps_contexts_after_failure: bool = False
    """A SET_META_CONTEXT that fails or selects nothing leaves the earlier selection valid."""
    keeps_contexts_of_other_export: bool = False
    """Contexts that were selected for one export are valid for another."""
    wildcards_select: bool = False
    """SET_META_CONTEXT with a namespace alone selects all of it."""
    # transmission
    skips_magic_check: bool = False
    """Takes whatever arrives for a request."""
    skips_bounds_check: bool = False
    """Serves ranges past the end: reads give zeroes, the rest does nothing there."""
    serves_what_resize_took: bool = False
    """The same, but only for what a RESIZE has taken away."""
    skips_read_only_check: bool = False
    """Writes to a read-only export succeed, and are stored."""
    skips_flag_check: bool = False
    """Ignores command flags that it does not know or did not offer."""
    skips_command_check: bool = False
    """Answers unknown commands, and those that it did not offer, with success."""
    skips_alignment_check: bool = False
    """Serves requests that break the advertised minimum block size."""
    rounds_misaligned_writes: bool = False
    """Widens a misaligned write to whole minimum blocks and destroys what lies around it."""
    waits_for_any_payload: bool = False
    """Waits for a payload however long it is said to be."""
    skips_size_check: bool = False
    """Serves payloads above the maximum."""
    forgets_writes: bool = False
    """Acknowledges WRITE without storing anything."""
    forgets_zeroes: bool = False
    """Acknowledges WRITE_ZEROES without zeroing anything."""
    zeroes_too_much: bool = False
    """WRITE_ZEROES and TRIM reach to the end of the 4096-byte block."""
    punches_despite_no_hole: bool = False
    """WRITE_ZEROES with NO_HOLE leaves a hole."""
    ignores_fast_zero: bool = False
    """A disk that cannot zero fast is zeroed slowly instead of refusing FAST_ZERO."""
    leaves_refused_payload: bool = False
    """Does not read the data of a WRITE that it refuses."""
    leaves_unexpected_payload: bool = False
    """Under extended headers, does not read the payload of a command that takes none."""
    hides_writes_from_others: bool = False
    """Each connection has a cache of its own: others see its writes only after it has gone."""
    stays_after_disc: bool = False
    """Keeps the connection open after DISC."""
    answers_disc: bool = False
    """Replies to DISC."""
    drops_pending_at_disc: bool = False
    """On DISC, forgets replies that are still being held or paused."""
    hangs_up_at_shutdown: bool = False
    """When it is told to stop, ends every connection at once, whatever is owed."""
    stays_at_shutdown: bool = False
    """When it is told to stop, keeps connections that are owed nothing until the grace is over."""

    @property
    def any(self) -> bool:
        """Whether anything is switched on."""
        return self != _NONE


_NONE = Quirks()
