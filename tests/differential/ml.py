"""ai.onnx.ml: every operator in every mode that its attributes choose."""

from typing import Any

import numpy as np
from onnx import numpy_helper

from .one_node import Case, Rng, Spec, f32, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "ai.onnx.ml", 3)
new_spec = specification(SPECS, "ai.onnx.ml", 5)

POST = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
NUMBERS = [np.float32, np.float64, np.int64, np.int32]
WORDS = ["ant", "bee", "cat", "dog", "elk"]


def rows(rng: Rng, dtype: Any, count: int = 6, width: int = 4) -> Any:
    """Half-integers, so that comparisons meet equality."""
    return (rng.integers(-6, 7, (count, width)) / (2 if np.dtype(dtype).kind == "f" else 1)).astype(
        dtype
    )


def labels(kind: str, count: int) -> dict[str, list[Any]]:
    if kind == "strings":
        return {"classlabels_strings": WORDS[:count]}
    return {"classlabels_ints": [7, 3, 5, 2, 9][:count]}


# ---------------------------------------------------------------- forests

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def forest(
    rng: Rng, prefix: str, trees: int, modes: list[str], targets: list[int], positive: bool
) -> dict[str, Any]:
    """Full trees of depth 1 to 3, with a weight for some of the targets on each leaf."""
    nodes: dict[str, list[Any]] = {
        f"nodes_{name}": []
        for name in (
            *("treeids", "nodeids", "featureids", "values", "modes"),
            *("truenodeids", "falsenodeids", "missing_value_tracks_true"),
        )
    }
    leaves: dict[str, list[Any]] = {
        f"{prefix}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")
    }
    for tree in range(trees):
        inner = 2 ** int(rng.integers(1, 4)) - 1
        for node in range(2 * inner + 1):
            leaf = node >= inner
            row = [
                *(tree, node, int(rng.integers(4)), float(rng.integers(-4, 5)) / 2),
                "LEAF" if leaf else str(rng.choice(modes)),
                *((0, 0) if leaf else (2 * node + 1, 2 * node + 2)),
                int(rng.integers(2)),
            ]
            for name, value in zip(nodes, row, strict=True):
                nodes[name].append(value)
            for target in targets if leaf else []:
                weight = float(np.float32(rng.uniform(0, 0.2) if positive else rng.normal()))
                for name, value in zip(leaves, (tree, node, target, weight), strict=True):
                    leaves[name].append(value)
    return nodes | leaves


@spec(
    "TreeEnsembleRegressor",
    targets=[1, 3],
    post=POST,
    aggregate=["SUM", "AVERAGE", "MIN", "MAX"],
    modes=[MODES[:1], MODES[1:2], MODES[2:3], MODES],
    base=[False, True],
    dtype=NUMBERS[:2],
    missing=[False, True],
)
def tree_regressor(
    rng: Rng,
    *,
    targets: int,
    post: str,
    aggregate: str,
    modes: list[str],
    base: bool,
    dtype: Any,
    missing: bool,
) -> Case | None:
    if post == "PROBIT" and aggregate not in ("SUM", "AVERAGE"):
        return None
    attrs = forest(rng, "target", 3, modes, list(range(targets)), post == "PROBIT")
    attrs |= {"n_targets": targets, "post_transform": post, "aggregate_function": aggregate}
    if base:
        attrs["base_values"] = [0.05, 0.1, 0.15][:targets]
    x = rows(rng, dtype)
    if missing and x.dtype.kind == "f":
        x[rng.random(x.shape) < 0.2] = np.nan
    return Case([x], attrs, rtol=1e-3, atol=1e-3 if post == "PROBIT" else 1e-5)


@spec(
    "TreeEnsembleClassifier",
    classes=[[0], [1], [0, 1], [0, 1, 2]],
    count=[2, 3],
    kind=["strings", "ints"],
    post=POST,
    base=[False, True],
    positive=[False, True],
    dtype=NUMBERS,
)
def tree_classifier(
    rng: Rng,
    *,
    classes: list[int],
    count: int,
    kind: str,
    post: str,
    base: bool,
    positive: bool,
    dtype: Any,
) -> Case | None:
    if max(classes) >= count or (len(classes) == 1 and count > 2):
        return None
    positive = positive or post == "PROBIT"
    attrs = forest(rng, "class", 3, MODES[:2], classes, positive)
    attrs |= labels(kind, count) if kind == "strings" else {"classlabels_int64s": [7, 3, 5][:count]}
    attrs["post_transform"] = post
    if base and len(classes) == count:
        attrs["base_values"] = [0.05, 0.1, 0.15][:count]
    return Case(
        [rows(rng, dtype)], attrs, outputs=2, rtol=1e-3, atol=1e-3 if post == "PROBIT" else 1e-5
    )


