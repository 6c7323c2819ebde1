"""A hash of strings, computed over whole Arrow columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WORD = 8
_WHOLE_BYTES_MAX = 512
"""Of a longer string its first and its last half of so many bytes are hashed, and its length."""
_M1, _M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_S33, _S29 = np.uint64(33), np.uint64(29)


class IdHash:
    """A 64-bit hash of strings, never 0, with a secret of its own: who sends ids cannot make them collide.

    A string is read as 8-byte words, the last one filled with zeros. Each word goes through the finaliser of
    MurmurHash3 (A. Appleby, public domain), with a random key for its place; the results are added up.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        keys = (rng or np.random.default_rng()).integers(1, 1 << 63, 1 + _WHOLE_BYTES_MAX // _WORD, np.uint64)
        self._length_key = keys[0] | np.uint64(1)
        self._keys = keys[1:]
        self._of_nothing = _mixed(self._keys.copy())

    def of(self, strings: pa.Array) -> np.ndarray:
        """The hash of each string (uint64); `strings` is a string array without nulls."""
        lengths = np.asarray(pc.binary_length(strings))
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > _WHOLE_BYTES_MAX:
            strings, longest = _ends(strings), _WHOLE_BYTES_MAX
        sums = lengths.astype(np.uint64) * self._length_key
        words = _words(strings, longest)
        for place in range(words.shape[1]):
            # A word of zeros adds nothing: how far the others of the batch reach must not matter.
            sums += _mixed(words[:, place] ^ self._keys[place]) - self._of_nothing[place]
        hashes = _mixed(sums)
        hashes[hashes == 0] = 1
        return hashes


def _mixed(words: np.ndarray) -> np.ndarray:
    words ^= words >> _S33
    words *= _M1
    words ^= words >> _S29
    words *= _M2
    words ^= words >> _S33
    return words


def _words(strings: pa.Array, longest: int) -> np.ndarray:
    """The strings as rows of 8-byte words, filled with zeros."""
    width = max(1, -(-longest // _WORD))
    padded = pc.ascii_rpad(strings, width=width * _WORD, padding="\0")
    return np.frombuffer(padded.buffers()[2], np.uint64, len(strings) * width).reshape(len(strings), width)


def _ends(strings: pa.Array) -> pa.Array:
    """Begin and end of each string, as far as they are hashed."""
    half = _WHOLE_BYTES_MAX // 2
    data = strings.cast(pa.binary())
    ends = pc.binary_join_element_wise(
        pc.binary_slice(data, 0, half), pc.binary_slice(data, -half, None), pa.scalar(b"", pa.binary())
    )
    # Cut in the middle of a character it is no text, but nothing here reads it as such.
    return ends.view(pa.string())
