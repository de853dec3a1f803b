"""ONNX operators on strings: string tensors are numpy object arrays of str, torch has none."""

import re

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.indexing import unique_values


def string_array(values: list[str]) -> np.ndarray:
    """A one-dimensional string tensor from a list; an object array, so that lengths stay free."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def string_pick(values: list[str], index: Tensor) -> np.ndarray:
    """`values[index]` as a string tensor of `index`'s shape; torch cannot index strings."""
    picked = string_array(values)[index.cpu().numpy()]
    return np.asarray(picked, dtype=object)


def string_places(x: np.ndarray, *before: np.ndarray) -> Tensor:
    """Numbers for the elements of strings, counted from 1 on after those of `before`."""
    first = 1 + sum(np.size(other) for other in before)
    return torch.arange(first, first + np.size(x)).reshape(np.shape(x))


def strings_at(places: Tensor, *strings: np.ndarray) -> np.ndarray:
    """The strings whose numbers these are, "" for 0: torch moves numbers, not strings."""
    parts = [np.asarray(x, dtype=object).reshape(-1) for x in strings]
    pool = np.concatenate([np.array([""], dtype=object), *parts])
    return np.asarray(pool[places.cpu().numpy()], dtype=object)


def string_unique(
    x: np.ndarray, *, axis: int | None = None, sorted: int = 1
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """ONNX Unique on strings, by their rank among each other: torch orders numbers only."""
    words, rank = np.unique(np.asarray(x, dtype=str), return_inverse=True)
    codes = torch.from_numpy(rank.reshape(np.shape(x)).astype(np.int64))
    values, first, inverse, counts = unique_values(codes, axis=axis, sorted=sorted)
    return string_pick(words.tolist(), values), first, inverse, counts


def string_index(x: np.ndarray, keys: list[str]) -> Tensor:
    """The first position of each string of `x` in `keys`, len(keys) where it is none of them."""
    table: dict[str, int] = {}
    for position, key in enumerate(keys):
        table.setdefault(key, position)
    found = [table.get(s, len(keys)) for s in x.reshape(-1).tolist()]
    return torch.tensor(found, dtype=torch.int64).reshape(x.shape)


def string_equal(x: np.ndarray, y: np.ndarray) -> Tensor:
    """ONNX Equal on strings, with broadcasting; torch has no strings."""
    return torch.from_numpy(np.asarray(np.equal(x, y), dtype=bool))


def string_concat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """ONNX StringConcat: x + y elementwise with broadcasting; torch has no strings."""
    return np.asarray(np.add(x, y), dtype=object)


def string_split(
    x: np.ndarray, *, delimiter: str | None = None, maxsplit: int | None = None
) -> tuple[np.ndarray, Tensor]:
    """ONNX StringSplit: pieces padded with "" along a new last axis, and their counts."""
    limit = -1 if maxsplit is None else maxsplit
    words = x.reshape(-1).tolist()
    if delimiter:
        pieces = [
            s.split(delimiter, limit) if s else [] for s in words
        ]  # "" has no piece
    else:
        pieces = [s.strip().split(None, limit) for s in words]
    counts = [len(p) for p in pieces]
    width = max(counts, default=0)
    padded = string_array([s for p in pieces for s in p + [""] * (width - len(p))])
    return (
        padded.reshape(*x.shape, width),
        torch.tensor(counts, dtype=torch.int64).reshape(x.shape),
    )


def change_case(text: str, action: str, locale: str) -> str:
    """Maps characters one by one, as C's towlower and towupper do in `locale`."""
    language = re.split(r"[_.@-]", locale)[0].lower()
    if action == "NONE":
        return text
    if locale in ("C", "POSIX"):
        kept = [c.lower() if action == "LOWER" else c.upper() for c in text]
        return "".join(k if c.isascii() else c for c, k in zip(text, kept, strict=True))
    if language in ("tr", "az"):
        text = text.replace("I", "ı") if action == "LOWER" else text.replace("i", "İ")
    if action == "LOWER":
        return "".join(c.lower()[0] for c in text)
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in text)


def string_normalizer(
    x: np.ndarray,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "en_US.UTF-8",
    stopwords: list[str] | None = None,
) -> np.ndarray:
    """ONNX StringNormalizer on [C] or [1, C]: drops stop words, changes case; else one ""."""
    words: list[str] = x.reshape(-1).tolist()
    if stopwords and is_case_sensitive:
        drop = set(stopwords)
        words = [w for w in words if w not in drop]
    elif stopwords:
        fold = "UPPER" if case_change_action == "UPPER" else "LOWER"
        drop = {change_case(w, fold, locale) for w in stopwords}
        words = [w for w in words if change_case(w, fold, locale) not in drop]
    words = [change_case(w, case_change_action, locale) for w in words] or [""]
    return string_array(words).reshape(*x.shape[:-1], len(words))


