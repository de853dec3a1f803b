"""ai.onnx.ml helpers against ONNX Runtime's answers to random nodes, and ONNX's backend cases."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import features, linear_models, tree_ensembles
from runtime.node_models import cases_of, check, ort_answer, run_cases, to_runtime

# Near 0 the closed form of probit cancels, so that its last digits are rounding errors.
PROBIT_ERROR = 1e-3
POST = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
FEATURES = 5


def random_forest(rng: np.random.Generator, trees: int, modes: list[str]) -> dict[str, list[Any]]:
    """Trees of uneven depth with half-integer thresholds, so that equality happens."""
    names = ["nodeids", "treeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"]
    nodes: dict[str, list[Any]] = {f"nodes_{n}": [] for n in names}

    def grow(tree: int, depth: int, at: int) -> int:
        rows = len(nodes["nodes_modes"])
        leaf = depth == 0 or (depth < 4 and rng.random() < 0.3)
        mode = "LEAF" if leaf else str(rng.choice(modes))
        row = [at, tree, int(rng.integers(FEATURES)), float(rng.integers(-3, 4)) / 2, mode, 0, 0]
        for name, value in zip(names, row, strict=True):
            nodes[f"nodes_{name}"].append(value)
        following = at + 1
        if not leaf:
            nodes["nodes_truenodeids"][rows] = following
            following = grow(tree, depth - 1, following)
            nodes["nodes_falsenodeids"][rows] = following
            following = grow(tree, depth - 1, following)
        return following

    for tree in range(trees):
        grow(tree, 5 if tree else 1, 0)
    return nodes


def random_leaves(
    rng: np.random.Generator, nodes: dict[str, list[Any]], prefix: str, targets: list[int]
) -> dict[str, list[Any]]:
    """Weights for all `targets` on each leaf."""
    out: dict[str, list[Any]] = {
        f"{prefix}_{n}": [] for n in ["treeids", "nodeids", "ids", "weights"]
    }
    for tree, node, mode in zip(
        nodes["nodes_treeids"], nodes["nodes_nodeids"], nodes["nodes_modes"], strict=True
    ):
        for target in targets if mode == "LEAF" else []:
            weight = float(np.float32(rng.normal() / 3))
            for name, value in zip(out, [tree, node, target, weight], strict=True):
                out[name].append(value)
    return out


def pack(attrs: dict[str, Any], prefix: str, n: int, dtype: torch.dtype = torch.float32) -> Any:
    return tree_ensembles.pack_forest(
        **{"nodes_missing_value_tracks_true": None}
        | {k: v for k, v in attrs.items() if k.startswith("nodes_")},
        leaf_treeids=attrs[f"{prefix}_treeids"],
        leaf_nodeids=attrs[f"{prefix}_nodeids"],
        leaf_targetids=attrs[f"{prefix}_ids"],
        leaf_weights=attrs[f"{prefix}_weights"],
        n_targets=n,
        dtype=dtype,
    )


def rows(rng: np.random.Generator, count: int, dtype: str, missing: bool = False) -> np.ndarray:
    x = rng.integers(-4, 5, (count, FEATURES)) / 2
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x.astype(dtype)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("post", POST)
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("base", [False, True])
def test_regressor(aggregate: str, post: str, targets: int, base: bool) -> None:
    rng = np.random.default_rng(targets)
    attrs: dict[str, Any] = random_forest(rng, 4, MODES[:1])
    attrs |= random_leaves(rng, attrs, "target", list(range(targets)))
    if post == "PROBIT":  # only probabilities have a probit
        attrs["target_weights"] = (rng.random(len(attrs["target_weights"])) / 5).tolist()
    if base:
        attrs["base_values"] = [0.125, 0.0, 0.25][:targets]
    x = rows(rng, 9, "float32")
    packed, depth, modes = pack(attrs, "target", targets)
    if base:
        packed["base_values"] = torch.tensor(attrs["base_values"])
    choice = {"n_targets": targets, "aggregate_function": aggregate, "post_transform": post}
    (expected,) = ort_answer("TreeEnsembleRegressor", [x], **attrs, **choice)
    y = tree_ensembles.tree_ensemble_regressor(
        torch.from_numpy(x), **packed, depth=depth, modes=modes, **choice
    )
    check(y, expected, 1e-4, PROBIT_ERROR if post == "PROBIT" else 1e-5)


@pytest.mark.parametrize("modes", [[m] for m in MODES] + [MODES], ids=lambda m: m[-1] + str(len(m)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("count", [1, 40])
def test_node_modes_and_missing_values(
    modes: list[str], dtype: str, missing: bool, count: int
) -> None:
    rng = np.random.default_rng(len(modes) + missing)
    attrs: dict[str, Any] = random_forest(rng, 9, modes)
    if missing:
        tracks = rng.integers(0, 2, len(attrs["nodes_modes"])).tolist()
        attrs["nodes_missing_value_tracks_true"] = tracks
    attrs |= random_leaves(rng, attrs, "target", [0, 1])
    x = rows(rng, count, dtype, missing and dtype.startswith("float"))
    packed, depth, used = pack(attrs, "target", 2)
    (expected,) = ort_answer("TreeEnsembleRegressor", [x], n_targets=2, **attrs)
    y = tree_ensembles.tree_ensemble_regressor(
        torch.from_numpy(x), **packed, depth=depth, modes=used, n_targets=2
    )
    check(y, expected)


def test_double_attributes() -> None:
    rng = np.random.default_rng(5)
    attrs: dict[str, Any] = random_forest(rng, 6, MODES[:1])
    attrs |= random_leaves(rng, attrs, "target", [0])
    attrs["nodes_values"] = rng.normal(size=len(attrs["nodes_values"])).tolist()
    attrs["target_weights"] = rng.normal(size=len(attrs["target_weights"])).tolist()
    x = rng.normal(size=(30, FEATURES))
    x[0] = attrs["nodes_values"][0]
    packed, depth, modes = pack(attrs, "target", 1, torch.float64)
    given = dict(attrs)
    for name in ["nodes_values", "target_weights"]:
        given[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(given.pop(name)), name)
    (expected,) = ort_answer("TreeEnsembleRegressor", [x], n_targets=1, **given)
    y = tree_ensembles.tree_ensemble_regressor(
        torch.from_numpy(x), **packed, depth=depth, modes=modes, n_targets=1
    )
    check(y, expected)


LABELS = {"ints": [10, 20, 5, 7], "strings": ["a", "b", "c", "d"]}


@pytest.mark.parametrize("post", POST)
@pytest.mark.parametrize("kind", ["ints", "strings"])
@pytest.mark.parametrize("classes", [[0], [1], [0, 1], [0, 1, 2], [0, 1, 3]])
@pytest.mark.parametrize("base", [0, 1, 2])
@pytest.mark.parametrize("positive", [False, True])
def test_classifier(post: str, kind: str, classes: list[int], base: int, positive: bool) -> None:
    n = max(2, max(classes) + 1)
    if n > 2 and base:
        base = n
    if post == "PROBIT" and not (positive and n > 2):
        pytest.skip("no probabilities, or a column that ONNX Runtime leaves unwritten")
    if base == 1 and len(classes) == 2 and positive:
        pytest.skip("the same as without positive weights")
    rng = np.random.default_rng(n)
    attrs: dict[str, Any] = random_forest(rng, 5, MODES[:1])
    attrs |= random_leaves(rng, attrs, "class", classes)
    if positive:
        attrs["class_weights"] = (rng.random(len(attrs["class_weights"])) / 6).tolist()
    name = "classlabels_int64s" if kind == "ints" else "classlabels_strings"
    attrs[name] = LABELS[kind][:n]
    packed, depth, modes = pack(attrs, "class", n)
    if base:
        attrs["base_values"] = (rng.random(base) / 8).round(3).tolist()
        packed["base_values"] = torch.tensor(attrs["base_values"])
    x = rows(rng, 12, "float32")
    expected = ort_answer("TreeEnsembleClassifier", [x], outputs=2, post_transform=post, **attrs)
    labels = LABELS[kind][:n]
    label, scores = tree_ensembles.tree_ensemble_classifier(
        torch.from_numpy(x),
        labels=torch.tensor(labels) if kind == "ints" else labels,
        **packed,
        depth=depth,
        modes=modes,
        binary=n == 2 and len(classes) == 1,
        all_positive=min(attrs["class_weights"]) >= 0,
        post_transform=post,
    )
    check(label, expected[0])
    check(scores, expected[1], 1e-4, PROBIT_ERROR if post == "PROBIT" else 1e-5)


@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
def test_one_class_per_tree(base: bool, dtype: str) -> None:
    """As gradient boosting does it: tree t votes for class t % 3 only, so some rows miss none."""
    rng = np.random.default_rng(3)
    attrs: dict[str, Any] = random_forest(rng, 9, MODES[:2])
    attrs |= random_leaves(rng, attrs, "class", [0])
    attrs["class_ids"] = [t % 3 for t in attrs["class_treeids"]]
    packed, depth, modes = pack(attrs, "class", 3)
    if base:
        attrs["base_values"] = [0.1, -0.2, 0.3]
        packed["base_values"] = torch.tensor(attrs["base_values"])
    x = rows(rng, 30, dtype)
    expected = ort_answer(
        "TreeEnsembleClassifier",
        [x],
        outputs=2,
        post_transform="SOFTMAX",
        classlabels_int64s=[4, 5, 6],
        **attrs,
    )
    got = tree_ensembles.tree_ensemble_classifier(
        torch.from_numpy(x),
        labels=torch.tensor([4, 5, 6]),
        **packed,
        depth=depth,
        modes=modes,
        binary=False,
        all_positive=False,
        post_transform="SOFTMAX",
    )
    for actual, answer in zip(got, expected, strict=True):
        check(actual, answer)


def test_one_label() -> None:
    rng = np.random.default_rng(4)
    attrs: dict[str, Any] = random_forest(rng, 3, MODES[:1])
    attrs |= random_leaves(rng, attrs, "class", [0])
    x = rows(rng, 8, "float32")
    packed, depth, modes = pack(attrs, "class", 1)
    expected = ort_answer("TreeEnsembleClassifier", [x], outputs=2, classlabels_int64s=[7], **attrs)
    got = tree_ensembles.tree_ensemble_classifier(
        torch.from_numpy(x),
        labels=torch.tensor([7]),
        **packed,
        depth=depth,
        modes=modes,
        binary=False,
        all_positive=False,
    )
    for actual, answer in zip(got, expected, strict=True):
        check(actual, answer)


AGGREGATE = ["AVERAGE", "SUM", "MIN", "MAX"]
# ONNX says that 1 is SOFTMAX and 2 is LOGISTIC; ONNX Runtime has them the other way round.
POST_CODES = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]


def answer_tree_ensemble(x: torch.Tensor, a: dict[str, Any]) -> torch.Tensor:
    a = dict(a)
    choice = {
        "n_targets": a.pop("n_targets"),
        "aggregate_function": AGGREGATE[a.pop("aggregate_function", 1)],
        "post_transform": POST_CODES[a.pop("post_transform", 0)],
    }
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    packed, depth, modes = tree_ensembles.pack_tree_ensemble(**a, dtype=dtype)
    return tree_ensembles.tree_ensemble(x, **packed, depth=depth, modes=modes, **choice)


@pytest.mark.parametrize("case", cases_of("TreeEnsemble"))
def test_tree_ensemble(case: TestCase) -> None:
    run_cases(case, lambda x, a: [answer_tree_ensemble(*x, a)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("modes", [[0], [6], [0, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
@pytest.mark.parametrize("post", [0, 1, 2, 3])
def test_tree_ensemble_against_onnx_runtime(
    dtype: str, modes: list[int], aggregate: int, post: int
) -> None:
    rng = np.random.default_rng(aggregate)
    old: dict[str, Any] = random_forest(rng, 5, MODES[:1])
    old = {k.removeprefix("nodes_"): v for k, v in old.items()}
    split = [i for i, m in enumerate(old["modes"]) if m != "LEAF"]
    leaf = [i for i, m in enumerate(old["modes"]) if m == "LEAF"]
    start = {t: old["treeids"].index(t) for t in set(old["treeids"])}
    new: dict[str, Any] = {"n_targets": 3, "aggregate_function": aggregate, "post_transform": post}
    place = {i: split.index(i) for i in split} | {i: leaf.index(i) for i in leaf}
    for side in ["true", "false"]:
        to = [start[old["treeids"][i]] + old[f"{side}nodeids"][i] for i in split]
        new[f"nodes_{side}nodeids"] = [place[t] for t in to]
        new[f"nodes_{side}leafs"] = [int(t in leaf) for t in to]
    new["tree_roots"] = [place[s] for s in start.values() if s in split]
    new["nodes_featureids"] = [old["featureids"][i] for i in split]
    kind = rng.choice(modes, len(split)).tolist()
    new["leaf_targetids"] = rng.integers(0, 3, len(leaf)).tolist()
    new["nodes_missing_value_tracks_true"] = rng.integers(0, 2, len(split)).tolist()
    members: list[float] = []
    for mode in kind:
        if mode == 6:
            members += [*rng.integers(-2, 3, rng.integers(1, 5)).astype(float), np.nan]
    tensors = {
        "nodes_modes": np.array(kind, dtype=np.uint8),
        "nodes_splits": np.array([old["values"][i] for i in split], dtype=dtype),
        "leaf_weights": rng.normal(size=len(leaf)).astype(dtype),
    }
    if members:
        tensors["membership_values"] = np.array(members, dtype=dtype)
    x = rows(rng, 25, dtype, True)
    if 6 in modes:  # ONNX Runtime truncates what it looks up in a set
        x = np.floor(x)
    given = {k: numpy_helper.from_array(v, k) for k, v in tensors.items()}
    (expected,) = ort_answer("TreeEnsemble", [x], version=5, **new, **given)
    lists = {k: v.tolist() for k, v in tensors.items()}
    check(answer_tree_ensemble(torch.from_numpy(x), new | lists), expected)


def test_forests_learn_and_take_empty_batches() -> None:
    rng = np.random.default_rng(8)
    attrs: dict[str, Any] = random_forest(rng, 3, MODES)
    attrs |= random_leaves(rng, attrs, "target", [0])
    packed, depth, modes = pack(attrs, "target", 1)
    packed["weight"].requires_grad_()
    options = {"depth": depth, "modes": modes, "n_targets": 1}
    y = tree_ensembles.tree_ensemble_regressor(torch.randn(7, FEATURES), **packed, **options)
    y.sum().backward()
    assert packed["weight"].grad.sum() == 21
    assert tree_ensembles.tree_ensemble_regressor(
        torch.zeros(0, FEATURES), **packed, **options
    ).shape == (0, 1)


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        tree_ensembles.forest_depth([0], [1, 1, 0, 0])


@pytest.mark.parametrize("post", POST)
@pytest.mark.parametrize("kind", ["ints", "strings"])
@pytest.mark.parametrize(("n", "lines"), [(2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_linear_classifier(post: str, kind: str, n: int, lines: int, dtype: str) -> None:
    if post == "PROBIT" and lines == 1:
        pytest.skip("ONNX Runtime leaves a column unwritten")
    rng = np.random.default_rng(n)
    scale = 0.02 if post == "PROBIT" else 1.0
    w = (rng.normal(size=(lines, FEATURES)) * scale).astype(np.float32)
    b = (rng.random(lines) * 0.2 + 0.4).astype(np.float32)
    labels = LABELS[kind][:n]
    x = rows(rng, 9, dtype)
    expected = ort_answer(
        "LinearClassifier",
        [x],
        outputs=2,
        version=1,
        coefficients=w.reshape(-1).tolist(),
        intercepts=b.tolist(),
        post_transform=post,
        **{f"classlabels_{kind}": labels},
    )
    got = linear_models.linear_classifier(
        torch.from_numpy(x),
        torch.from_numpy(w.reshape(-1)),
        torch.from_numpy(b),
        torch.tensor(labels) if kind == "ints" else labels,
        post_transform=post,
    )
    for actual, answer in zip(got, expected, strict=True):
        check(actual, answer, 1e-4, PROBIT_ERROR if post == "PROBIT" else 1e-5)


@pytest.mark.parametrize("post", POST)
@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("intercepts", [False, True])
def test_linear_regressor(post: str, targets: int, intercepts: bool) -> None:
    rng = np.random.default_rng(targets)
    w = (rng.random(targets * FEATURES) / 12).astype(np.float32)
    b = (rng.random(targets) / 5).astype(np.float32)
    x = np.abs(rows(rng, 6, "float32"))
    more = {"intercepts": b.tolist()} if intercepts else {}
    options = {"targets": targets, "post_transform": post}
    (expected,) = ort_answer(
        "LinearRegressor", [x], version=1, coefficients=w.tolist(), **more, **options
    )
    bias = torch.from_numpy(b) if intercepts else None
    y = linear_models.linear_regressor(torch.from_numpy(x), torch.from_numpy(w), bias, **options)
    check(y, expected, 1e-4, PROBIT_ERROR if post == "PROBIT" else 1e-5)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("supports", [0, 6])
def test_svm_regressor(kernel: str, one_class: int, supports: int) -> None:
    rng = np.random.default_rng(supports)
    w = rng.normal(size=supports or FEATURES).astype(np.float32)
    v = rng.normal(size=supports * FEATURES).astype(np.float32)
    options = {
        "kernel_type": kernel,
        "kernel_params": [0.25, 0.5, 3.0],
        "n_supports": supports,
        "one_class": one_class,
    }
    x = rows(rng, 8, "float32")
    more = {"support_vectors": v.tolist()} if supports else {}
    (expected,) = ort_answer(
        "SVMRegressor", [x], version=1, coefficients=w.tolist(), rho=[0.3], **more, **options
    )
    y = linear_models.svm_regressor(
        torch.from_numpy(x),
        torch.from_numpy(w),
        torch.tensor([0.3]),
        torch.from_numpy(v) if supports else None,
        **options,
    )
    check(y, expected, 1e-4, 1e-5)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("post", POST)
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("mode", ["votes", "probabilities", "linear"])
def test_svm_classifier(kernel: str, post: str, n: int, mode: str) -> None:
    if post == "PROBIT" and mode != "probabilities":
        pytest.skip("no probabilities")
    rng = np.random.default_rng(n)
    kind = "strings" if post == "LOGISTIC" else "ints"
    labels = LABELS[kind][:n]
    per_class = [2, 3, 1, 4][:n]
    count, pairs = sum(per_class), n * (n - 1) // 2
    shape = (n, FEATURES) if mode == "linear" else (n - 1, count)
    tensors = {"coefficients": rng.normal(size=shape), "rho": rng.normal(size=pairs) / 3}
    options: dict[str, Any] = {"kernel_type": kernel, "kernel_params": [0.25, 0.5, 3.0]}
    if mode != "linear":
        tensors["support_vectors"] = rng.normal(size=count * FEATURES)
        options["vectors_per_class"] = per_class
    if mode == "probabilities":
        tensors |= {"prob_a": -rng.random(pairs) - 0.5, "prob_b": rng.normal(size=pairs) / 3}
    tensors = {k: v.astype(np.float32).reshape(-1) for k, v in tensors.items()}
    x = rows(rng, 20, "float32" if n == 2 else "float64")
    expected = ort_answer(
        "SVMClassifier",
        [x],
        outputs=2,
        version=1,
        post_transform=post,
        **{k: v.tolist() for k, v in tensors.items()},
        **{f"classlabels_{kind}": labels},
        **options,
    )
    got = linear_models.svm_classifier(
        torch.from_numpy(x),
        labels=torch.tensor(labels) if kind == "ints" else labels,
        post_transform=post,
        **{k: torch.from_numpy(v) for k, v in tensors.items()},
        **options,
    )
    for actual, answer in zip(got, expected, strict=True):
        check(actual, answer, 1e-3, 1e-4)


@pytest.mark.parametrize("positive", [False, True])
def test_linear_svm_thresholds(positive: bool) -> None:
    rng = np.random.default_rng(1)
    w = rng.normal(size=(2, FEATURES)).astype(np.float32)
    w = np.abs(w) if positive else w
    x = rows(rng, 40, "float32") / 4
    expected = ort_answer(
        "SVMClassifier",
        [x],
        outputs=2,
        version=1,
        coefficients=w.reshape(-1).tolist(),
        rho=[0.1],
        kernel_params=[0.0, 0.0, 0.0],
        classlabels_ints=[3, 4],
    )
    got = linear_models.svm_classifier(
        torch.from_numpy(x),
        torch.from_numpy(w.reshape(-1)),
        torch.tensor([0.1]),
        torch.tensor([3, 4]),
        all_positive=positive,
    )
    for actual, answer in zip(got, expected, strict=True):
        check(actual, answer)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
@pytest.mark.parametrize("width", [1, FEATURES])
@pytest.mark.parametrize("rank", [1, 2])
def test_scaler(dtype: str, width: int, rank: int) -> None:
    rng = np.random.default_rng(width)
    x = rows(rng, 4, dtype) if rank == 2 else rows(rng, 1, dtype)[0]
    offset, scale = (rng.normal(size=(2, width))).astype(np.float32)
    (expected,) = ort_answer("Scaler", [x], version=1, offset=offset.tolist(), scale=scale.tolist())
    y = features.feature_scaler(
        torch.from_numpy(x), torch.from_numpy(offset), torch.from_numpy(scale)
    )
    check(y, expected)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
@pytest.mark.parametrize("rank", [1, 2])
def test_normalizer(norm: str, dtype: str, rank: int) -> None:
    rng = np.random.default_rng(2)
    x = rows(rng, 6, dtype)
    x[2] = 0
    x[3] = -np.abs(x[3]) - 1
    x = x if rank == 2 else x[3]
    (expected,) = ort_answer("Normalizer", [x], version=1, norm=norm)
    check(features.feature_normalizer(torch.from_numpy(x), norm=norm), expected)


@pytest.mark.parametrize("width", [1, FEATURES])
@pytest.mark.parametrize("replaced", [0.0, 1.5, float("nan")])
def test_imputer_floats(width: int, replaced: float) -> None:
    rng = np.random.default_rng(width)
    x = rows(rng, 6, "float32", True)
    values = rng.normal(size=width).astype(np.float32)
    attrs = {"imputed_value_floats": values.tolist(), "replaced_value_float": replaced}
    (expected,) = ort_answer("Imputer", [x], version=1, **attrs)
    y = features.imputer(torch.from_numpy(x), torch.from_numpy(values), replaced_value=replaced)
    check(y, expected)


@pytest.mark.parametrize("width", [1, FEATURES])
def test_imputer_ints(width: int) -> None:
    rng = np.random.default_rng(width)
    x = rows(rng, 6, "int64")
    values = rng.integers(0, 99, width)
    attrs = {"imputed_value_int64s": values.tolist(), "replaced_value_int64": 1}
    (expected,) = ort_answer("Imputer", [x], version=1, **attrs)
    check(
        features.imputer(torch.from_numpy(x), torch.from_numpy(values), replaced_value=1), expected
    )


@pytest.mark.parametrize("case", cases_of("Binarizer"))
def test_binarizer(case: TestCase) -> None:
    run_cases(case, lambda x, a: [features.feature_binarizer(*x, **a)])


@pytest.mark.parametrize("case", cases_of("ArrayFeatureExtractor"))
def test_array_feature_extractor(case: TestCase) -> None:
    run_cases(case, lambda x, a: [features.array_feature_extractor(*x)])


@pytest.mark.parametrize("dtype", ["float32", "int32", "object"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_array_feature_extractor_against_onnx_runtime(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    x = x.astype(str).astype(object) if dtype == "object" else x.astype(dtype)
    index = np.array([[4, 0, 4]])
    (expected,) = ort_answer("ArrayFeatureExtractor", [x, index], version=1)
    check(features.array_feature_extractor(to_runtime(x), torch.from_numpy(index)), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "object"])
@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_one_hot_encoder(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).integers(0, 5, shape)
    if dtype == "object":
        x = x.astype(str).astype(object)
        attrs = {"cats_strings": ["3", "1", "2"]}
        categories: Any = ["3", "1", "2"]
    else:
        x = x.astype(dtype)
        attrs = {"cats_int64s": [3, 1, 2]}
        categories = torch.tensor([3, 1, 2])
    (expected,) = ort_answer("OneHotEncoder", [x], version=1, **attrs)
    check(features.one_hot_encoder(to_runtime(x), categories), expected)
    with pytest.raises(ValueError, match="category"):
        features.one_hot_encoder(to_runtime(x), categories, zeros=0)


def table(a: dict[str, Any], side: str) -> Any:
    """LabelEncoder's keys or values, from whichever attribute holds them."""
    for name, dtype in [("int64s", torch.int64), ("floats", torch.float32), ("strings", None)]:
        if f"{side}_{name}" in a:
            values = a[f"{side}_{name}"]
            return values if dtype is None else torch.tensor(values, dtype=dtype)
    return None


