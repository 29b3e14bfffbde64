"""What a transcript says of effects, logs and configurations.

Owns: one line for each kind of effect.  Must not know: commands.
"""

from __future__ import annotations

from chaos.exhaustive.words import entry_told, short
from raft.core import Core
from raft.effects import (
    Appended,
    Committed,
    Diverged,
    Effect,
    HandedOver,
    HandOverRefused,
    Installed,
    Persist,
    ProposalAppended,
    ProposalRefused,
    ReadReady,
    ReadRefused,
    Reconfigured,
    Role,
    RoleChanged,
    Split,
    TakeDigest,
    TakeSnapshot,
    VoteCast,
)
from raft.messages import Configuration


def effect_shown(name: str, effect: Effect) -> str:
    """One line about what a core decided."""
    match effect:
        case RoleChanged(role=Role.LEADER, term=term, why=why):
            return f"{name} leads term {term}: {why}"
        case RoleChanged(role=role, term=term, leader=leader, why=why):
            return f"{name} {role}{f' of {leader}' if leader else ''}, term {term}: {why}"
        case VoteCast(term=term, candidate=candidate):
            return f"{name} its vote of term {term} for {candidate} is durable"
        case Appended(first=first, last=last):
            return f"{name} {span(first, last)} durable"
        case Committed(first=first, last=last):
            return f"{name} commits {span(first, last)}"
        case ProposalAppended(id=call, term=term, index=index):
            return f"{name} proposal {call} is {index}@{term}"
        case ProposalRefused(id=call, code=code, leader=leader):
            return f"{name} proposal {call} refused: {code}{f', {leader} leads' if leader else ''}"
        case ReadReady(id=read, index=index):
            return f"{name} read {read} may be answered at index {index}"
        case ReadRefused(id=read, code=code, leader=leader):
            return f"{name} read {read} refused: {code}{f', {leader} leads' if leader else ''}"
        case Reconfigured(index=index, configuration=configuration):
            text = configuration_shown(configuration) if configuration else "none"
            return f"{name} configuration of entry {index}: {text}"
        case Installed(base=base):
            return f"{name} its log begins behind {base.index}@{base.term}, durably"
        case Diverged(index=index, digest=digest, agreed=agreed, holders=holders):
            return f"{name} its state at {index} is {digest}; {' and '.join(holders)} have {agreed}: it diverged"
        case Split(index=index, digests=digests) if digests:
            return f"{name} no majority at {index}: {', '.join(' '.join(each) for each in digests)}"
        case Split(index=index):
            return f"{name} a majority agrees at {index}"
        case TakeSnapshot(after=after):
            return f"{name} wants a snapshot of more than {after}"
        case TakeDigest(index=index):
            return f"{name} wants the digest of its state at {index}"
        case HandedOver(id=call, leader=leader):
            return f"{name} hand-over {call} is done: {leader} leads"
        case HandOverRefused(id=call, code=code):
            return f"{name} hand-over {call} refused: {code}"
        case _:
            raise AssertionError(f"an effect without words: {effect}")


def written(write: Persist) -> str:
    parts = []
    if write.base is not None:
        parts.append(f"a log that begins behind {write.base.index}@{write.base.term}")
    if write.hard_state is not None:
        vote = f", vote {write.hard_state.voted_for}" if write.hard_state.voted_for else ""
        parts.append(f"term {write.hard_state.term}{vote}")
    parts += [entry_told(entry) for entry in write.entries]
    return "; ".join(parts) or "the suffix is cut off"


def span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


def log_shown(core: Core) -> str:
    log, marks = core.log, []
    if log.base_index:
        marks.append(f"({log.base_index}@{log.base.term})")
    for index in range(log.base_index, log.last_index + 1):
        if index > log.base_index:
            marks.append(f"{index}@{log.term_at(index)}")
        if index == core.commit_index and index:
            marks.append("!")
        if index == core.durable_index and index:
            marks.append("|")
    return " ".join(marks) or "empty"


def configuration_shown(configuration: Configuration) -> str:
    def named(stores: dict[str, str]) -> str:
        return " ".join([f"{name}:{short(store)}" for name, store in sorted(stores.items())])

    parts = [f"voters {named(configuration.voters)}"]
    if configuration.outgoing:
        parts.append(f"and of before {named(configuration.outgoing)}")
    if configuration.learners:
        parts.append(f"learners {named(configuration.learners)}")
    if configuration.retired:
        parts.append(f"retired {' '.join(map(short, configuration.retired))}")
    return ", ".join(parts)
