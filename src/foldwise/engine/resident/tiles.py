"""Matrix products whose sums stay in registers, for matrices that are small and in cache.

A product is cut into tiles of a few rows and one or two vectors of columns; a tile's sums are registers from its first
to its last term. The tiles are written in LLVM's own language, whose vectors it fits to any processor, because neither
a loop in Python nor BLAS reaches this for matrices of 32×32: the one is not cut into tiles, the other copies and checks
before it multiplies. Measured on 2 cores with AVX-512: 85 to 98 % of what the processor can do from 32×10×32 on.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as typed_intrinsic

Array = np.ndarray
Pointer = Any
"""The beginning of numbers in memory: see `memory`."""
intrinsic: Any = typed_intrinsic  # whose type does not know that the first argument is never given

WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
BYTES = 64 if WIDE else 32  # of a vector; processors with shorter ones take several registers for each
PADDING = 2 * BYTES // 4
"""How many numbers may be read behind the end of a matrix: arrays that are multiplied are longer by that many."""


def _tile(rows: int, vectors: int) -> Any:
    """Make a function that computes `rows` rows and `vectors` vectors of columns of out = left·right.

    Every address is a number of bytes and every step one of entries. Sums start from `start` (the same for all rows;
    0: from zero) or, with `adds`, from what is in `out`.
    """

    @intrinsic
    def tile(context, like, out, out_row, left, left_row, left_term, right, right_term, terms, start, adds):  # type: ignore[no-untyped-def]
        signature = types.void(like, *[types.intp] * 10)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, out, out_row, left, left_row, left_term, right, right_term, terms, start, adds = arguments
            size = signature.args[0].bitwidth // 8
            number, whole = context.get_value_type(signature.args[0]), ir.IntType(64)
            lanes = BYTES // size
            vector = ir.VectorType(number, lanes)
            every = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            nowhere, zero = ir.Constant(vector, ir.Undefined), ir.Constant(vector, None)
            tile_of = [(r, v) for r in range(rows) for v in range(vectors)]

            def constant(value: int) -> Any:
                return ir.Constant(whole, value)

            def address(base: Any, step: Any, row: int, vector: int = 0) -> Any:
                moved = builder.add(base, builder.mul(step, constant(row)))
                return builder.add(moved, constant(vector * BYTES))

            def load(kind: Any, place: Any) -> Any:
                return builder.load(builder.inttoptr(place, kind.as_pointer()), align=size)

            def spread(scalar: Any) -> Any:
                first = builder.insert_element(nowhere, scalar, ir.Constant(ir.IntType(32), 0))
                return builder.shuffle_vector(first, nowhere, every)

            out_row, left_row, left_term, right_term = (
                builder.mul(step, constant(size)) for step in (out_row, left_row, left_term, right_term)
            )
            blocks = [
                builder.append_basic_block(name) for name in ("from_start", "choose", "from_out", "begin")
            ]
            from_start, choose, from_out, begin = blocks
            builder.cbranch(builder.icmp_signed("!=", start, constant(0)), from_start, choose)
            builder.position_at_end(from_start)
            starts = [load(vector, builder.add(start, constant(v * BYTES))) for v in range(vectors)]
            builder.branch(begin)
            builder.position_at_end(choose)
            builder.cbranch(builder.icmp_signed("!=", adds, constant(0)), from_out, begin)
            builder.position_at_end(from_out)
            present = {(r, v): load(vector, address(out, out_row, r, v)) for r, v in tile_of}
            builder.branch(begin)
            builder.position_at_end(begin)
            first = {}
            for r, v in tile_of:
                first[r, v] = builder.phi(vector)
                first[r, v].add_incoming(starts[v], from_start)
                first[r, v].add_incoming(zero, choose)
                first[r, v].add_incoming(present[r, v], from_out)
            loop, done = builder.append_basic_block("term"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", terms, constant(0)), loop, done)
            builder.position_at_end(loop)
            count, at_left, at_right = (builder.phi(whole) for _ in range(3))
            sums = {place: builder.phi(vector) for place in tile_of}
            columns = [load(vector, builder.add(at_right, constant(v * BYTES))) for v in range(vectors)]
            added = {}
            for r in range(rows):
                factor = spread(load(number, address(at_left, left_row, r)))
                for v in range(vectors):
                    # `contract` makes one operation of the two where the processor has it
                    product = builder.fmul(factor, columns[v], flags=("contract",))
                    added[r, v] = builder.fadd(product, sums[r, v], flags=("contract",))
            following = builder.add(count, constant(1))
            for phi, initial, next_one in (
                (count, constant(0), following),
                (at_left, left, builder.add(at_left, left_term)),
                (at_right, right, builder.add(at_right, right_term)),
                *((sums[p], first[p], added[p]) for p in tile_of),
            ):
                phi.add_incoming(initial, begin)
                phi.add_incoming(next_one, loop)
            builder.cbranch(builder.icmp_signed("<", following, terms), loop, done)
            builder.position_at_end(done)
            for r, v in tile_of:
                result = builder.phi(vector)
                result.add_incoming(first[r, v], begin)
                result.add_incoming(added[r, v], loop)
                first[r, v] = result
            for r, v in tile_of:
                place = builder.inttoptr(address(out, out_row, r, v), vector.as_pointer())
                builder.store(first[r, v], place, align=size)
            return context.get_dummy_value()

        return signature, generate

    return tile


_8x2, _8x1 = _tile(8, 2), _tile(8, 1)
_4x2, _4x1 = _tile(4, 2), _tile(4, 1)
_1x2, _1x1 = _tile(1, 2), _tile(1, 1)


def _turn(share: int) -> Any:
    """Make a function that turns a square around whose side is a vector, or a `share` of one."""

    @intrinsic
    def turn(context, like, out, out_row, source, source_row):  # type: ignore[no-untyped-def]
        signature = types.void(like, *[types.intp] * 4)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, out, out_row, source, source_row = arguments
            size = signature.args[0].bitwidth // 8
            side = BYTES // size // share
            vector = ir.VectorType(context.get_value_type(signature.args[0]), side)

            def at(base: Any, row: Any, count: int) -> Any:
                step = builder.mul(row, ir.Constant(ir.IntType(64), count * size))
                return builder.inttoptr(builder.add(base, step), vector.as_pointer())

            def mixed(one: Any, other: Any, lanes: list[int]) -> Any:
                return builder.shuffle_vector(
                    one, other, ir.Constant(ir.VectorType(ir.IntType(32), side), lanes)
                )

            rows = [builder.load(at(source, source_row, r), align=size) for r in range(side)]
            step = 1
            while step < side:
                # squares of side 2·step: their upper right and lower left quarters change places
                for r in (r for r in range(side) if not r & step):
                    upper = [lane if not lane & step else side + lane - step for lane in range(side)]
                    lower = [lane + step if not lane & step else side + lane for lane in range(side)]
                    one, other = rows[r], rows[r + step]
                    rows[r], rows[r + step] = mixed(one, other, upper), mixed(one, other, lower)
                step *= 2
            for r in range(side):
                builder.store(rows[r], at(out, out_row, r), align=size)
            return context.get_dummy_value()

        return signature, generate

    return turn


_whole, _half = _turn(1), _turn(2)


@intrinsic
def memory(context, array):  # type: ignore[no-untyped-def]
    """Give the numbers of a flat array as a bare pointer, which the array must outlive.

    An index into an array may count from its end, and an array that is handed on is counted; either keeps loops from
    becoming vectors, or costs as much as a short loop.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind,) = signature.args
        return context.make_array(kind)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def number(context, pointer, value):  # type: ignore[no-untyped-def]
    """Give a value in the number type to which a pointer points."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], signature.args[1], signature.return_type)

    return pointer.dtype(pointer, value), generate


@intrinsic
def _address(context, pointer):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return types.intp(pointer), generate


@intrinsic
def _size(context, pointer):  # type: ignore[no-untyped-def]
    size = pointer.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), size)

    return types.intp(pointer), generate


# Compiling

HERE = Path(__file__).parent
FILES = [*sorted(HERE.glob("*.py")), HERE.parent / "random.py"]
SOURCES = sha256(b"".join(path.read_bytes() for path in FILES)).hexdigest()


def _can_be_kept() -> bool:
    """Tell whether there is a place on disk where numba may write."""
    try:
        njit(cache=True)(_can_be_kept)
    except RuntimeError:
        return False
    return True


def compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Give a decorator that compiles functions, which then run without Python's lock and divide as processors do.

    What is compiled is kept on disk. Numba compiles a function again when the file changed that it stands in, but not
    when one of those changed that it calls: here it does when any file of this engine did.
    """
    usual: Any = {"cache": KEPT, "nogil": True, "error_model": "numpy", "boundscheck": False}

    def compile_it(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**usual, **options)(function)
        if KEPT:
            dispatcher._cache._cache_file._source_stamp = SOURCES
        return dispatcher

    return compile_it


