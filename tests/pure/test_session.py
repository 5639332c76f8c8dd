"""A resumable upload between two requests: what was written is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cas.digest import Digest
from cas.session import Session, UploadState

u64 = st.integers(0, (1 << 64) - 1)
digests = st.one_of(
    st.none(),
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw)),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest("sha512", raw)),
)
chains = st.just(b"") | st.binary(min_size=16, max_size=16).filter(any)


@given(
    row=st.builds(Session, st.sampled_from(UploadState), u64, u64, u64, chains, digests),
    inline=st.binary(max_size=20),
)
def test_a_session_comes_back_equal(row: Session, inline: bytes) -> None:
    """With or without chain and digest; its bytes are kept beside it."""
    found = Session.decode(row.encode(), inline)
    assert found.inline == inline
    assert found == Session(row.state, row.end, row.touched, row.recipe, row.chain, row.digest, inline)
