"""The table of exit codes is complete, and the unexpected is told from the expected."""

from __future__ import annotations

import pytest

import cas
from api.access.errors import (
    BadPasswordFile,
    InvalidPattern,
    InvalidUser,
    KeptElsewhere,
    NoSuchUser,
    UserExists,
)
from api.content.undelete import NothingDeleted, StandsInTheWay
from api.porting.errors import CannotWrite, NothingToExport, NotThatKind
from api.tls import BadCertificate
from tools import errors, exits

BASES = {cas.CasError, cas.OpenError, errors.CommandError}  # never raised themselves
CARRY_THEIR_OWN = {errors.WorkerFailed}
# Those that a command can meet.
OF_THE_EDGE = {BadCertificate, BadPasswordFile, InvalidPattern, InvalidUser, KeptElsewhere, NoSuchUser, UserExists}
OF_THE_EDGE |= {NothingDeleted, StandsInTheWay, CannotWrite, NothingToExport, NotThatKind}


def family(base: type[Exception]) -> set[type[Exception]]:
    ours = {kind for kind in base.__subclasses__() if not kind.__module__.startswith("tests.")}
    return {base}.union(*map(family, ours))


def test_every_error_has_a_row_of_its_own() -> None:
    """A forgotten row would exit 70 and call the operator's mistake our bug."""
    known = family(cas.CasError) | family(errors.CommandError) | OF_THE_EDGE
    assert known - BASES - CARRY_THEIR_OWN == set(exits.CODES)


def test_no_error_looks_like_success() -> None:
    """0 and 1 are results, not errors."""
    assert not {exits.OK, exits.FINDINGS} & set(exits.CODES.values())


def test_a_subclass_inherits_its_parents_row() -> None:
    """Nearest class first."""

    class Rarer(cas.Busy):
        """A busier Busy."""

    assert exits.code_for(Rarer("x")) == exits.CODES[cas.Busy]


def test_a_worker_that_could_not_start_gives_its_own_code() -> None:
    """The supervisor passes on what the worker found."""
    assert exits.code_for(errors.WorkerFailed(74)) == 74


def test_an_expected_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence of the error, and nothing else."""
    assert exits.report(cas.NoSpace("the disk is full")) == 73
    assert capsys.readouterr() == ("", "cas: the disk is full\n")


def test_an_unexpected_error_shows_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback for us, a sentence for them, exit code 70."""
    assert exits.report(ZeroDivisionError("oops")) == exits.UNEXPECTED
    told = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in told
    assert "is a bug" in told
