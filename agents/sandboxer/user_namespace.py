"""A workload's user namespace: root inside, a user that nobody else is outside.

Owns: how its two processes make it together, and trying whether that works here.
Must not know: which number is whose (`users`), what runs.

It is entered last, when all that takes privileges is done, and it owns none of the other namespaces.  So a process
that got back every capability in it could neither mount anything nor change its network.

Only a process with privileges outside may write which number root inside is.  The init makes the namespace; the
main process, which is still root, writes that for it and follows it in.  The sandboxer waits for neither.
"""

from __future__ import annotations

import os
import shutil
from typing import Final, NoReturn

from agents.sandboxer import linux, namespaces
from agents.sandboxer.meeting import Meeting

_MADE: Final = b"made"
_MAPPED: Final = b"mapped"
_INIT: Final = 1


def make(meeting: Meeting) -> None:
    """In the init: make the namespace, and become root in it once it is mapped.  Raises OSError."""
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    except OSError as error:
        meeting.say(str(error).encode())
        meeting.hear()  # with us the main process would be killed, before it can report
        raise
    meeting.say(_MADE)
    if meeting.hear() != _MAPPED:
        raise OSError("the main process is gone")
    _become_root()


def enter(meeting: Meeting, user: int) -> None:
    """In the main process, which sees its init as process 1: map root to `user`, and become it.  Raises OSError."""
    said = meeting.hear()
    if said != _MADE:
        raise OSError(said.decode(errors="replace") or "its init is gone")
    for kind in ("uid", "gid"):
        namespaces.write(f"/proc/{_INIT}/{kind}_map", f"0 {user} 1")
    namespace = os.open(f"/proc/{_INIT}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    linux.setns(namespace, linux.CLONE_NEWUSER)
    os.close(namespace)
    meeting.say(_MAPPED)
    _become_root()


def _become_root() -> None:
    """Root of the namespace that this process is in, with no other group."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def works(user: int, directory: str) -> str:
    """Try it with a directory below `directory`, in children of this process; "" or why it cannot be had."""
    trial = os.path.join(os.path.realpath(directory), f"trial-{os.getpid()}")
    try:
        os.makedirs(trial)
        os.chown(trial, user, user)
        return linux.tried(lambda: _try(user, trial))
    except OSError as error:
        return str(error)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _try(user: int, trial: str) -> None:
    linux.unshare(linux.CLONE_NEWPID)
    meeting = Meeting()
    init = os.fork()
    if init == 0:
        _be_init(meeting)
    failed = linux.tried(lambda: _try_inside(meeting, user, trial))
    meeting.close()
    os.waitpid(init, 0)
    if failed:
        raise OSError(failed)


def _try_inside(meeting: Meeting, user: int, trial: str) -> None:
    meeting.as_main()
    namespaces.enter("probe", network=False)
    namespaces.cover(os.path.dirname(trial), trial)
    os.chdir(trial)
    enter(meeting, user)
    os.mkdir(os.path.join(trial, "own"))
    if (os.getresuid(), os.getresgid()) != ((0, 0, 0), (0, 0, 0)):
        raise OSError("root is somebody else in it")


def _be_init(meeting: Meeting) -> NoReturn:
    try:
        meeting.as_init()
        make(meeting)
        meeting.hear()
    finally:
        os._exit(0)