@new_spec(
    "TreeEnsemble",
    aggregate=[0, 1, 2, 3],
    post=[0, 1, 2, 3],
    targets=[1, 2],
    modes=[[0], [1, 2], [0, 1, 2, 3, 4, 5], [6, 0]],
    wide=[False, True],
)
def tree_ensemble(
    rng: Rng, *, aggregate: int, post: int, targets: int, modes: list[int], wide: bool
) -> Case:
    dtype = np.float64 if wide else np.float32
    trees, inner = 3, 3
    nodes = trees * inner
    kinds = rng.choice(modes, nodes).astype(np.uint8)
    splits, members = [], []
    for kind in kinds:
        splits.append(float(rng.integers(-4, 5)) / 2)
        if kind == 6:
            members += [*rng.integers(-4, 5, 3).astype(float), np.nan]
    true, false, true_leaf, false_leaf = [], [], [], []
    for tree in range(trees):
        root = tree * inner
        true += [root + 1, 4 * tree, 4 * tree + 2]
        false += [root + 2, 4 * tree + 1, 4 * tree + 3]
        true_leaf += [0, 1, 1]
        false_leaf += [0, 1, 1]
    leaves = 4 * trees
    attrs: dict[str, Any] = {
        "aggregate_function": aggregate,
        "post_transform": post,
        "n_targets": targets,
        "tree_roots": [tree * inner for tree in range(trees)],
        "nodes_featureids": rng.integers(0, 4, nodes).tolist(),
        "nodes_modes": numpy_helper.from_array(kinds, "modes"),
        "nodes_splits": numpy_helper.from_array(np.array(splits, dtype), "splits"),
        "nodes_truenodeids": true,
        "nodes_falsenodeids": false,
        "nodes_trueleafs": true_leaf,
        "nodes_falseleafs": false_leaf,
        "leaf_targetids": rng.integers(0, targets, leaves).tolist(),
        "leaf_weights": numpy_helper.from_array(rng.normal(size=leaves).astype(dtype), "weights"),
    }
    if members:
        attrs["membership_values"] = numpy_helper.from_array(np.array(members, dtype), "members")
    x = rows(rng, dtype)
    # ONNX Runtime looks up what is left of a value without its fraction.
    return Case([np.rint(x) if members else x], attrs, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- linear models and SVMs


@spec("LinearRegressor", targets=[1, 2], post=POST[:4], intercepts=[False, True])
def linear_regressor(rng: Rng, *, targets: int, post: str, intercepts: bool) -> Case:
    attrs: dict[str, Any] = {"coefficients": f32(rng, targets * 4).tolist(), "targets": targets}
    attrs["post_transform"] = post
    if intercepts:
        attrs["intercepts"] = f32(rng, targets).tolist()
    return Case([f32(rng, 6, 4)], attrs)


@spec(
    "LinearClassifier",
    count=[2, 3],
    kind=["strings", "ints"],
    post=POST[:4],
    dtype=NUMBERS,
    lines=[1, 2],
)
def linear_classifier(
    rng: Rng, *, count: int, kind: str, post: str, dtype: Any, lines: int
) -> Case | None:
    if count == 3 and lines == 1:
        return None
    lines = count if count == 3 else lines
    attrs: dict[str, Any] = {"coefficients": f32(rng, lines * 4).tolist(), "post_transform": post}
    attrs["intercepts"] = f32(rng, lines).tolist()
    return Case([rows(rng, dtype)], attrs | labels(kind, count), outputs=2, rtol=1e-3)


KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]


@spec("SVMRegressor", kernel=KERNELS, one_class=[0, 1], supports=[0, 5])
def svm_regressor(rng: Rng, *, kernel: str, one_class: int, supports: int) -> Case | None:
    if not supports and kernel != "LINEAR":
        return None
    attrs: dict[str, Any] = {"kernel_type": kernel, "kernel_params": [0.3, 0.2, 2.0]}
    attrs |= {"n_supports": supports, "one_class": one_class, "rho": [0.4]}
    attrs["coefficients"] = f32(rng, supports or 4).tolist()
    if supports:
        attrs["support_vectors"] = f32(rng, supports * 4).tolist()
    return Case([f32(rng, 6, 4)], attrs, rtol=1e-3, atol=1e-4)


