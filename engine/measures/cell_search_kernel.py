"""The active cells of whole maps, in order: counted tile by tile, then written where they belong. Imported where
Triton is.

Two launches over the maps, and between them one number that the host may wait for: how many there are. That keeps them
in rising order, the same in each run, without a sort.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ndissect.engine.measures.fused_kernel import OPTIONS
from ndissect.engine.measures.map_tiles import cells_of_tile, first_of_tile, tiles_of
from ndissect.store.upsampling import Upsampling

_SIZES = ["count", "units", "h", "w", "down", "across", "room"]
_TABLES = ["maps", "limit", "in_tile", "until", "index", "corners"]


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_TABLES)  # type: ignore[untyped-decorator]
def count_active(  # type: ignore[no-untyped-def]
    maps,
    limit,
    in_tile,
    count,
    units,
    h,
    w,
    down,
    across,
    MAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ZERO: tl.constexpr,
):
    """Program i: how many cells of tile i are active, into ``in_tile`` (tiles,)."""
    tile = tl.program_id(0)
    first_map, first_row, first_col = first_of_tile(tile, down, across, MAPS, ROWS, COLS)
    _, _, _, _, _, _, _, active = cells_of_tile(
        maps, limit, count, units, h, w, first_map, first_row, first_col, MAPS, ROWS, COLS, ZERO
    )
    tl.store(in_tile + tile, tl.sum(active.to(tl.int32), 0))


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_TABLES)  # type: ignore[untyped-decorator]
def write_active(  # type: ignore[no-untyped-def]
    maps,
    limit,
    in_tile,
    until,
    index,
    corners,
    count,
    units,
    h,
    w,
    down,
    across,
    room,
    MAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ZERO: tl.constexpr,
):
    """Program i: the active cells of tile i into ``index`` and ``corners``, up to place ``until[i]``, within room."""
    tile = tl.program_id(0)
    some = tl.load(in_tile + tile)
    if some > 0:
        first_map, first_row, first_col = first_of_tile(tile, down, across, MAPS, ROWS, COLS)
        k, row, col, a, b, c, d, active = cells_of_tile(
            maps, limit, count, units, h, w, first_map, first_row, first_col, MAPS, ROWS, COLS, ZERO
        )
        place = tl.load(until + tile) - some + tl.cumsum(active.to(tl.int32), 0) - 1
        flat = k.to(tl.int64) * ((h + 1) * (w + 1)) + (row * (w + 1) + col)
        inside = active & (place < room)
        tl.store(index + place, flat.to(index.dtype.element_ty), mask=inside)
        tl.store(corners + place, a, mask=inside)
        tl.store(corners + room.to(tl.int64) + place, b, mask=inside)
        tl.store(corners + 2 * room.to(tl.int64) + place, c, mask=inside)
        tl.store(corners + 3 * room.to(tl.int64) + place, d, mask=inside)


def search(
    maps: Tensor, limit: Tensor, upsampling: Upsampling, room: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Index and corners, as Cells has them, of the cells of ``maps`` with a corner above ``limit``, and their count.

    With ``room`` there is place for so many, and the host does not wait: what is beyond the count is not written, and
    what is beyond the room is left out. Without, the host waits for the count, and there are as many.
    """
    N, U, h, w = maps.shape
    maps, limit, tiles = maps.contiguous(), limit.contiguous(), tiles_of(maps)
    form = {"ZERO": upsampling == "half-pixel-zero", **tiles.constants, **OPTIONS}
    sizes = N * U, U, h, w, tiles.down, tiles.across
    in_tile = torch.empty(tiles.count, dtype=torch.int32, device=maps.device)
    count_active[(tiles.count,)](maps, limit, in_tile, *sizes, **form)
    until = in_tile.cumsum(0)
    room = int(until[-1]) if room is None else room
    small = N * U * (h + 1) * (w + 1) < 2**31
    index = torch.empty(room, dtype=torch.int32 if small else torch.int64, device=maps.device)
    corners = torch.empty((4, room), dtype=torch.float32, device=maps.device)
    if room:
        write_active[(tiles.count,)](maps, limit, in_tile, until, index, corners, *sizes, room, **form)
    return index, corners, until[-1]
