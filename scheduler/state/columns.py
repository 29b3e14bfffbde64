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

from scheduler.state.paged import Page, Section, Value

PAGE_ROWS = 4096
"""A power of two; a state written with other pages cannot be read."""
_FEW: Final = 64
"""So few rows are read one by one: looking through all pages for them takes longer."""
GENERATION: Final = "row_generation"

Int64s = NDArray[np.int64]


class Column:
    """One growable int64 column; rows never written read 0.  A section of the state."""

    def __init__(self) -> None:
        self._pages: list[Int64s] = []
        self._frozen: list[Page | None] = []

    def grow(self, rows: int) -> None:
        """Make room for at least `rows` rows."""
        while len(self._pages) * PAGE_ROWS < rows:
            self._pages.append(np.zeros(PAGE_ROWS, dtype=np.int64))
            self._frozen.append(None)

    def __getitem__(self, row: int) -> int:
        return int(self._pages[row // PAGE_ROWS][row & (PAGE_ROWS - 1)])

    def __setitem__(self, row: int, value: int) -> None:
        page = row // PAGE_ROWS
        if self._frozen[page] is not None:
            self._own(page)
        self._pages[page][row & (PAGE_ROWS - 1)] = value

    def pages(self) -> int:
        """How many pages there are."""
        return len(self._pages)

    def dense(self, rows: int) -> Int64s:
        """The first `rows` rows as one fresh array."""
        if rows == 0:
            return np.zeros(0, dtype=np.int64)
        pages = self._pages[: (rows - 1) // PAGE_ROWS + 1]
        return np.concatenate(pages)[:rows]

    def gather(self, rows: Int64s) -> Int64s:
        """Values of the given rows, in their order."""
        if len(self._pages) == 1:
            return self._pages[0][rows]
        if len(rows) <= _FEW:
            return np.array([self[row] for row in rows.tolist()], dtype=np.int64)
        out = np.empty(len(rows), dtype=np.int64)
        pages = rows // PAGE_ROWS
        for page in range(len(self._pages)):
            chosen = pages == page
            if chosen.any():
                out[chosen] = self._pages[page][rows[chosen] & (PAGE_ROWS - 1)]
        return out

    def scatter(self, rows: Int64s, value: int) -> None:
        """Write one value to many rows."""
        pages = rows // PAGE_ROWS
        for page in np.unique(pages).tolist():
            self._own(page)
            self._pages[page][rows[pages == page] & (PAGE_ROWS - 1)] = value

    def add(self, rows: Int64s, amount: int) -> None:
        """Add one amount to many rows, each named once."""
        pages = rows // PAGE_ROWS
        for page in np.unique(pages).tolist():
            self._own(page)
            self._pages[page][rows[pages == page] & (PAGE_ROWS - 1)] += amount

    def _own(self, page: int) -> None:
        if self._frozen[page] is not None:
            self._pages[page] = self._pages[page].copy()
            self._frozen[page] = None

    def snapshot(self) -> Column:
        """The same column, held still; O(pages)."""
        still = Column()
        self.freeze()
        still._pages, still._frozen = list(self._pages), list(self._frozen)
        return still

    def freeze(self) -> list[Page]:
        """The pages as they are now; later writes go to copies."""
        for number, page in enumerate(self._frozen):
            if page is None:
                self._frozen[number] = _page(self._pages[number])
        return [page for page in self._frozen if page is not None]

    def load(self, content: bytes) -> None:
        """See `scheduler.state.paged.Section`."""
        if len(content) != PAGE_ROWS * 8:
            raise ValueError(f"a page of a column has {len(content)} bytes instead of {PAGE_ROWS * 8}")
        values = np.frombuffer(content, dtype="<i8").astype(np.int64)
        self._pages.append(values)
        self._frozen.append(_page(values, content))

    def encode_anew(self) -> None:
        """See `scheduler.state.paged.Section`; integers are always written alike."""


def _page(values: Int64s, content: bytes | None = None) -> Page:
    return Page(lambda: values.astype("<i8", copy=False).tobytes(), content)


class Table:
    """Columns that share their rows, with reuse of freed rows (lowest-freed last, a stack).

    The column `row_generation` counts how often a row was given back: a row number alone names
    nothing for longer than its generation.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.columns: dict[str, Column] = {name: Column() for name in (*names, GENERATION)}
        self.rows = 0
        self._free: list[int] = []

    def new_row(self) -> int:
        """A row of zeros."""
        if self._free:
            return self._free.pop()
        row = self.rows
        self.rows += 1
        if row % PAGE_ROWS == 0:
            for column in self.columns.values():
                column.grow(row + 1)
        return row

    def free_row(self, row: int) -> None:
        """Give a row back; its values become 0."""
        for name, column in self.columns.items():
            column[row] = column[row] + 1 if name == GENERATION else 0
        self._free.append(row)

    def free_many(self, rows: Int64s) -> None:
        """`free_row` for each of `rows`, in their order."""
        for name, column in self.columns.items():
            if name == GENERATION:
                column.add(rows, 1)
            else:
                column.scatter(rows, 0)
        self._free.extend(rows.tolist())

    def rows_used(self) -> int:
        """How many rows are taken."""
        return self.rows - len(self._free)

    def free_rows(self) -> int:
        """How many rows were given back and not taken again."""
        return len(self._free)

    def snapshot(self) -> Table:
        """The same table, held still; O(pages)."""
        still = Table(())
        still.columns = {name: column.snapshot() for name, column in self.columns.items()}
        still.rows, still._free = self.rows, self._free.copy()
        return still

    def sections(self, name: str) -> dict[str, Section]:
        """The parts of this table, under names that begin with `name`."""
        rows: Value[tuple[int, tuple[int, ...]]] = Value(
            tuple[int, tuple[int, ...]], lambda: (self.rows, tuple(self._free)), self._put_rows
        )
        return {f"{name}/rows": rows} | {f"{name}/{column}": self.columns[column] for column in self.columns}

    def settle(self) -> None:
        """After loading: make room in columns that the frozen state did not have, and check the others."""
        pages = (self.rows + PAGE_ROWS - 1) // PAGE_ROWS
        for name, column in self.columns.items():
            if column.pages() not in (0, pages):
                raise ValueError(f"column {name} has {column.pages()} pages, its table {pages}")
            column.grow(self.rows)

    def _put_rows(self, value: tuple[int, tuple[int, ...]]) -> None:
        self.rows, free = value
        self._free = list(free)
        if any(not 0 <= row < self.rows for row in free):
            raise ValueError("a free row is outside of its table")
