"""Iteration over lines, for files of bytes and of text alike."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, AnyStr, Generic

if TYPE_CHECKING:
    from typing_extensions import Self


def size_argument(n: Any) -> int:
    """A number of bytes or characters; -1 for None.  TypeError if it is none."""
    return -1 if n is None else index(n)


class Lines(Generic[AnyStr]):
    """What `io.IOBase` makes of `readline`, to be awaited."""

    async def readline(self, limit: int = -1) -> AnyStr:
        """The next line with its end, empty at the end of the file."""
        raise NotImplementedError

    async def readlines(self, hint: int | None = -1) -> list[AnyStr]:
        """All lines that are left, or so many that they have more than hint bytes (of text: characters) together."""
        hint = size_argument(hint)
        lines: list[AnyStr] = []
        size = 0
        async for line in self:
            lines.append(line)
            size += len(line)
            if 0 < hint < size:
                break
        return lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyStr:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line