@pytest.mark.parametrize("case", cases_of("LabelEncoder"))
def test_label_encoder(case: TestCase) -> None:
    raw = {a.name: helper.get_attribute_value(a) for a in case.model.graph.node[0].attribute}

    def tensor(name: str) -> Any:
        value = numpy_helper.to_array(raw[name])
        return value.tolist() if value.dtype == object else torch.from_numpy(value.copy())

    def answer(x: list[Any], a: dict[str, Any]) -> list[Any]:
        keys = tensor("keys_tensor") if "keys_tensor" in raw else table(a, "keys")
        values = tensor("values_tensor") if "values_tensor" in raw else table(a, "values")
        default = a["default_tensor"][0] if "default_tensor" in a else a.get("default_int64", -1)
        return [features.label_encoder(x[0], keys, values, default=default)]

    run_cases(case, answer)


KEYS: dict[str, list[Any]] = {
    "strings": ["b", "a", "c", "a"],
    "int64s": [5, -1, 7, 5],
    "floats": [0.5, 2.5, -1.5, 2.5],
}
DEFAULTS = {"strings": "_Unused", "int64s": -1, "floats": -0.0}


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("values", KEYS)
@pytest.mark.parametrize("default", [False, True])
def test_label_encoder_against_onnx_runtime(keys: str, values: str, default: bool) -> None:
    x = np.array([[*KEYS[keys][:3]], ["z" if keys == "strings" else 99, *KEYS[keys][1:3]]])
    x = x.astype({"strings": object, "int64s": np.int64, "floats": np.float32}[keys])
    given: dict[str, Any] = {f"keys_{keys}": KEYS[keys], f"values_{values}": KEYS[values]}
    other: Any = DEFAULTS[values]
    if default:
        other = {"strings": "other", "int64s": 42, "floats": 0.25}[values]
        given[
            {"strings": "default_string", "int64s": "default_int64"}.get(values, "default_float")
        ] = other
    (expected,) = ort_answer("LabelEncoder", [x], version=2, **given)
    got = features.label_encoder(
        to_runtime(x), table(given, "keys"), table(given, "values"), default=other
    )
    check(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_label_encoder_finds_nan(dtype: str) -> None:
    keys = np.array([1.5, np.nan, -2.0], dtype=dtype)
    values = np.array([3, 4, 5], dtype=np.int64)
    x = np.array([np.nan, -2.0, 1.5, 9.0], dtype=dtype)
    (expected,) = (
        ort_answer(
            "LabelEncoder",
            [x],
            version=4,
            keys_tensor=numpy_helper.from_array(keys),
            values_tensor=numpy_helper.from_array(values),
            default_tensor=numpy_helper.from_array(np.array([8])),
        )
        if dtype == "float64"
        else (np.array([4, 5, 3, 8]),)
    )
    got = features.label_encoder(
        torch.from_numpy(x), torch.from_numpy(keys), torch.from_numpy(values), default=8
    )
    check(got, expected)


def test_label_encoder_of_version_1() -> None:
    classes = ["b", "a", "c"]
    x = np.array(["a", "z", "c"], dtype=object)
    (expected,) = ort_answer("LabelEncoder", [x], version=1, classes_strings=classes)
    check(features.label_encoder(x, classes, None, default=-1), expected)
    i = np.array([2, 0, 3, -1])
    (expected,) = ort_answer("LabelEncoder", [i], version=1, classes_strings=classes)
    check(features.label_encoder(torch.from_numpy(i), None, classes, default="_Unused"), expected)


def test_category_mapper() -> None:
    attrs: dict[str, Any] = {"cats_strings": ["x", "y"], "cats_int64s": [7, 3]}
    ints = np.array([[3, 7, 9]])
    words = np.array(["y", "q", "x"], dtype=object)
    args = (["x", "y"], torch.tensor([7, 3]))
    (expected,) = ort_answer("CategoryMapper", [ints], version=1, **attrs)
    check(features.category_mapper(torch.from_numpy(ints), *args), expected)
    (expected,) = ort_answer("CategoryMapper", [words], version=1, default_int64=5, **attrs)
    check(features.category_mapper(words, *args, default_int64=5), expected)


@pytest.mark.parametrize("dims", [[2, 3], [1, 5]])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
def test_feature_vectorizer(dims: list[int], rank: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = [rng.integers(0, 9, (2, 2)).astype(dtype), rng.integers(0, 9, (2, 3)).astype(dtype)]
    if rank == 1:
        x = [v[0] for v in x]
    (expected,) = ort_answer("FeatureVectorizer", x, version=1, inputdimensions=dims)
    y = features.feature_vectorizer([torch.from_numpy(v) for v in x], inputdimensions=dims)
    check(y, expected)


def map_type(key: int, value: int) -> Any:
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))