KEPT = _can_be_kept()
INSIDE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # what it takes to be called from Python
entrance = compiler()
"""For the functions that Python calls."""
compiled = compiler(**INSIDE)
"""For those that other compiled functions call."""
inlined = compiler(**INSIDE, inline="always")
"""For those that only one function calls: as a part of it, they take half the time to compile."""
summing = compiler(**INSIDE, fastmath={"reassoc", "contract"})
"""For sums whose terms may be added in any order."""


@compiled
def _one_tile(
    rows: int,
    wide: bool,
    like: Any,
    out: int,
    out_row: int,
    left: int,
    left_row: int,
    left_term: int,
    right: int,
    right_row: int,
    terms: int,
    start: int,
    adds: int,
) -> None:
    if wide:
        if rows == 8:
            _8x2(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)
        elif rows == 4:
            _4x2(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)
        else:
            _1x2(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)
    elif rows == 8:
        _8x1(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)
    elif rows == 4:
        _4x1(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)
    else:
        _1x1(like, out, out_row, left, left_row, left_term, right, right_row, terms, start, adds)


@compiled
def multiply(
    work: Pointer,
    out: int,
    out_row: int,
    left: int,
    left_row: int,
    left_term: int,
    right: int,
    right_row: int,
    start: int,
    rows: int,
    columns: int,
    terms: int,
) -> None:
    """Compute out = start + left·right: `[rows, terms]·[terms, columns]`, all of them parts of one memory.

    `out`, `left`, `right` and `start` say where a matrix begins; `row` and `term` how far it is from one row or term to
    the next; columns are neighbors. Those behind the last column of `right` are read too, and `out` is written up to a
    whole vector. `start` is what each row starts from; −1: from zero.
    """
    size = _size(work)
    lanes = BYTES // size
    base, like = _address(work), number(work, 0)
    for column in range(0, columns, 2 * lanes):
        a = base + left * size
        b = base + (right + column) * size
        c = base + (out + column) * size
        s = base + (start + column) * size if start >= 0 else 0
        wide = columns - column > lanes
        done = 0
        while done < rows:
            count = 8 if rows - done >= 8 else 4 if rows - done >= 4 else 1
            _one_tile(count, wide, like, c, out_row, a, left_row, left_term, b, right_row, terms, s, 0)
            done += count
            a += count * left_row * size
            c += count * out_row * size


