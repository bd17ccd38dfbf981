"""`TextFile`: a file with a position, in characters, for coroutines."""

from __future__ import annotations

import codecs
import io
import locale
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from operator import index
from typing import Any, NamedTuple

from libaio_shim.asyncio._binary import BLOCK_BYTES, AsyncFile
from libaio_shim.asyncio._context import AsyncContext
from libaio_shim.asyncio._lines import Lines, size_argument

_NEWLINES = (None, "", "\n", "\r", "\r\n")

# A cookie of tell() that is more than a position: position, state of the decoder, bytes to decode, characters to skip.
_FIELD_BITS = 64
_FIELD = (1 << _FIELD_BITS) - 1


class _Chunk(NamedTuple):
    """A piece of the file of which not all characters were returned."""

    position: int
    """Where it begins in the file."""
    flags: int
    """The decoder's state there (nothing is left undecoded)."""
    data: bytes
    length: int
    """How many characters it became."""


class TextFile(Lines[str], AsyncFile):
    """A file of text, made by `open` without ``b`` in its mode.  Methods are `io.TextIOBase`'s, to be awaited.

    encoding (default UTF-8), errors and newline are those of the built-in `open`.
    """

    def __init__(
        self,
        context: AsyncContext,
        fd: int,
        name: Any,
        mode: str,
        closefd: bool = True,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> None:
        self._closed = True  # until it is complete, there is nothing to close
        if newline not in _NEWLINES:
            raise ValueError(f"illegal newline value: {newline!r}")
        if encoding == "locale":
            encoding = locale.getpreferredencoding(False)
        self.encoding: str = encoding or "utf-8"
        """The codec's name."""
        self.errors: str = errors or "strict"
        """What happens to what cannot be decoded or encoded."""
        self._newline = newline
        # Raises LookupError for an unknown name.
        decoder: Any = codecs.getincrementaldecoder(self.encoding)(self.errors)
        # The bit of the decoder's state that says that it keeps a \r back.
        self._carriage_bit = 0
        if newline is None or newline == "":
            self._carriage_bit = 1
            decoder = io.IncrementalNewlineDecoder(decoder, translate=newline is None)
        self._decoder = decoder
        self._encoder: Any = codecs.getincrementalencoder(self.encoding)(self.errors)
        self._ends = {None: ("\n",), "": ("\n", "\r")}.get(newline, (newline or "\n",))
        # Decoded but not returned: _text[_used:]; it came from _chunks, of the first of which _skipped are returned.
        self._text = ""
        self._used = 0
        self._chunks: deque[_Chunk] = deque()
        self._skipped = 0
        super().__init__(context, fd, name, mode, closefd)
        self._go(self._position)

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines that were seen so far, where newline is None or ""; else None."""
        newlines: str | tuple[str, ...] | None = getattr(self._decoder, "newlines", None)
        return newlines

    async def _more(self) -> bool:
        """Decodes another block; False at the end of the file."""
        position = self._position
        left, flags = self._decoder.getstate()
        data = await self._read_bytes(BLOCK_BYTES)
        self._continue()
        text = self._decoder.decode(data, final=not data)
        if self._used:
            self._text = self._text[self._used :]
            self._used = 0
        self._text += text
        self._chunks.append(_Chunk(position - len(left), flags, left + data, len(text)))
        return bool(data) or bool(text)

    def _take(self, end: int) -> str:
        """The characters up to index end of `_text`, which are returned now."""
        text = self._text[self._used : end]
        self._used = end
        self._skipped += len(text)
        while self._chunks and self._skipped >= self._chunks[0].length:
            self._skipped -= self._chunks.popleft().length
        return text

    def _forget(self) -> None:
        self._text = ""
        self._used = self._skipped = 0
        self._chunks.clear()

    def _go(self, position: int, flags: int = 0) -> None:
        """Goes to a position in bytes, with the decoder in that state."""
        self._forget()
        self._position = position
        if position:
            # Not at the beginning, where a byte order mark would be.
            self._decoder.setstate((b"", flags))
            self._encoder.setstate(0)
        else:
            self._decoder.reset()
            self._encoder.reset()

    def _continue(self) -> None:
        """What is written next is not the beginning, where a byte order mark would be."""
        if self._position:
            self._encoder.setstate(0)

    def _come_back(self) -> None:
        left, flags = self._decoder.getstate()
        if self._chunks or left or flags & self._carriage_bit:
            self._go(*self._place()[:2])

    async def read(self, n: int | None = -1) -> str:
        """Up to n characters, fewer only at the end of the file; all that are left if n is negative or None."""
        self._check_reads()
        if n.__class__ is not int:
            n = size_argument(n)
        if n < 0:
            data = await self._read_bytes(-1)
            self._continue()
            rest = self._text[self._used :] + self._decoder.decode(data, final=True)
            self._forget()
            return str(rest)
        while len(self._text) - self._used < n:
            if not await self._more():
                break
        return self._take(min(self._used + n, len(self._text)))

    async def readline(self, limit: int = -1) -> str:
        """The next line with its end; at most limit characters of it if that is not negative; "" at the end."""
        self._check_reads()
        if limit.__class__ is not int:
            limit = index(limit)
        searched = self._used
        while True:
            end = self._line_end(searched)
            if end < 0 and (limit < 0 or len(self._text) - self._used < limit):
                # A two-character end may lie across the border.
                behind = max(len(self._text) - 1 - self._used, 0)
                if await self._more():
                    searched = self._used + behind
                    continue
                end = len(self._text)
            if end < 0:
                end = len(self._text)
            if limit >= 0:
                end = min(end, self._used + limit)
            return self._take(end)

    def _line_end(self, start: int) -> int:
        """The index behind the next end of line, -1 if there is none yet."""
        best = -1
        for end in self._ends:
            at = self._text.find(end, start) if best < 0 else self._text.find(end, start, best)
            if at >= 0:
                best = at + len(end)
        # Untranslated, \r may be the first half of \r\n.  (The decoder keeps a \r at the end of a block back.)
        if self._newline == "" and best > 0 and self._text[best - 1 : best + 1] == "\r\n":
            best += 1
        return best

    async def write(self, text: str) -> int:
        """Writes the text, encoded, and returns the number of its characters."""
        self._check_writes()
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._come_back()
        length = len(text)
        if self._newline in ("\r", "\r\n"):
            text = text.replace("\n", self._newline)
        # What follows is not the beginning, whose byte order mark the decoder may wait for.
        if not self._position and text:
            self._decoder.setstate((b"", 0))
        try:
            await self._write_bytes(self._encoder.encode(text))
        except BaseException:
            if not self._position:
                self._go(0)  # the byte order mark is not written yet
            raise
        return length

    async def writelines(self, lines: Iterable[str]) -> None:
        """Writes one after the other, in one request where possible."""
        await self.write("".join(lines))

    def _simple_position(self) -> int | None:
        """The position in bytes, if it is no more than that."""
        if not self._chunks:
            return self._position if not self._position or not any(self._decoder.getstate()) else None
        chunk = self._chunks[0]
        if chunk.flags:
            return None
        # Only if what was returned of the chunk is, encoded, what the chunk begins with.
        start = self._used - self._skipped
        try:
            taken = (
                self._text[start : self._used].encode(self.encoding, self.errors)
                if start >= 0
                else self._decoded(chunk).encode(self.encoding, self.errors)
            )
        except UnicodeError:
            return None
        return chunk.position + len(taken) if chunk.data.startswith(taken) else None

    def _decoded(self, chunk: _Chunk) -> str:
        """The characters of the chunk that were returned already."""
        state = self._decoder.getstate()
        self._decoder.setstate((b"", chunk.flags))
        text = self._decoder.decode(chunk.data)
        self._decoder.setstate(state)
        return str(text[: self._skipped])

    def _place(self) -> tuple[int, int, bool]:
        """Behind the last character that was returned: position in bytes, the decoder's state, and whether it is so.

        It is not where one byte became several characters of which only some were returned; then it is behind them.
        """
        kept, state = self._decoder.getstate()
        if not self._chunks:
            return self._position - len(kept) - self._carriage(state), state & ~self._carriage_bit, True
        chunk = self._chunks[0]

        def decode(size: int) -> int:
            self._decoder.setstate((b"", chunk.flags))
            return len(self._decoder.decode(chunk.data[:size]))

        # The fewest bytes that become as many characters.
        size = bisect_left(range(len(chunk.data)), self._skipped, key=decode) if self._skipped else 0
        exact = decode(size) == self._skipped
        flags = self._decoder.getstate()[1]
        if not exact and size and decode(size - 1) == self._skipped - 1:
            # A \r became a character only when it was seen what comes behind it.
            left, before = self._decoder.getstate()
            if before & self._carriage_bit:
                size -= 1 + len(left)
                flags = before & ~self._carriage_bit
                exact = True
        position = chunk.position + size - self._carriage(flags)
        self._decoder.setstate((kept, state))
        return position, flags & ~self._carriage_bit, exact

    def _carriage(self, flags: int) -> int:
        """How many bytes the \r has that a decoder in that state keeps back."""
        if not flags & self._carriage_bit:
            return 0
        encoder: Any = codecs.getincrementalencoder(self.encoding)(self.errors)
        encoder.setstate(0)
        return len(encoder.encode("\r"))

    async def tell(self) -> int:
        """Where `seek` comes back to: for simple encodings the position in bytes, else a number without meaning."""
        self._check()
        position = self._simple_position()
        if position is not None:
            return position
        if not self._chunks:
            left, flags = self._decoder.getstate()
            return int(self._position - len(left) | flags << _FIELD_BITS)
        position, flags, exact = self._place()
        if exact:
            return position | flags << _FIELD_BITS if position else 0
        chunk = self._chunks[0]
        return (
            chunk.position
            | chunk.flags << _FIELD_BITS
            | len(chunk.data) << 2 * _FIELD_BITS
            | self._skipped << 3 * _FIELD_BITS
        )

    async def seek(self, cookie: int, whence: int = os.SEEK_SET) -> int:
        """Goes to where `tell` was, to the beginning (0) or to the end (0, SEEK_END); returns the new position.

        io.UnsupportedOperation for other distances from the current position or the end.
        """
        self._check()
        cookie = index(cookie)
        if whence != os.SEEK_SET and cookie != 0:
            raise io.UnsupportedOperation("can't do nonzero cur-relative or end-relative seeks")
        if whence == os.SEEK_CUR:
            return await self.tell()
        if whence == os.SEEK_END:
            self._go(self._target(0, whence, 0))
            return self._position
        if whence != os.SEEK_SET:
            raise ValueError(f"invalid whence: {whence}")
        if cookie < 0:
            raise ValueError(f"negative seek position {cookie}")
        position, flags, feed, skip = (cookie >> i * _FIELD_BITS & _FIELD for i in range(4))
        self._go(position, flags)
        if feed:
            data = await self.pread(feed, position)
            if len(data) < feed:
                raise OSError("can't restore logical file position")
            self._decoder.setstate((b"", flags))
            self._position += feed
            self._text = self._decoder.decode(data)
            self._chunks.append(_Chunk(position, flags, data, len(self._text)))
            self._take(skip)
        return cookie
