"""Messages in words, for paths and transcripts.

Owns: one short line for each kind of message.  Must not know: who sends it, or why.
"""

from __future__ import annotations

from raft.messages import (
    COMMAND,
    CONFIGURATION,
    Admission,
    Append,
    AppendReply,
    DigestReport,
    Entry,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    JoinRequest,
    Message,
    RefetchRequest,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)


def told(message: Message) -> str:
    """One line; `index@term` is a position in a log."""
    match message:
        case VoteRequest(term=term, last_index=index, last_term=last, pre=pre, transfer=transfer):
            kind = "pre-vote" if pre else "vote"
            return f"{kind} request, term {term}, log ends {index}@{last}{', by hand-over' if transfer else ''}"
        case VoteReply(term=term, granted=granted, pre=pre):
            return f"{'pre-vote' if pre else 'vote'} {'granted' if granted else 'refused'}, term {term}"
        case Append():
            entries = " ".join([entry_told(entry) for entry in message.entries]) or "no entries"
            behind = f"behind {message.prev_index}@{message.prev_term}"
            return f"append, term {message.term}, {behind}, commit {message.commit_index}: {entries}"
        case AppendReply(accepted=True):
            return f"accepted, term {message.term}, up to {message.match_index}"
        case AppendReply():
            where = f"{message.hint_index}@{message.hint_term}" if message.hint_term else f"{message.hint_index}"
            return f"refused, term {message.term}, behind {message.match_index}, hint {where}"
        case SnapshotChunk(term=term, snapshot=snapshot, offset=offset, data=data):
            what = f"{len(data)} bytes from {offset}" if data else "how much is there?"
            return f"snapshot {snapshot.index}@{snapshot.term}, term {term}, {what}"
        case SnapshotReply(term=term, snapshot=snapshot, offset=offset):
            return f"snapshot {snapshot.index}@{snapshot.term}, term {term}, wanted from {offset}"
        case _:
            return _told_of_membership(message)


def _told_of_membership(message: Message) -> str:
    match message:
        case FoundingQuestion(store_id=store):
            return f"is your store empty? mine is, store {short(store)}"
        case FoundingAnswer(store_id=store, empty=empty):
            return f"my store {short(store)} is {'empty' if empty else 'not empty'}"
        case Founding(entry=entry):
            return f"entry 1 for you: {entry_told(entry)}"
        case JoinRequest(store_id=store):
            return f"take store {short(store)} in"
        case Admission(store_id=store):
            return f"the configuration names store {short(store)}"
        case TimeoutNow(term=term):
            return f"stand for election now, term {term}"
        case DigestReport(index=index, digest=digest, asks=asks):
            return f"my state at {index} has digest {digest}{'; and yours?' if asks else ''}"
        case RefetchRequest(term=term, after=after):
            return f"send a snapshot of more than {after}, term {term}"
    raise AssertionError(f"a message without words: {message}")


def entry_told(entry: Entry) -> str:
    """`index@term` and what it holds."""
    if entry.kind == CONFIGURATION:
        return f"{entry.index}@{entry.term} configuration"
    data = entry.data.decode(errors="replace") if entry.kind == COMMAND else "no-op"
    return f"{entry.index}@{entry.term} {data}"


def short(store: str) -> str:
    """A store id without its leading zeros."""
    return store.lstrip("0") or "0"