@spec(
    "SVMClassifier",
    kernel=KERNELS,
    count=[2, 3],
    kind=["strings", "ints"],
    probabilities=[False, True],
    post=POST[:4],
)
def svm_classifier(
    rng: Rng, *, kernel: str, count: int, kind: str, probabilities: bool, post: str
) -> Case:
    each, pairs = 3, count * (count - 1) // 2
    supports = each * count
    attrs: dict[str, Any] = {"kernel_type": kernel, "kernel_params": [0.3, 0.2, 2.0]}
    attrs |= {"vectors_per_class": [each] * count, "post_transform": post}
    attrs["support_vectors"] = f32(rng, supports * 4).tolist()
    attrs["coefficients"] = f32(rng, supports * (count - 1)).tolist()
    attrs["rho"] = f32(rng, pairs).tolist()
    if probabilities:
        attrs |= {"prob_a": (-rng.random(pairs)).tolist(), "prob_b": f32(rng, pairs).tolist()}
    return Case([f32(rng, 6, 4)], attrs | labels(kind, count), outputs=2, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- columns


@spec("Scaler", dtype=NUMBERS, width=[1, 4])
def scaler(rng: Rng, *, dtype: Any, width: int) -> Case:
    attrs = {"offset": f32(rng, width).tolist(), "scale": f32(rng, width).tolist()}
    return Case([rows(rng, dtype)], attrs)


@spec("Normalizer", dtype=NUMBERS, norm=["MAX", "L1", "L2"])
def normalizer(rng: Rng, *, dtype: Any, norm: str) -> Case:
    return Case([rows(rng, dtype) + np.array(9, dtype)], {"norm": norm})


@spec("Imputer", width=[1, 4], replaced=[0.0, 1.5, float("nan")], whole=[False, True])
def imputer(rng: Rng, *, width: int, replaced: float, whole: bool) -> Case | None:
    if whole:
        if replaced != 0.0:
            return None
        attrs: dict[str, Any] = {"imputed_value_int64s": rng.integers(10, 20, width).tolist()}
        return Case([rows(rng, np.int64)], attrs | {"replaced_value_int64": 2})
    x = rows(rng, np.float32)
    x[rng.random(x.shape) < 0.3] = replaced
    attrs = {"imputed_value_floats": f32(rng, width).tolist(), "replaced_value_float": replaced}
    return Case([x], attrs)


@spec("Binarizer", threshold=[None, 0.5, -1.0])
def binarizer(rng: Rng, *, threshold: float | None) -> Case:
    return Case([rows(rng, np.float32)], {} if threshold is None else {"threshold": threshold})


@spec("FeatureVectorizer", dtype=NUMBERS, parts=[1, 2, 3])
def feature_vectorizer(rng: Rng, *, dtype: Any, parts: int) -> Case:
    sizes = [2, 3, 1][:parts]
    return Case([rows(rng, dtype, 5, n) for n in sizes], {"inputdimensions": sizes})


@spec("ArrayFeatureExtractor", dtype=[*NUMBERS, np.object_], count=[1, 3])
def array_feature_extractor(rng: Rng, *, dtype: Any, count: int) -> Case:
    x = rng.choice(WORDS, (3, 4)).astype(object) if dtype is np.object_ else rows(rng, dtype)
    return Case([x, rng.integers(0, 4, (1, count))])


@spec("OneHotEncoder", words=[False, True], shape=[(4,), (3, 4)])
def one_hot_encoder(rng: Rng, *, words: bool, shape: tuple[int, ...]) -> Case:
    if words:
        return Case([rng.choice(WORDS, shape).astype(object)], {"cats_strings": WORDS[:4]})
    return Case([rng.integers(0, 6, shape)], {"cats_int64s": [0, 2, 5]})


SIDES: dict[str, list[Any]] = {
    "strings": WORDS[:3],
    "int64s": [4, 5, 6],
    "floats": [0.5, 1.5, -2.0],
}


@spec("LabelEncoder", keys=list(SIDES), values=list(SIDES), shape=[(7,), (2, 3)])
def label_encoder(rng: Rng, *, keys: str, values: str, shape: tuple[int, ...]) -> Case:
    attrs: dict[str, Any] = {f"keys_{keys}": SIDES[keys], f"values_{values}": SIDES[values]}
    name = {"strings": "default_string", "int64s": "default_int64", "floats": "default_float"}
    attrs[name[values]] = {"strings": "none", "int64s": 42, "floats": 0.25}[values]
    dtype = {"strings": object, "int64s": np.int64, "floats": np.float32}[keys]
    other = {"strings": "elk", "int64s": 9, "floats": 8.0}[keys]
    return Case([rng.choice(np.array([*SIDES[keys], other], dtype), shape)], attrs)


@spec("CategoryMapper", words=[False, True], given=[False, True])
def category_mapper(rng: Rng, *, words: bool, given: bool) -> Case:
    attrs: dict[str, Any] = {"cats_strings": WORDS[:3], "cats_int64s": [4, 5, 6]}
    if given:
        attrs |= {"default_int64": 17, "default_string": "other"}
    x = rng.choice(WORDS, 6).astype(object) if words else rng.integers(3, 8, 6)
    return Case([x], attrs)


@spec("ZipMap", words=[False, True], count=[1, 3])
def zip_map(rng: Rng, *, words: bool, count: int) -> Case:
    attrs: dict[str, Any] = (
        {"classlabels_strings": WORDS[:count]}
        if words
        else {"classlabels_int64s": [4, 2, 9][:count]}
    )
    x = f32(rng, 3, count)
    names = attrs.get("classlabels_strings") or attrs["classlabels_int64s"]
    return Case([x], attrs, expected=[[dict(zip(names, row, strict=True)) for row in x.tolist()]])