STRING, INT64, FLOAT = TensorProto.STRING, TensorProto.INT64, TensorProto.FLOAT


@pytest.mark.parametrize(
    ("x", "vocabulary"),
    [
        ({"a": 1.5, "c": -2.0, "z": 3.0}, ["c", "b", "a"]),
        ({3: 1.5, 1: -2.0}, [1, 2, 3]),
    ],
)
def test_dict_vectorizer(x: Any, vocabulary: list[Any]) -> None:
    words = isinstance(vocabulary[0], str)
    types = [map_type(STRING if words else INT64, FLOAT)]
    attrs = {"string_vocabulary" if words else "int64_vocabulary": vocabulary}
    (expected,) = ort_answer("DictVectorizer", [x], version=1, types=types, **attrs)
    check(features.dict_vectorizer(x, vocabulary), expected)


def test_dict_vectorizer_of_maps_that_onnx_runtime_cannot_be_fed() -> None:
    numbers: dict[str | int, float | str] = {"a": 4, "c": 2}
    for dtype, name in [(torch.int64, "int64"), (torch.float64, "float64")]:
        y = features.dict_vectorizer(numbers, ["c", "b", "a"], dtype=dtype)
        check(y, np.array([[2, 0, 4]], dtype=name))
    y = features.dict_vectorizer({3: "u", 1: "v"}, [1, 2, 3], dtype=None)
    check(y, np.array([["v", "", "u"]], dtype=object))


