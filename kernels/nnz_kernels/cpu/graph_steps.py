"""The loops of graph algorithms.

Places are unsigned where they are used as such: numba would look at the sign of each.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._prefetch import prefetch
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL

#: Vertices ahead whose rows are fetched, and of those the places of their rows.
_ROWS, _PLACES = np.uint64(8), np.uint64(16)


@numba.njit(**SERIAL)
def search(ptr, idx, levels, queue, seen, head, tail, edges):  # type: ignore[no-untyped-def]
    """Take vertices from the head of the queue, put whom they know at its tail.

    Rows come in no order that the processor could foresee, but the queue tells it.
    """
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    at, last = np.uint64(head), np.uint64(tail)
    while at < last and edges > 0:
        v = np.uint64(queue[at])
        prefetch(ptr, np.uint64(queue[min(at + _PLACES, last - one)]))
        soon = np.uint64(queue[min(at + _ROWS, last - one)])
        prefetch(idx, np.uint64(ptr[soon]))
        at += one
        depth = levels[v] + 1
        start, stop = np.uint64(ptr[v]), np.uint64(ptr[v + one])
        for p in range(start, stop):
            j = np.uint64(idx[p])
            word, bit = seen[j >> shift], one << (j & low)
            if word & bit == 0:
                seen[j >> shift] = word | bit
                levels[j] = depth
                queue[last] = j
                last += one
        edges -= 1 + np.int64(stop - start)
    return np.int64(at), np.int64(last)


@numba.njit(**SERIAL)
def _rise(heap, keys, places, at, v, key):  # type: ignore[no-untyped-def]
    """Put a vertex into the hole at a place of the heap, or above."""
    one, two = np.uint64(1), np.uint64(2)
    while at > np.uint64(0):
        above = (at - one) >> two
        if keys[above] <= key:
            break
        heap[at], keys[at] = heap[above], keys[above]
        places[np.uint64(heap[at])] = at
        at = above
    heap[at], keys[at] = v, key
    places[np.uint64(v)] = at


@numba.njit(**SERIAL)
def _sink(heap, keys, places, size):  # type: ignore[no-untyped-def]
    """Close the hole at the top with the last of the heap, which lies at *size*."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    key, at, first = keys[size], np.uint64(0), np.uint64(1)
    while first < size:
        child = first
        if first + three < size:  # compared in pairs, which does not branch
            a, b = keys[first], keys[first + one]
            c, d = keys[first + two], keys[first + three]
            left = first if a <= b else first + one
            right = first + two if c <= d else first + three
            child = left if min(a, b) <= min(c, d) else right
        else:
            for k in range(first + one, size):
                child = np.uint64(k) if keys[k] < keys[child] else child
        if keys[child] >= key:
            break
        heap[at], keys[at] = heap[child], keys[child]
        places[np.uint64(heap[at])] = at
        at = child
        first = (at << two) + one
    heap[at], keys[at] = heap[size], key
    places[np.uint64(heap[at])] = at


@numba.njit(**SERIAL)
def settle(ptr, idx, weights, distances, heap, keys, places, size, edges):  # type: ignore[no-untyped-def]
    """Return how many wait, and how many were settled."""
    settled, last = 0, np.uint64(size)
    zero, one = np.uint64(0), np.uint64(1)
    while last > zero and edges > 0:
        v, near = np.uint64(heap[zero]), keys[zero]
        last -= one
        settled += 1
        _sink(heap, keys, places, last)
        start, stop = np.uint64(ptr[v]), np.uint64(ptr[v + one])
        for p in range(start, stop):
            j = np.uint64(idx[p])
            far, old = near + weights[p], distances[j]
            if far < old:
                distances[j] = far
                at = np.uint64(places[j])
                if old == np.inf:
                    at = last
                    last += one
                _rise(heap, keys, places, at, j, far)
        edges -= 1 + np.int64(stop - start)
    return np.int64(last), settled


@numba.njit(**SERIAL)
def _root(parents, v):  # type: ignore[no-untyped-def]
    """Return the root of a tree, and halve the way to it."""
    above = parents[v]
    while np.uint64(above) != v:
        higher = parents[np.uint64(above)]
        parents[v] = higher
        v = np.uint64(higher)
        above = parents[v]
    return above


@numba.njit(**SERIAL)
def join(ptr, idx, parents, row, edges):  # type: ignore[no-untyped-def]
    rows = ptr.size - 1
    while row < rows and edges > 0:
        root = _root(parents, np.uint64(row))
        start = np.uint64(ptr[np.uint64(row)])
        stop = np.uint64(ptr[np.uint64(row + 1)])
        for p in range(start, stop):
            j = np.uint64(idx[p])
            if parents[j] == root:
                continue
            other = _root(parents, j)
            if other < root:
                parents[np.uint64(root)] = other
                root = other
            elif root < other:
                parents[np.uint64(other)] = root
        edges -= 1 + np.int64(stop - start)
        row += 1
    return row


@numba.njit(**SERIAL)
def labels(parents, out):  # type: ignore[no-untyped-def]
    """Number trees; what is above a vertex has a smaller number, so a label already."""
    count = 0
    for v in range(parents.size):
        above = np.uint64(parents[v])
        if above == np.uint64(v):
            out[v] = count
            count += 1
        else:
            out[v] = out[above]
    return count


@numba.njit(**SERIAL)
def ranks(degrees, starts, out):  # type: ignore[no-untyped-def]
    """Number vertices by degree; *starts* has room for all degrees, zeros at first."""
    for degree in degrees:
        starts[np.uint64(degree) + np.uint64(1)] += 1
    for d in range(1, starts.size):
        starts[d] += starts[d - 1]
    for v in range(degrees.size):
        degree = np.uint64(degrees[v])
        out[v] = starts[degree]
        starts[degree] += 1


