"""Numbers of many rows: int64 columns in pages.

Owns: growth, row reuse, and pages that are copied on the first write after a freeze, so
that a frozen state can be written out while the live one moves on (DESIGN.md §4).
Must not know: what a column means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAGE_SHIFT: Final = 12
PAGE_ROWS: Final = 1 << PAGE_SHIFT
_MASK: Final = PAGE_ROWS - 1

Int64s = NDArray[np.int64]


class Column:
    """One growable int64 column; rows never written read 0."""

    def __init__(self) -> None:
        self._pages: list[Int64s] = []
        self._shared: list[bool] = []

    def grow(self, rows: int) -> None:
        """Make room for at least `rows` rows."""
        while len(self._pages) << PAGE_SHIFT < rows:
            self._pages.append(np.zeros(PAGE_ROWS, dtype=np.int64))
            self._shared.append(False)

    def __getitem__(self, row: int) -> int:
        return int(self._pages[row >> PAGE_SHIFT][row & _MASK])

    def __setitem__(self, row: int, value: int) -> None:
        page = row >> PAGE_SHIFT
        if self._shared[page]:
            self._own(page)
        self._pages[page][row & _MASK] = value

    def dense(self, rows: int) -> Int64s:
        """The first `rows` rows as one fresh array."""
        if rows == 0:
            return np.zeros(0, dtype=np.int64)
        pages = self._pages[: ((rows - 1) >> PAGE_SHIFT) + 1]
        return np.concatenate(pages)[:rows]

    def gather(self, rows: Int64s) -> Int64s:
        """Values of the given rows, in their order."""
        if len(self._pages) == 1:
            return self._pages[0][rows]
        out = np.empty(len(rows), dtype=np.int64)
        pages = rows >> PAGE_SHIFT
        for page in range(len(self._pages)):
            chosen = pages == page
            if chosen.any():
                out[chosen] = self._pages[page][rows[chosen] & _MASK]
        return out

    def scatter(self, rows: Int64s, value: int) -> None:
        """Write one value to many rows."""
        pages = rows >> PAGE_SHIFT
        for page in np.unique(pages).tolist():
            self._own(page)
            self._pages[page][rows[pages == page] & _MASK] = value

    def _own(self, page: int) -> None:
        if self._shared[page]:
            self._pages[page] = self._pages[page].copy()
            self._shared[page] = False

    def freeze(self) -> tuple[Int64s, ...]:
        """The pages as they are now; later writes go to copies."""
        self._shared = [True] * len(self._pages)
        return tuple(self._pages)

    def hash_parts(self, rows: int) -> list[bytes]:
        """Bytes that determine the first `rows` rows, for a digest."""
        return [self.dense(rows).astype("<i8", copy=False).tobytes()]


class Table:
    """Columns that share their rows, with reuse of freed rows (lowest-freed last, a stack)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.columns: dict[str, Column] = {name: Column() for name in names}
        self.rows = 0
        self._free: list[int] = []

    def new_row(self) -> int:
        """A row of zeros."""
        if self._free:
            return self._free.pop()
        row = self.rows
        self.rows += 1
        if row & _MASK == 0:
            for column in self.columns.values():
                column.grow(row + 1)
        return row

    def free_row(self, row: int) -> None:
        """Give a row back; its values become 0."""
        for column in self.columns.values():
            column[row] = 0
        self._free.append(row)

    def free_rows(self) -> int:
        """How many rows were given back and not taken again."""
        return len(self._free)

    def hash_parts(self) -> list[bytes]:
        """Bytes that determine the table, for a digest."""
        parts = [f"{self.rows}:{self._free}".encode()]
        for name, column in self.columns.items():
            parts.append(name.encode())
            parts.extend(column.hash_parts(self.rows))
        return parts


class Interner:
    """Strings ↔ small integers, numbered in order of first use; 0 is the empty string."""

    def __init__(self) -> None:
        self._texts: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """The number of `text`, given out now if it is new."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return number

    def text(self, number: int) -> str:
        """Inverse of `number`."""
        return self._texts[number]

    def __len__(self) -> int:
        return len(self._texts)
