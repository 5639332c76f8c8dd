"""Cuts a byte stream into chunks where its content says so.

Knows the order of the decisions: profile from the head, member borders if it is a plain tar,
FastCDC (2020, normalised) within what is left. Knows no file, socket, clock, hash or key, and
holds none of the bytes: the caller keeps the window.

A stream is a row of regions. A plain tar has one for each larger member and one for every run of
headers and small members between two of those; any other stream is a single region. What is left
of a region and no longer than the average is one chunk; anything longer is cut by content.
"""

from __future__ import annotations

from typing import Final, final

from pyfastcdc import FastCDC

from cas.profile import HEAD_BYTES, PACKED, Profile, choose, is_tar
from cas.tar import LOOK_BYTES, MEMBER_BYTES, TarWalk

NORMALIZED_CHUNKING: Final = 2  # sizes keep closer to the average than with 1; the sharing is the same

# No chunker wants a longer window than this, so a caller's window of this and one read never stalls.
LONGEST_WANT: Final = PACKED.largest


@final
class Chunker:
    """Cuts one byte stream. The cuts depend on the bytes alone, never on how it was split into windows.

    A chunk is cut only when no byte to come could move its end, so no byte is scanned twice.
    One thread at a time.
    """

    __slots__ = ("_borders", "_fastcdc", "_member_bytes", "_position", "_walk", "profile", "wants")

    def __init__(self, *, member_bytes: int = MEMBER_BYTES) -> None:
        self.profile: Profile | None = None  # None until enough of the head was seen
        self.wants = HEAD_BYTES  # a window this long gives chunks, or settles the profile and raises this
        self._member_bytes = member_bytes
        self._fastcdc = FastCDC()  # replaced once the profile is known
        self._walk: TarWalk | None = None
        self._borders: list[int] = []  # told by the walk and not reached yet, as offsets in the stream
        self._position = 0  # of window[0] in the stream

    def cut(self, window: memoryview, *, final: bool) -> list[int]:
        """Lengths of the chunks that are complete at the front of the window.

        The window begins at the first byte that no earlier cut returned. Drop what was returned,
        append what arrives, call again. Final: no more will come, so everything is returned.
        """
        if self.profile is None:
            if len(window) < HEAD_BYTES and not final:
                return []
            self.profile = self._begin(window[:HEAD_BYTES])
        lengths: list[int] = []
        if self._walk is None:
            self._cut_region(self.profile, window, lengths, closed=final)
        else:
            self._cut_tar(self.profile, self._walk, window, lengths, final=final)
        return lengths

    def _begin(self, head: memoryview) -> Profile:
        profile = choose(head)
        self.wants = profile.largest
        if is_tar(head):
            self._walk = TarWalk(self._member_bytes)
            self.wants += LOOK_BYTES  # no chunk may take away a header that was not read yet
        # One each: the library promises nothing about threads, and making one takes 0.2 µs.
        self._fastcdc = FastCDC(
            profile.average,
            min_size=profile.smallest,
            max_size=profile.largest,
            normalized_chunking=NORMALIZED_CHUNKING,
        )
        return profile

    def _cut_tar(self, profile: Profile, walk: TarWalk, window: memoryview, lengths: list[int], *, final: bool) -> None:
        position = self._position
        borders = self._borders
        borders += walk.borders(window, position)
        start = reached = 0
        for border in borders:
            stop = border - position
            if stop > len(window):
                break
            if stop - start <= profile.average:
                lengths.append(stop - start)  # as below, but this is nearly every region: spare the slice
            else:
                self._cut_region(profile, window[start:stop], lengths, closed=True)
            start = stop
            reached += 1
        del borders[:reached]
        stop = len(window) if final else min(len(window), walk.next_header - position)
        start += self._cut_region(profile, window[start:stop], lengths, closed=final)
        self._position = position + start

    def _cut_region(self, profile: Profile, region: memoryview, lengths: list[int], *, closed: bool) -> int:
        """Append the lengths that are sure by now; returns their sum.

        The library takes the end of its buffer for the end of the stream. So an open region is cut
        only where a whole largest chunk lies ahead: then more bytes could not change the answer.
        """
        done = 0
        stop = len(region) - (profile.average if closed else profile.largest - 1)
        if stop > 0:
            chunks = self._fastcdc.cut_buf(region)
            while done < stop:
                length = next(chunks).length
                lengths.append(length)
                done += length
        if closed and done < len(region):
            lengths.append(len(region) - done)
            done = len(region)
        return done
