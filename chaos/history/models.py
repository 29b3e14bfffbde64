"""What one copy of a thing would answer, call by call.

Owns: the sequential models.  Must not know: histories or time.

A model has a first state, and ``step(state, input, output)`` gives every state that it may be in after that
call with that answer: none if one copy never answers so.  States are values that can be hashed.  For `UNKNOWN`
outputs it gives what the call may have done.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from chaos.history.operations import UNKNOWN


class Model(Protocol):
    """A sequential specification."""

    def first(self) -> Hashable:
        """The state before any call."""
        ...

    def step(self, state: Any, call: Any, output: Any) -> Sequence[Hashable]:
        """The states after `call` answered `output`; empty if that cannot be."""
        ...

    def rank(self, call: Any, output: Any) -> float:
        """A guess at the order of calls that may all come next, lowest first; it costs or saves time, no more."""
        ...

    def only_reads(self, call: Any, output: Any) -> bool:
        """Whether that call with that answer changes nothing, in whatever state it is."""
        ...


class Register:
    """A value that is read, written, and written only if it is as expected.

    Inputs: ``("read",)`` → value, ``("write", value)`` → None, ``("cas", expected, value)`` → whether it was done.
    """

    def __init__(self, value: Hashable = None) -> None:
        self._value = value

    def first(self) -> Hashable:
        """The value at the start."""
        return self._value

    def step(self, state: Any, call: Any, output: Any) -> Sequence[Hashable]:
        """See the class."""
        match call:
            case ("read",):
                return (state,) if output is UNKNOWN or output == state else ()
            case ("write", value):
                return (value,)
            case ("cas", expected, value):
                done = state == expected
                if output is not UNKNOWN and output != done:
                    return ()
                return (value,) if done else (state,)
        raise AssertionError(f"a register has no call {call!r}")

    def rank(self, call: Any, output: Any) -> float:
        """What needs the value as it is goes before what replaces it."""
        return 1.0 if call[0] == "write" else 0.0

    def only_reads(self, call: Any, output: Any) -> bool:
        """A read, or a refused exchange."""
        return bool(call[0] == "read" or output is False)


class Lock:
    """A lock whose every grant carries a token higher than all before (fencing).

    Inputs: ``("acquire", holder)`` → token, or False if it is held; ``("release", holder, token)`` → whether it was
    the holder's.  State: (holder, its token, highest token given); a token that nobody was told is None.
    """

    def first(self) -> Hashable:
        """Free, and no token given."""
        return None, None, 0

    def step(self, state: Any, call: Any, output: Any) -> Sequence[Hashable]:
        """See the class."""
        holder, token, highest = state
        match call:
            case ("acquire", asks):
                if holder is not None:
                    return (state,) if output is UNKNOWN or output is False else ()
                if output is UNKNOWN:
                    return ((asks, None, highest),)
                granted = output is not False and output > highest
                return ((asks, output, output),) if granted else ()
            case ("release", asks, known):
                done = holder == asks and token in (None, known)
                if output is not UNKNOWN and output != done:
                    return ()
                return ((None, None, max(highest, known if done else 0)),) if done else (state,)
        raise AssertionError(f"a lock has no call {call!r}")

    def rank(self, call: Any, output: Any) -> float:
        """Nothing tells."""
        return 0.0

    def only_reads(self, call: Any, output: Any) -> bool:
        """Whatever was refused."""
        return output is False


class Job:
    """A job as the API tells it: a version that every new specification raises, and the log index of the last change.

    Inputs: ``submit`` and ``stop`` → (version, index), ``read`` → (version, index applied).  State: (version, the
    highest index that must be over).  An index only rises from one call to the next, whatever the key: the log is one.
    """

    def first(self) -> Hashable:
        """There is no job yet."""
        return 0, 0

    def step(self, state: Any, call: Any, output: Any) -> Sequence[Hashable]:
        """See the class."""
        version, index = state
        if output is UNKNOWN:
            return ((version + 1, index),) if call == "submit" else (state,)
        told, at = output
        if call == "read":
            return ((version, at),) if told == version and at >= index else ()
        rises = (version, version + 1) if call == "submit" else (version,)
        return ((told, at),) if told in rises and at > index else ()

    def rank(self, call: Any, output: Any) -> float:
        """The log's own order."""
        return float(output[1])

    def only_reads(self, call: Any, output: Any) -> bool:
        """Even a read says how far the log is."""
        return False