@compiled
def add_product(
    work: Pointer,
    out: int,
    left: int,
    left_row: int,
    left_term: int,
    right: int,
    right_row: int,
    rows: int,
    columns: int,
    terms: int,
    side: int,
) -> None:
    """Compute out += left·right, where the rows of `out` follow each other without a gap; `side` is room for a tile."""
    size = _size(work)
    lanes = BYTES // size
    base, like = _address(work), number(work, 0)
    for column in range(0, columns, 2 * lanes):
        remaining = columns - column
        wide = remaining > lanes
        fits = remaining >= (2 * lanes if wide else lanes)
        a = base + left * size
        b = base + (right + column) * size
        done = 0
        while done < rows:
            count = 8 if rows - done >= 8 else 4 if rows - done >= 4 else 1
            place = out + done * columns + column
            if fits:
                c = base + place * size
                _one_tile(count, wide, like, c, columns, a, left_row, left_term, b, right_row, terms, 0, 1)
            else:
                c = base + side * size
                _one_tile(count, wide, like, c, 2 * lanes, a, left_row, left_term, b, right_row, terms, 0, 0)
                for r in range(count):
                    for j in range(remaining):
                        work[place + r * columns + j] += work[side + r * 2 * lanes + j]
            done += count
            a += count * left_row * size


@compiled
def turn_around(
    work: Pointer, out: int, out_row: int, source: int, source_row: int, rows: int, columns: int
) -> None:
    """Write a matrix `[rows, columns]` as `[columns, rows]`."""
    size, base, like = _size(work), _address(work), number(work, 0)
    lanes = BYTES // size
    r = 0
    while r < rows:
        side = lanes if rows - r >= lanes else lanes // 2 if rows - r >= lanes // 2 else 1
        c = 0
        while side > 1 and c + side <= columns:
            to = base + (out + c * out_row + r) * size
            if side == lanes:
                _whole(like, to, out_row, base + (source + r * source_row + c) * size, source_row)
            else:
                _half(like, to, out_row, base + (source + r * source_row + c) * size, source_row)
            c += side
        for j in range(c, columns):
            for i in range(r, r + side):
                work[out + j * out_row + i] = work[source + i * source_row + j]
        r += side


@compiled
def aligned(count: int, like: Array) -> Array:
    """Give zeros in the number type of an array, which begin where a line of the cache does."""
    held = np.zeros(count + BYTES, like.dtype)
    spare = -held.ctypes.data % BYTES // held.itemsize
    return held[spare : spare + count]
