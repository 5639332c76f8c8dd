"""The one table of exit codes: what a script may conclude from how `cas` ended.

Layer: tools. 0 is success, 1 is "done, and there is something to look at", 2 is a wrong command line,
environment or configuration file; the rest follow sysexits(3). Whatever has no row is our own bug and exits
70 with a traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Final, NoReturn

import click

import cas
from api import tls
from api.access import errors as access
from api.content import undelete
from api.porting import errors as porting
from tools import errors

OK: Final = 0
FINDINGS: Final = 1
USAGE: Final = 2
UNEXPECTED: Final = 70
BUSY: Final = 75  # somebody else is at it, who gets done

# Of `cas fsck` when it checks, by the convention of fsck(8).
MENDED: Final = 1
UNMENDED: Final = 4
COULD_NOT_RUN: Final = 8
FSCK_USAGE: Final = 16

CODES: Final[dict[type[Exception], int]] = {
    errors.BadAddress: USAGE,
    errors.OpenToAll: USAGE,
    errors.Contradiction: USAGE,
    errors.CannotLog: USAGE,
    tls.BadCertificate: USAGE,
    access.BadPasswordFile: USAGE,
    access.InvalidPattern: 65,
    undelete.NothingDeleted: 66,
    undelete.StandsInTheWay: 73,
    access.InvalidUser: 65,
    porting.NotThatKind: 65,
    porting.NothingToExport: 66,
    porting.CannotWrite: 73,
    errors.NotOneRepository: 65,
    cas.InvalidDigest: 65,
    cas.InvalidName: 65,
    cas.Mismatch: 65,
    cas.Missing: 66,
    cas.NotAStore: 66,
    cas.IndexMissing: 66,
    cas.IndexUnfit: 66,
    cas.PacksMissing: 66,
    access.NoSuchUser: 67,
    cas.IndexPresent: 73,
    cas.Occupied: 73,
    access.UserExists: 73,
    access.KeptElsewhere: 77,
    errors.AddressInUse: 69,
    cas.Closed: UNEXPECTED,
    cas.UnsafeFilesystem: 72,
    cas.NoSpace: 73,
    cas.Damaged: 74,
    cas.DiskFailed: 74,
    cas.OtherDisk: 74,
    cas.ReadOnly: 74,
    cas.Busy: BUSY,
    cas.InUse: BUSY,
    cas.Superseded: BUSY,
    cas.FormatTooNew: 76,
    cas.RootReadOnly: 77,
    cas.NotOwner: 77,
    cas.Unreadable: 74,
    cas.Forbidden: 77,
    errors.AddressForbidden: 77,
}


# What the system says of files that were named on the command line, or lie in folders that were, and of the output.
OF_FILES: Final[dict[int, tuple[int, str]]] = {
    errno.EACCES: (77, "mend owner or permissions, or run this as somebody who may"),
    errno.EPERM: (77, "mend owner or permissions, or run this as somebody who may"),
    errno.EROFS: (77, "mend the mount, or name another place"),
    errno.ENOSPC: (73, "free some space and try again"),
    errno.EDQUOT: (73, "free some space and try again"),
    errno.EIO: (74, "look at the system's log"),
    errno.EMFILE: (74, "raise the limit of open files"),
    errno.ENFILE: (74, "raise the limit of open files"),
    errno.ENOTDIR: (74, "name another place"),
    errno.ELOOP: (74, "name another place"),
    errno.ENAMETOOLONG: (74, "name another place"),
}
_OUTPUT: Final = 74
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def code_for(error: Exception) -> int | None:
    """Look the error up by its classes, nearest first; None for one that nobody expected."""
    if isinstance(error, errors.WorkerFailed):
        return error.code
    if isinstance(error, OSError):
        known = OF_FILES.get(error.errno or 0, (None, ""))[0]
        return _OUTPUT if _is_of_output(error) else known
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), None)


def _is_of_output(error: OSError) -> bool:
    """Tell whether this came of printing: what goes wrong with a file has its name, or the engine's words."""
    return error.filename is None and error.errno in _FULL


def _sentence(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if _is_of_output(error):
        return f"standard output cannot be written: {error.strerror}"
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror}; {OF_FILES[error.errno or 0][1]}"


def flush() -> None:
    """Write out what was printed, while what goes wrong with that can still be told.

    Raises:
        OSError: it could not be.
    """
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.flush()


def hush() -> None:
    """Let what could not be printed go nowhere, so that the interpreter does not try once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def heed_interrupts() -> None:
    """Let Ctrl-C reach the work as an exception from now on, so that what it holds is put in order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_interrupted() -> NoReturn:
    """End by SIGINT, which shells call 130, so that a script that began us knows that somebody wants it to end.

    Without waiting for threads that are at work still: a store bears to be left by its processes at any time.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError):
        flush()
    with suppress(OSError):
        click.echo("cas: interrupted before it was done", err=True)
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal ends the process")


def report(error: Exception) -> int:
    """Tell the operator on stderr and give the exit code."""
    code = code_for(error)
    if code is None:
        traceback.print_exception(error, file=sys.stderr)
        click.echo("cas: this was not expected and is a bug; please report the lines above", err=True)
        return UNEXPECTED
    if isinstance(error, OSError) and _is_of_output(error):
        hush()
    click.echo(f"cas: {_sentence(error)}", err=True)
    return code