def posix_class(name: str) -> str | None:
    """What stands inside brackets for a class of POSIX, None where there is none of the name."""
    return {
        "alnum": "0-9A-Za-z",
        "alpha": "A-Za-z",
        "ascii": "\\x00-\\x7f",
        "blank": "\\t ",
        "cntrl": "\\x00-\\x1f\\x7f",
        "digit": "0-9",
        "graph": "!-~",
        "lower": "a-z",
        "print": " -~",
        "punct": "!-/:-@\\[-`{-~",
        "space": "\\t\\n\\v\\f\\r ",
        "upper": "A-Z",
        "word": "0-9A-Za-z_",
        "xdigit": "0-9A-Fa-f",
    }.get(name)


def regex_escape(m: re.Match[str]) -> str | None:
    """Python's form of a quotation, a code or an escape of RE2; None for all else."""
    if m["quoted"] is not None:
        return re.escape(m["quoted"])
    if m["code"]:
        return re.escape(chr(int(m["code"], 16)))
    if m["escape"]:
        return "\\Z" if m["escape"] == "\\z" else m["escape"]
    return None


def regex_in_class(m: re.Match[str], out: list[str]) -> str:
    """Python's form of what stands inside brackets, after `out`."""
    text = m.group()
    if m["posix"]:
        return posix_class(m["posix"]) or text
    if text == "^" and out[-1] == "[":
        out[-1] = "[^"
        return ""
    return "\\[" if text == "[" else text


def regex_in_groups(m: re.Match[str], open_flags: list[list[str]]) -> str:
    """Python's form of what opens, parts and closes groups; of each open one, the flags inside."""
    text = m.group()
    if m["flags"]:
        open_flags[-1].append(text[:-1] + ":")
        return text[:-1] + ":"
    if m["name"] or text == "(":
        open_flags.append([])
        return "(?P<" if m["name"] else text
    if text == "|":
        return ")" * len(open_flags[-1]) + "|" + "".join(open_flags[-1])
    if text == ")" and len(open_flags) > 1:
        return ")" + ")" * len(open_flags.pop())
    return text


def python_regex(pattern: str) -> str:
    """Rewrites RE2 syntax as Python's: POSIX classes, \\z, \\Q..\\E, flags set inside a group."""
    token = re.compile(
        r"\\Q(?P<quoted>.*?)(?:\\E|$)|\\x\{(?P<code>[0-9A-Fa-f]+)\}|(?P<escape>\\.)"
        r"|\[:(?P<posix>\w+):\]|(?P<flags>\(\?[imsU]*(?:-[imsU]+)?\))|(?P<name>\(\?<(?![=!]))|(?P<one>.)",
        re.DOTALL,
    )
    out: list[str] = []
    open_flags: list[list[str]] = [[]]
    in_class = False
    for m in token.finditer(pattern):
        text = regex_escape(m)
        if text is None and in_class:
            in_class = m.group() != "]" or out[-1] in ("[", "[^")
            text = regex_in_class(m, out)
        elif text is None:
            in_class = m.group() == "["
            text = regex_in_groups(m, open_flags)
        if text:
            out.append(text)
    return "".join(out) + ")" * len(open_flags[0])


def regex_full_match(x: np.ndarray, *, pattern: str) -> Tensor:
    """ONNX RegexFullMatch, whose patterns are RE2's: \\w, \\d, \\s and \\b mean ASCII."""
    matcher = re.compile(python_regex(pattern), re.ASCII)
    found = [matcher.fullmatch(s) is not None for s in x.reshape(-1).tolist()]
    return torch.tensor(found, dtype=torch.bool).reshape(x.shape)


