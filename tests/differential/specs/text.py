"""Strings."""

from typing import Any

import numpy as np

from ..draw import Draw, Node
from ..engine import Row


def words(d: Draw, shape: tuple[int, ...], *parts: str) -> Any:
    """Strings of up to four of the parts each."""
    out = np.empty(shape, object)
    flat = ["".join(d.pick(*parts) for _ in range(d.integer(0, 4))) for _ in range(out.size)]
    out.reshape(-1)[:] = flat
    return out


def concat(d: Draw) -> Node:
    return Node([d.x(shape, "T") for shape in d.broadcast(2)])


def split(d: Draw) -> Node:
    x = words(d, tuple(d.integer(1, 3) for _ in range(d.integer(0, 2))), "a", "bc", ",", " ", "::")
    return Node([x], d.attrs(delimiter=["", ",", "::", " ", "a"], maxsplit=[1, 2, 5]), 2)


def match(d: Draw) -> Node:
    patterns = ["a+b*", "[a-c]+", "", ".*", "a|b|ab", r"\d+", r"\w+@\w+", "(ab)*", "a.c", "é+"]
    x = words(d, d.shape(0, 2), "a", "b", "ab", "1", "@", "é", "c")
    return Node([x], {"pattern": d.pick(*patterns)})


def tf_idf(d: Draw) -> Node:
    text = d.chance(0.4)
    ones, twos = [2, 3, 5, 4], [5, 6, 7, 8, 6, 7]
    pool = ones + twos
    attrs: dict[str, Any] = {
        "min_gram_length": d.pick(1, 2),
        "max_gram_length": 2,
        "max_skip_count": d.integer(0, 3),
        "mode": d.pick("TF", "IDF", "TFIDF"),
        "ngram_counts": [0, 4],
        "ngram_indexes": [int(i) for i in d.rng.permutation(7)],
    }
    attrs |= {"pool_strings": [str(p) for p in pool]} if text else {"pool_int64s": pool}
    if d.chance(0.5):
        attrs["weights"] = [float(w) for w in d.rng.integers(1, 9, 7)]
    shape = (d.integer(2, 9),) if d.chance(0.5) else (d.integer(1, 3), d.integer(2, 9))
    x = d.rng.integers(2, 9, shape).astype(d.pick("int32", "int64"))
    return Node([x.astype(str).astype(object) if text else x], attrs)


ROWS = {
    "StringConcat": Row(concat),
    "StringSplit": Row(split),
    "RegexFullMatch": Row(match),
    "TfIdfVectorizer": Row(tf_idf),
}
