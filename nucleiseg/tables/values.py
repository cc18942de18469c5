"""The hash of a table's values, by which earlier versions knew partial tables."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def hash_values(table: pa.Table) -> str:
    """SHA-256 over names, types and values, the same however they lie in memory.

    Parameters
    ----------
    table : Table
        Of integers, floats, text and bytes, with or without nulls.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        array = column.combine_chunks()
        n_null = array.null_count
        digest.update(f"{field.name} {field.type} {len(array)} {n_null}\n".encode())
        # Not with the functions of pyarrow.compute: a call takes ten times as long as
        # what it does to some hundred values.
        is_valid = None
        if n_null:
            is_valid = _unpack_validity(array)
            digest.update(np.packbits(is_valid).data)
        if len(array) == n_null:
            continue
        if pa.types.is_primitive(field.type):
            values = np.frombuffer(array.buffers()[1], field.type.to_pandas_dtype())
            values = values[array.offset : array.offset + len(array)]
            digest.update((values if is_valid is None else values[is_valid]).data)
        else:
            _hash_texts(digest, array, is_valid)
    return digest.hexdigest()


def _unpack_validity(array: pa.Array) -> NDArray[np.bool_]:
    first, last = array.offset, array.offset + len(array)
    octets = np.frombuffer(array.buffers()[0], np.uint8)[first // 8 : -(-last // 8)]
    bits = np.unpackbits(octets, bitorder="little")[first % 8 :]
    return bits[: len(array)].view(np.bool_)


def _hash_texts(
    digest: "hashlib._Hash", array: pa.Array, is_valid: NDArray[np.bool_] | None
) -> None:
    """Add the lengths of texts or bytes that are not null, and then all of them."""
    lengths, values = _read_texts(array)
    if is_valid is not None:
        if lengths[~is_valid].any():
            # What lies under a null is anybody's guess.
            lengths, values = _read_texts(array.drop_null())
        else:
            lengths = lengths[is_valid]
    digest.update(lengths.data)
    digest.update(values)


def _read_texts(array: pa.Array) -> tuple[NDArray[Any], pa.Buffer]:
    _, places, values = array.buffers()
    is_large = pa.types.is_large_binary(array.type)
    ends = np.frombuffer(places, dtype=np.int64 if is_large else np.int32)
    ends = ends[array.offset : array.offset + len(array) + 1]
    if values is None:
        values = pa.py_buffer(b"")
    return np.diff(ends), values[int(ends[0]) : int(ends[-1])]
