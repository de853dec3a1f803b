"""String helpers against ONNX's backend cases and ONNX Runtime."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import text
from runtime.node_models import cases_of, check, ort_answer, run_cases

STRING = TensorProto.STRING


def words(*values: object) -> np.ndarray:
    return np.array(values, dtype=object)


def tf_idf(x: object, a: dict) -> torch.Tensor:
    pool = a["pool_strings"] if "pool_strings" in a else torch.tensor(a["pool_int64s"])
    weights = torch.tensor(a["weights"]) if "weights" in a else None
    names = ["mode", "ngram_counts", "min_gram_length", "max_gram_length", "max_skip_count"]
    return text.tf_idf_vectorizer(
        x,
        pool,
        torch.tensor(a["ngram_indexes"]),
        weights,
        size=max(a["ngram_indexes"]) + 1,
        **{n: a[n] for n in names},
    )


@pytest.mark.parametrize("case", cases_of("StringNormalizer"))
def test_string_normalizer(case: TestCase) -> None:
    run_cases(case, lambda x, a: [text.string_normalizer(*x, **a)])


@pytest.mark.parametrize("case", cases_of("StringConcat"))
def test_string_concat(case: TestCase) -> None:
    run_cases(case, lambda x, a: [text.string_concat(*x)])


@pytest.mark.parametrize("case", cases_of("StringSplit"))
def test_string_split(case: TestCase) -> None:
    run_cases(case, lambda x, a: list(text.string_split(*x, **a)))


@pytest.mark.parametrize("case", cases_of("RegexFullMatch"))
def test_regex_full_match(case: TestCase) -> None:
    run_cases(case, lambda x, a: [text.regex_full_match(*x, **a)])


@pytest.mark.parametrize("case", cases_of("TfIdfVectorizer"))
def test_tf_idf_vectorizer(case: TestCase) -> None:
    run_cases(case, lambda x, a: [tf_idf(*x, a)])


@pytest.mark.parametrize("case", [c for c in cases_of("Equal") if "string" in c.id])
def test_string_equal(case: TestCase) -> None:
    run_cases(case, lambda x, a: [text.string_equal(*x)])


def test_string_equal_broadcasts_and_takes_scalars() -> None:
    check(text.string_equal(words("a", "b"), words("b")), np.array([False, True]))
    check(
        text.string_equal(np.array("a", dtype=object), np.array("a", dtype=object)), np.array(True)
    )


@pytest.mark.parametrize("delimiter", [None, "", " ", "--", "a"])
@pytest.mark.parametrize("maxsplit", [None, 0, 1, 2])
def test_split_against_onnx_runtime(delimiter: str | None, maxsplit: int | None) -> None:
    x = words(["a b  c", " lead", ""], ["x--y--", "aaa", " two words  "])
    attrs = {"delimiter": delimiter, "maxsplit": maxsplit}
    attrs = {k: v for k, v in attrs.items() if v is not None}
    expected = ort_answer(
        "StringSplit",
        [x],
        outputs=2,
        domain="",
        version=20,
        types=[helper.make_tensor_type_proto(STRING, x.shape)],
        **attrs,
    )
    for actual, answer in zip(text.string_split(x, **attrs), expected, strict=True):
        check(actual, answer)


PATTERNS = [
    r"a.c",
    r"[[:alpha:]]+\d*",
    r"[^[:space:]]+",
    r"\w+",
    r"\Qa.c\E|x",
    r"a(?i)BC|X",
    r"(?P<first>a)(?:b|c)\z",
    r"(?<first>a)bc",
    r"[]a]+",
    r"[\]b^]*",
    r"(a(?i)b)C|\x{61}bc",
    r"(?s).*",
    r"a$",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regex_against_onnx_runtime(pattern: str) -> None:
    x = words(
        "abc", "a.c", "aBC", "ABC", "x", "X", "", "é", "abc1", "٣", "]a", "b^]", "a\nc", "a\n"
    )
    types = [helper.make_tensor_type_proto(STRING, x.shape)]
    (expected,) = ort_answer(
        "RegexFullMatch", [x], domain="", version=20, types=types, pattern=pattern
    )
    check(text.regex_full_match(x, pattern=pattern), expected)


@pytest.mark.parametrize("locale", ["C", "C.utf8"])
@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("stopwords", [[], ["Monday", "ÉTÉ"], ["monday", "été", "x"]])
def test_normalizer_against_onnx_runtime(
    locale: str, action: str, sensitive: int, stopwords: list[str]
) -> None:
    x = words("Monday", "MONDAY", "été", "Straße", "İIıiÿµŉǅ", "ΣΑΣ", "")
    attrs = {"case_change_action": action, "is_case_sensitive": sensitive, "locale": locale}
    if stopwords:
        attrs["stopwords"] = stopwords
    types = [helper.make_tensor_type_proto(STRING, x.shape)]
    (expected,) = ort_answer("StringNormalizer", [x], domain="", version=10, types=types, **attrs)
    check(text.string_normalizer(x, **attrs), expected)


def test_normalizer_knows_turkish() -> None:
    x = words("Iİ", "iı")
    lower = text.string_normalizer(x, case_change_action="LOWER", locale="tr_TR.UTF-8")
    upper = text.string_normalizer(x, case_change_action="UPPER", locale="tr_TR.UTF-8")
    assert lower.tolist() == ["ıi", "iı"]
    assert upper.tolist() == ["Iİ", "İI"]


def test_normalizer_leaves_one_empty_string() -> None:
    x = words(["a", "b"])
    assert text.string_normalizer(x, stopwords=["a", "B"]).tolist() == [[""]]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("kind", ["int64", "int32", "string"])
@pytest.mark.parametrize("lengths", [(1, 1, 0), (1, 3, 2), (2, 3, 1), (2, 2, 5)])
@pytest.mark.parametrize("shape", [(9,), (3, 7), (2, 1)])
def test_tf_idf_against_onnx_runtime(
    mode: str, kind: str, lengths: tuple[int, int, int], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(sum(lengths) + len(shape))
    grams = [np.unique(rng.integers(0, 5, (9, n)), axis=0)[rng.permutation(3)] for n in (1, 2, 3)]
    pool = np.concatenate([g.reshape(-1) for g in grams])
    count = sum(map(len, grams))
    x = rng.integers(0, 7, shape)
    attrs = {
        "mode": mode,
        "min_gram_length": lengths[0],
        "max_gram_length": lengths[1],
        "max_skip_count": lengths[2],
        "ngram_counts": [0, len(grams[0]), len(grams[0]) + 2 * len(grams[1])],
        "ngram_indexes": rng.permutation(count).tolist(),
        "weights": rng.random(count).round(2).tolist(),
    }
    types = None
    if kind == "string":
        attrs["pool_strings"] = pool.astype(str).tolist()
        x = x.astype(str).astype(object)
        types = [helper.make_tensor_type_proto(STRING, shape)]
    else:
        attrs["pool_int64s"] = pool.tolist()
        x = x.astype(kind)
    (expected,) = ort_answer("TfIdfVectorizer", [x], domain="", version=9, types=types, **attrs)
    check(tf_idf(x if kind == "string" else torch.from_numpy(x), attrs), expected)


def test_tf_idf_of_an_empty_row() -> None:
    out = text.tf_idf_vectorizer(
        torch.zeros(2, 0, dtype=torch.int64),
        torch.tensor([1, 2]),
        torch.tensor([0, 1]),
        mode="TF",
        ngram_counts=[0],
        min_gram_length=1,
        max_gram_length=1,
        max_skip_count=0,
        size=2,
    )
    assert out.tolist() == [[0, 0], [0, 0]]
