"""Ids of upload sessions: whoever has one may go on with that upload, for a time; no other text may."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from api.content.repository import Repository
from api.v2 import sessions
from api.v2.sessions import LIFE_S, Session

OURS, OTHER = Repository("library", "foo"), Repository("library", "fop")
KEY, OLD, FOREIGN = b"k" * 32, b"o" * 32, b"f" * 32
SESSIONS = st.builds(
    Session,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40 - 1),
    st.sampled_from(sessions.ALGORITHMS),
)


@given(SESSIONS)
def test_what_was_written_is_read(session: Session) -> None:
    """By every key on the ring, as plain text that needs no escaping in a path."""
    text = sessions.write(session, OURS, OLD)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", text)
    assert sessions.read(text, OURS, [KEY, OLD], session.opened) == session


@given(SESSIONS, st.integers(0, 39), st.characters(codec="ascii", exclude_categories=["C"]))
def test_no_changed_text_is_read(session: Session, at: int, char: str) -> None:
    """One character is enough: nobody guesses or makes an id."""
    text = sessions.write(session, OURS, KEY)
    changed = text[:at] + char + text[at + 1 :]
    assert (sessions.read(changed, OURS, [KEY], session.opened) is not None) == (changed == text)


@given(st.text(max_size=60))
def test_any_text_may_be_asked_about(text: str) -> None:
    """Whatever a path can hold is no session, and no error either."""
    assert sessions.read(text, OURS, [KEY], 0) is None


def test_an_id_is_good_in_its_repository_only() -> None:
    """`foo` is `library/foo`; nothing else is."""
    text = sessions.write(Session(7, 1000), Repository.of("foo"), KEY)
    assert sessions.read(text, Repository.of("library/foo"), [KEY], 1000) == Session(7, 1000)
    assert sessions.read(text, OTHER, [KEY], 1000) is None


def test_an_id_is_good_for_a_week() -> None:
    """Not a second longer, and not under a key that was taken off the ring."""
    text = sessions.write(Session(7, 1000), OURS, KEY)
    assert sessions.read(text, OURS, [KEY], 1000 + LIFE_S) is not None
    assert sessions.read(text, OURS, [KEY], 1001 + LIFE_S) is None
    assert sessions.read(text, OURS, [OLD, FOREIGN], 1000) is None
    assert sessions.read(text, OURS, [], 1000) is None
