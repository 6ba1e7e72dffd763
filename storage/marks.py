"""Coverage marks: rare states of the system, each reported where the code reaches it.

All of them are declared here, so that a sweep can tell which it never reached (compare "buggify"
and "code probes" of FoundationDB). A mark is an event like any other: it changes nothing, costs
nothing where no world listens, and a plan may wait for one. Mark only what is rare: a state that
every run reaches many times tells nothing and fills the trace.
"""

from __future__ import annotations

from enum import Enum

from storage.events import emit


class Mark(Enum):
    """What was reached, after the role that it is a state of."""

    # Safekeeper: elections.
    VOTE_REFUSED = "safekeeper: a vote was asked for in a term that is over"
    FLUSHED_BEFORE_VOTE = "safekeeper: WAL was accepted and not flushed when an election came"
    WAL_CUT = "safekeeper: flushed WAL was cut where it parts from the winner's"
    CUT_REFUSED = "safekeeper: a late or wrong order to cut was refused"
    STALE_ELECTION = "safekeeper: a proposer told of a victory in a term that is over"
    STALE_APPEND = "safekeeper: a deposed proposer's WAL was turned down"
    # Safekeeper: disk.
    FLUSH_FAILED = "safekeeper: writing or syncing WAL failed"
    ELECTION_UNSAVED = "safekeeper: an election could not be made durable"
    BAKED_SEGMENT_LEFT = "safekeeper: a crash left a segment that had not got its name"
    TORN_TAIL_AT_BOOT = "safekeeper: bytes after the last whole record were found at boot"
    NEW_SEGMENT = "safekeeper: WAL grew into another segment"
    # Safekeeper: readers, peers.
    COMMIT_FROM_PEER = "safekeeper: a peer told of a commit that no proposer had told of"
    RECOVERY_READER_DEPOSED = "safekeeper: a proposer in recovery was cut off by a newer vote"
    PROPOSER_SILENT = "safekeeper: a proposer was hung up on for its silence"
    READER_SILENT = "safekeeper: a reader was hung up on for its silence"
    SUBSCRIPTION_REFUSED = "safekeeper: a pageserver that was called has not got the tenant"
    BROKER_LOST = "safekeeper: the broker could not be reached"
    # Safekeeper: S3, peers, members.
    SEGMENT_OFFLOADED = "safekeeper: a segment of WAL was offloaded"
    OFFLOADER_FENCED = "safekeeper: an offloader found that a newer one was elected"
    SEGMENT_WAS_THERE = "safekeeper: a segment to offload was in S3 already"
    SEGMENT_REMOVED = "safekeeper: a segment that nobody needs was removed"
    REMOTE_WAL_READ = "safekeeper: WAL was read back from S3"
    CAUGHT_UP_FROM_REMOTE = "safekeeper: a lagging member got WAL from S3"
    CAUGHT_UP_FROM_PEER = "safekeeper: a lagging member got WAL from a peer, without a proposer"
    COPY_SPOILT = "safekeeper: a log changed while it was copied to a new member"
    # Walproposer.
    CAMPAIGN_LOST = "walproposer: a campaign was lost and another begun"
    DEPOSED = "walproposer: a higher term took over after the victory"
    RECOVERED_FROM_DONOR = "walproposer: older WAL was fetched before the victory was told"
    DONOR_FAILED = "walproposer: the donor of a recovery failed"
    CATCH_UP_FROM_PEER = "walproposer: a lagging safekeeper got WAL that memory no longer held"
    CATCH_UP_FAILED = "walproposer: the source of a lagging safekeeper's WAL failed"
    PARTED_VOTER = "walproposer: a safekeeper was told to cut what it had flushed"
    SAFEKEEPER_SILENT = "walproposer: a safekeeper was hung up on for its silence"
    STANDSTILL = "walproposer: a term that led nowhere was given up"
    # Pageserver: reads.
    READ_WAITED = "pageserver: a read waited for WAL to be ingested"
    READ_WAIT_TIMED_OUT = "pageserver: a read gave up waiting for WAL"
    LAYER_REPAIRED = "pageserver: a damaged layer file was replaced by the object store's copy"
    LAYER_DOWNLOADED = "pageserver: a layer was fetched from the object store"
    # Pageserver: ingest.
    INGEST_HELD_BACK = "pageserver: ingest waited for the disk"
    STREAM_LEFT = "pageserver: a stream of WAL that stood still was left for another"
    DAMAGED_WAL = "pageserver: a safekeeper sent WAL that nobody wrote"
    TIMELINE_BROKEN = "pageserver: a timeline stopped for good"
    # Pageserver: layers.
    FLUSH_REPEATED = "pageserver: a flush failed and was tried again"
    MERGED = "pageserver: small layers were merged"
    COMPACTED_AROUND_DAMAGE = "pageserver: compaction left a layer alone that nobody has whole"
    LAYER_IGNORED_AT_LOAD = "pageserver: a local layer that the index does not name was removed"
    HALF_LAYER_REPLACED = "pageserver: a layer that an earlier attempt left was written anew"
    # Pageserver: object store.
    REQUEST_REPEATED = "pageserver: a request to the object store was repeated"
    UPLOAD_REPEATED = "pageserver: an upload was repeated as a whole"
    LAYER_CAME_BACK = (
        "pageserver: a layer whose upload was carried out after its deletion was found"
    )
    SPOILT_LAYER_KEPT_BACK = "pageserver: a layer that the disk had spoilt was not uploaded"
    ANSWER_LOST_INDEX_THERE = "pageserver: an index whose upload went unanswered was found"
    GENERATION_CONTENDED = "pageserver: another attachment took the generation first"
    SUPERSEDED = "pageserver: an attachment learned that a newer one exists"
    INDEX_SKIPPED = "pageserver: an index was replaced by a newer one before its upload"
    # Pageserver: lives of tenants.
    ATTACH_REPEATED = "pageserver: an attachment was tried again as a whole"
    ATTACH_UNDONE = "pageserver: a tenant that does not exist was to be attached"
    ATTACHED_ANEW = "pageserver: layers were spoilt before their upload, and made again from WAL"
    RESUMED_SUPERSEDED = "pageserver: a restart found the tenant attached elsewhere"
    DETACHED_LEFTOVER = "pageserver: a restart removed what a detach had left"
    STOPPED_UNSHIPPED = "pageserver: a tenant stopped before everything was uploaded"
    # Compute.
    PAGES_ASKED_AGAIN = "compute: pages were asked for again on another connection"
    PAGESERVER_STALLED = "compute: a pageserver that owed pages was hung up on"
    PAGE_REFUSED = "compute: a page was refused for the moment"

    @property
    def label(self) -> str:
        """The mark's name in events and reports."""
        return self.name.lower()


def reach(mark: Mark) -> None:
    """Report that a rare state is reached, to whoever listens."""
    emit("mark", name=mark.label)