@pytest.mark.parametrize("labels", [["a", "b", "c"], [4, 2, 9]])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_zip_map(labels: list[Any], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).random(shape).astype(np.float32)
    name = "classlabels_strings" if labels[0] == "a" else "classlabels_int64s"
    (expected,) = ort_answer("ZipMap", [x], version=1, **{name: labels})
    check(features.zip_map(torch.from_numpy(x), labels), expected)


@pytest.mark.parametrize("cast_to", ["TO_FLOAT", "TO_INT64", "TO_STRING"])
@pytest.mark.parametrize("sparse", [False, True])
def test_cast_map(cast_to: str, sparse: bool) -> None:
    x: Any = {4: 1.5, 1: -2.25, 0: 7.0}
    attrs: dict[str, Any] = {"cast_to": cast_to}
    if sparse:
        attrs |= {"map_form": "SPARSE", "max_map": 4}
    (expected,) = ort_answer("CastMap", [x], version=1, types=[map_type(INT64, FLOAT)], **attrs)
    check(features.cast_map(x, **attrs), expected)


@pytest.mark.parametrize(
    ("cast_to", "expected"),
    [
        ("TO_FLOAT", np.array([[-2.5, 15]], dtype=np.float32)),
        ("TO_INT64", np.array([[-2, 15]])),
        ("TO_STRING", np.array([["-2.5", "15"]], dtype=object)),
    ],
)
def test_cast_map_of_strings(cast_to: str, expected: np.ndarray) -> None:
    check(features.cast_map({4: "15", 1: "-2.5"}, cast_to=cast_to), expected)