def find_sorted(table: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of `x` in the ascending `table` (not empty), and where it is there at all."""
    position = torch.searchsorted(table, x.contiguous()).clamp(max=table.shape[0] - 1)
    return position, table[position] == x


def tf_idf_vectorizer(
    x: Tensor | np.ndarray,
    pool: Tensor | list[str],
    ngram_indexes: Tensor,
    weights: Tensor | None = None,
    *,
    mode: str,
    ngram_counts: list[int],
    min_gram_length: int,
    max_gram_length: int,
    max_skip_count: int,
    size: int,
) -> Tensor:
    """ONNX TfIdfVectorizer: how often each n-gram of `pool` occurs in a row; `size` columns.

    x: [C] or [B, C], integers or strings; returns float32 [size] or [B, size]. Each n-gram is
    numbered through its prefixes, so that a look-up is a binary search for all windows at once.
    """
    if isinstance(pool, list):
        words = string_array(pool)
        tokens = string_index(np.asarray(x, dtype=object), pool)
        entries = string_index(words, pool)
    else:
        tokens, entries = torch.as_tensor(x).to(torch.int64), pool.to(torch.int64)
    device = ngram_indexes.device
    rows = tokens.to(device) if tokens.dim() == 2 else tokens.to(device).reshape(1, -1)
    entries = entries.to(device)
    counts = torch.zeros(rows.shape[0], size, device=device)
    first_ngram = 0
    for n, begin in enumerate(ngram_counts, start=1):
        end = ngram_counts[n] if n < len(ngram_counts) else entries.shape[0]
        grams = entries[begin:end].reshape(-1, n)
        first, first_ngram = first_ngram, first_ngram + grams.shape[0]
        if not grams.shape[0] or not min_gram_length <= n <= max_gram_length:
            continue
        for stride in range(1, 2 + (max_skip_count if n > 1 else 0)):
            width = rows.shape[1] - (n - 1) * stride
            if width <= 0:
                break
            vocabulary, key = torch.unique(grams[:, 0], return_inverse=True)
            number, known = find_sorted(vocabulary, rows[:, :width])
            for j in range(1, n):
                vocabulary, token = torch.unique(grams[:, j], return_inverse=True)
                column, there = find_sorted(
                    vocabulary, rows[:, j * stride : j * stride + width]
                )
                prefix = vocabulary.shape[0]
                vocabulary, key = torch.unique(
                    key * prefix + token, return_inverse=True
                )
                number, found = find_sorted(vocabulary, number * prefix + column)
                known = known & there & found
            ngram = torch.zeros_like(key).scatter(
                0, key, torch.arange(len(key), device=device)
            )
            hit = first + ngram[number]
            gain = known.to(counts.dtype)
            if mode == "TFIDF" and weights is not None:
                gain = gain * weights[hit]
            counts = counts.scatter_add(1, ngram_indexes[hit], gain)
    if mode == "IDF":
        counts = (counts > 0).to(counts.dtype)
        if weights is not None:
            counts = counts * weights.new_zeros(size).scatter(0, ngram_indexes, weights)
    return counts if tokens.dim() == 2 else counts[0]


def longest_match(
    regex: re.Pattern[str], text: str, start: int
) -> tuple[int, int] | None:
    """The leftmost match from `start` on, and of those there the longest; re takes the first."""
    found = regex.search(text, start)
    if found is None:
        return None
    ends = range(len(text), found.end(), -1)
    longer = (end for end in ends if regex.fullmatch(text, found.start(), end))
    return found.start(), next(longer, found.end())


def words_between(regex: re.Pattern[str], text: str, least: int) -> list[str]:
    """What lies between the matches of a separator, at least `least` characters of it."""
    words, start = [], 0
    while start <= len(text) and (found := longest_match(regex, text, start)):
        words.append(text[start : found[0]])
        # Where nothing was matched a character is passed over.
        start = found[1] if found[1] > found[0] else found[0] + 1
    return [word for word in [*words, text[start:]] if len(word) >= least]


def words_matching(regex: re.Pattern[str], text: str, least: int) -> list[str]:
    """The matches one after the other; after one that is too short the next may overlap it."""
    words, start = [], 0
    while start <= len(text) and (found := longest_match(regex, text, start)):
        if found[1] - found[0] >= max(least, 1):
            words.append(text[found[0] : found[1]])
            start = found[1]
        else:
            start = found[0] + 1
    return words


def words_of(
    text: str, separators: list[str] | None, tokenexp: str, least: int
) -> list[str]:
    """The words of a text: its characters, what separators leave, or what an expression matches."""
    if tokenexp == "." or separators == [""]:
        return list(text)
    if not separators:
        regex = re.compile(python_regex(tokenexp), re.ASCII)
        return words_matching(regex, text, least)
    words = [text]
    for separator in separators:
        regex = re.compile(python_regex(separator), re.ASCII)
        words = [w for part in words for w in words_between(regex, part, least)]
    return words


def tokenizer(
    x: np.ndarray,
    *,
    mincharnum: int,
    pad_value: str,
    mark: int,
    separators: list[str] | None = None,
    tokenexp: str = "",
) -> np.ndarray:
    """com.microsoft Tokenizer: the words of each string along a new last axis."""
    if x.size == 0:
        return x
    texts = x.reshape(-1).tolist()
    rows = [words_of(text, separators, tokenexp, mincharnum) for text in texts]
    longest = max(map(len, rows))
    if longest and mark:
        rows = [["\x02", *words, "\x03"] for words in rows]
        longest += 2
    cells = [
        [*words, *[pad_value] * (longest - len(words))] for words in rows if longest
    ]
    flat = string_array([word for words in cells for word in words])
    return flat.reshape(*x.shape, longest)