@numba.njit(**SERIAL)
def orient(ptr, idx, rank, optr, oidx, marks):  # type: ignore[no-untyped-def]
    """Put each edge under its end of lower rank, once; return how many there are.

    *optr* is zeros at first, and *marks* -1.
    """
    rows, one = ptr.size - 1, np.uint64(1)
    for i in range(rows):
        for p in range(ptr[i], ptr[i + 1]):
            a, b = rank[i], rank[np.uint64(idx[np.uint64(p)])]
            low = np.uint64(min(a, b))
            optr[low + one] += a != b
    for k in range(rows):
        optr[k + 1] += optr[k]
    for i in range(rows):  # optr[k] ends where k's begin, then goes along
        for p in range(ptr[i], ptr[i + 1]):
            a, b = rank[i], rank[np.uint64(idx[np.uint64(p)])]
            if a != b:
                low = np.uint64(min(a, b))
                oidx[np.uint64(optr[low])] = max(a, b)
                optr[low] += 1
    kept, start = 0, 0
    for k in range(rows):  # optr[k] is where k's end
        stop = optr[k]
        optr[k] = kept
        for p in range(start, stop):
            j = oidx[np.uint64(p)]
            if marks[np.uint64(j)] != k:
                marks[np.uint64(j)] = k
                oidx[np.uint64(kept)] = j
                kept += 1
        start = stop
    optr[rows] = kept
    return kept


@numba.njit(**SERIAL)
def common(ptr, idx, first, last, marks):  # type: ignore[no-untyped-def]
    """Count pairs of neighbours that are neighbours; *marks* is bits, none set."""
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    total = np.uint64(0)
    for i in range(first, last):
        start, stop = np.uint64(ptr[i]), np.uint64(ptr[i + 1])
        for p in range(start, stop):
            j = np.uint64(idx[p])
            marks[j >> shift] |= one << (j & low)
        for p in range(start, stop):
            j = np.uint64(idx[p])
            for q in range(np.uint64(ptr[j]), np.uint64(ptr[j + one])):
                k = np.uint64(idx[q])
                total += marks[k >> shift] >> (k & low) & one
        for p in range(start, stop):
            marks[np.uint64(idx[p]) >> shift] = 0
    return np.int64(total)


@numba.njit(**PARALLEL)
def triangles(ptr, idx, bounds, marks, counts):  # type: ignore[no-untyped-def]
    """Count triangles by their first vertices; a chunk has a range, marks, a count."""
    for c in numba.prange(counts.size):
        counts[c] = common(ptr, idx, bounds[c], bounds[c + 1], marks[c])


@numba.njit(**SERIAL)
def turn(ptr, idx, cursor, out):  # type: ignore[no-untyped-def]
    """Put each row's number where *cursor*, which goes along, has each column."""
    for i in range(ptr.size - 1):
        for p in range(np.uint64(ptr[i]), np.uint64(ptr[i + 1])):
            j = np.uint64(idx[p])
            out[np.uint64(cursor[j])] = i
            cursor[j] += 1


@numba.njit(**SERIAL)
def follow(  # type: ignore[no-untyped-def]
    ptr, idx, weights, x, shares, damping, jump, block, first, last, out, changes
):
    """Make ranks of a step in blocks *first* to *last*; *changes* gets their sums."""
    one, weighted = np.uint64(1), weights.size > 0
    for b in range(first, last):
        change = 0.0
        end = min((b + 1) * block, x.size)
        for i in range(np.uint64(b * block), np.uint64(end)):
            total = 0.0
            start, stop = np.uint64(ptr[i]), np.uint64(ptr[i + one])
            if weighted:
                for p in range(start, stop):
                    total += weights[p] * shares[np.uint64(idx[p])]
            else:
                for p in range(start, stop):
                    total += shares[np.uint64(idx[p])]
            rank = damping * total + jump
            change += abs(rank - x[i])
            out[i] = rank
        changes[b] = change


@numba.njit(**PARALLEL)
def follow_together(  # type: ignore[no-untyped-def]
    ptr, idx, weights, x, shares, damping, jump, block, bounds, out, changes
):
    """The same by several threads; each has the blocks between two bounds."""
    for c in numba.prange(bounds.size - 1):
        follow(
            ptr, idx, weights, x, shares, damping, jump, block, bounds[c],
            bounds[c + 1], out, changes,
        )  # fmt: skip


def _entry(function: Any, pattern: str) -> Entry:
    """Describe a kernel; indices i of 64 bits are rare."""
    fixed = {
        "L": types.int64[::1],
        "D": types.float64[::1],
        "W": types.uint64[::1],
        "M": types.uint64[:, ::1],
        "N": types.int64,
        "d": types.float64,
    }
    often, rare = (
        tuple(fixed.get(letter, i[::1]) for letter in pattern)
        for i in (types.int32, types.int64)
    )
    return Entry(function, (often,), (rare,))


ENTRIES = (
    _entry(search, "iiLiWNNN"),
    _entry(settle, "iiDDiDiNN"),
    _entry(join, "iiiNN"),
    _entry(labels, "iL"),
    _entry(ranks, "LLi"),
    _entry(orient, "iiiiii"),
    _entry(common, "iiNNW"),
    _entry(triangles, "iiLML"),
    _entry(turn, "iiii"),
    _entry(follow, "iiDDDddNNNDD"),
    _entry(follow_together, "iiDDDddNLDD"),
)
