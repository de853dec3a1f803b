"""ai.onnx.ml: how the operators' attributes become tensors. The helpers have tests of their own."""

from typing import Any

import numpy as np
import onnx
import pytest

import onnx2nn
import onnx2nn._native as native
from onnx2nn import backend

from .harness import check, node_model

X = (np.random.default_rng(2).integers(-4, 5, (7, 3)) / 2).astype(np.float32)
ML: dict[str, Any] = {"domain": "ai.onnx.ml", "opset": 3}


def forest(
    prefix: str, targets: list[int], modes: tuple[str, str] = ("BRANCH_LEQ", "BRANCH_LEQ")
) -> dict[str, Any]:
    """Two trees of two splits each, whose nodes are listed inner first."""
    attrs: dict[str, Any] = {
        "nodes_treeids": [0] * 5 + [1] * 5,
        "nodes_nodeids": [0, 1, 2, 3, 4] * 2,
        "nodes_featureids": [0, 2, 0, 0, 0, 1, 0, 0, 0, 0],
        "nodes_values": [0.5, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        "nodes_modes": [*modes, "LEAF", "LEAF", "LEAF"] * 2,
        "nodes_truenodeids": [1, 3, 0, 0, 0] * 2,
        "nodes_falsenodeids": [2, 4, 0, 0, 0] * 2,
    }
    names = ("treeids", "nodeids", "ids", "weights")
    table: list[list[Any]] = [[], [], [], []]
    for tree in (0, 1):
        for node in (2, 3, 4):
            for target in targets:
                row = (tree, node, target, 0.1 * node + 0.7 * target - tree)
                for column, value in zip(table, row, strict=True):
                    column.append(value)
    return attrs | {f"{prefix}_{n}": c for n, c in zip(names, table, strict=True)}


@pytest.mark.parametrize("targets", [[0], [0, 2]])
@pytest.mark.parametrize("modes", [("BRANCH_LEQ", "BRANCH_LEQ"), ("BRANCH_LT", "BRANCH_GTE")])
def test_tree_regressor(targets: list[int], modes: tuple[str, str]) -> None:
    attrs = forest("target", targets, modes) | {"n_targets": targets[-1] + 1}
    attrs["base_values"] = [0.25] * attrs["n_targets"]
    check("TreeEnsembleRegressor", [X], attrs=attrs, dynamic=True, **ML)


def test_of_several_weights_for_the_only_target_the_first_counts() -> None:
    """So does scikit-learn's converter say which leaf of a tree with several classes was reached."""
    attrs = forest("target", [0, 0]) | {"n_targets": 1}
    attrs["target_weights"] = [float(i) for i in range(len(attrs["target_weights"]))]
    check("TreeEnsembleRegressor", [X], attrs=attrs, dynamic=True, **ML)


@pytest.mark.parametrize("labels", [[3, 5], ["a", "b"], [3, 5, 9]])
def test_tree_classifier(labels: list[Any]) -> None:
    kind = "strings" if isinstance(labels[0], str) else "int64s"
    attrs = forest("class", list(range(len(labels) - 1 if len(labels) == 2 else 3)))
    attrs |= {f"classlabels_{kind}": labels, "post_transform": "LOGISTIC"}
    check("TreeEnsembleClassifier", [X], attrs=attrs, outputs=2, **ML)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes_falsenodeids": [2, 0, 0, 0, 0] * 2}, "cycle"),
        ({"nodes_falsenodeids": [2, 7, 0, 0, 0] * 2}, "no node 7"),
        ({"nodes_featureids": [9] * 10}, "out of range"),
        ({"nodes_values": [0.5]}, "entries"),
        ({"target_ids": [5] * 6}, "out of range"),
        ({"nodes_modes": ["BRANCH_ODD"] * 10}, "not known"),
    ],
)
def test_a_bad_tree_is_refused(change: dict[str, Any], message: str) -> None:
    attrs = forest("target", [0]) | {"n_targets": 1} | change
    model, _ = node_model("TreeEnsembleRegressor", [X], attrs=attrs, **ML)
    with pytest.raises(onnx2nn.Error, match=message):
        onnx2nn.load(model.SerializeToString())


def test_a_long_chain_of_nodes() -> None:
    n = 3000
    ids = list(range(2 * n + 1))
    attrs: dict[str, Any] = {
        "nodes_treeids": [0] * len(ids),
        "nodes_nodeids": ids,
        "nodes_featureids": [0] * len(ids),
        "nodes_values": [float(i) for i in ids],
        "nodes_modes": ["BRANCH_LEQ"] * n + ["LEAF"] * (n + 1),
        "nodes_truenodeids": [*range(n, 2 * n), *[0] * (n + 1)],
        "nodes_falsenodeids": [*range(1, n), 2 * n, *[0] * (n + 1)],
        "target_treeids": [0] * (n + 1),
        "target_nodeids": ids[n:],
        "target_ids": [0] * (n + 1),
        "target_weights": [float(i) for i in range(n + 1)],
        "n_targets": 1,
    }
    model, _ = node_model("TreeEnsembleRegressor", [X], attrs=attrs, **ML)
    source = native.convert(model.SerializeToString(), {}).source
    assert f"depth={n}" in source


@pytest.mark.parametrize("targets", [1, 2])
def test_linear_regressor(targets: int) -> None:
    w = np.linspace(-1, 1, 3 * targets).tolist()
    attrs = {"coefficients": w, "targets": targets, "intercepts": [0.5] * targets}
    check("LinearRegressor", [X], attrs=attrs, domain="ai.onnx.ml", opset=1)


@pytest.mark.parametrize("spare", [0, 6])
@pytest.mark.parametrize("labels", [["a", "b", "c"], [4, 5]])
def test_linear_classifier(labels: list[Any], spare: int) -> None:
    """`spare` coefficients are left over: intercepts say how many classes there are."""
    n = len(labels)
    kind = "strings" if n == 3 else "ints"
    w = np.cos(np.arange(3 * n + spare)).tolist()
    attrs = {
        "coefficients": w,
        "intercepts": [0.1] * n,
        f"classlabels_{kind}": labels,
        "multi_class": 1,
        "post_transform": "SOFTMAX",
    }
    check("LinearClassifier", [X], attrs=attrs, outputs=2, domain="ai.onnx.ml", opset=1)


def test_support_vectors() -> None:
    attrs: dict[str, Any] = {
        "coefficients": [0.5, -0.25],
        "rho": [0.125],
        "support_vectors": [0.0, 1.0, 2.0, -1.0, 0.5, 0.0],
        "n_supports": 2,
        "kernel_type": "RBF",
        "kernel_params": [0.5, 0.0, 3.0],
    }
    check("SVMRegressor", [X], attrs=attrs, domain="ai.onnx.ml", opset=1)
    del attrs["n_supports"]
    attrs |= {"vectors_per_class": [1, 1], "classlabels_ints": [7, 8]}
    check("SVMClassifier", [X], attrs=attrs, outputs=2, domain="ai.onnx.ml", opset=1)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Scaler", {"offset": [0.5], "scale": [2.0]}),
        ("Scaler", {"offset": [0.5, 0.0, 1.0], "scale": [2.0, 1.0, 0.5]}),
        ("Normalizer", {"norm": "L1"}),
        ("Normalizer", {}),
        ("Imputer", {"imputed_value_floats": [9.0, 8.0, 7.0], "replaced_value_float": 0.5}),
        ("Binarizer", {"threshold": 0.5}),
        ("FeatureVectorizer", {"inputdimensions": [3]}),
    ],
)
def test_columns(op: str, attrs: dict[str, Any]) -> None:
    check(op, [X], attrs=attrs, domain="ai.onnx.ml", opset=1, dynamic=True)


WORDS = np.array([["a", "q"], ["c", "b"]], dtype=object)


@pytest.mark.parametrize("keys", ["strings", "int64s", "floats"])
@pytest.mark.parametrize("values", ["strings", "int64s", "floats"])
def test_label_encoder(keys: str, values: str) -> None:
    tables: dict[str, list[Any]] = {
        "strings": ["b", "a", "c"],
        "int64s": [5, -1, 7],
        "floats": [0.5, 2.5, -1.5],
    }
    x = {
        "strings": WORDS,
        "int64s": np.array([[7, 4]]),
        "floats": np.array([2.5, 0.0], np.float32),
    }[keys]
    attrs = {f"keys_{keys}": tables[keys], f"values_{values}": tables[values]}
    check("LabelEncoder", [x], attrs=attrs, domain="ai.onnx.ml", opset=2)


@pytest.mark.parametrize("x", [WORDS, np.array([[1, 0], [2, 9]])])
def test_categories(x: Any) -> None:
    ml: dict[str, Any] = {"domain": "ai.onnx.ml", "opset": 1}
    attrs: dict[str, Any] = {"cats_strings": ["a", "b", "c"], "cats_int64s": [0, 1, 2]}
    check("CategoryMapper", [x], attrs=attrs, **ml)
    check("LabelEncoder", [x], attrs={"classes_strings": ["a", "b", "c"]}, **ml)
    kind = "cats_strings" if x.dtype == object else "cats_int64s"
    check("OneHotEncoder", [x], attrs={kind: attrs[kind]}, **ml)


def test_feature_extractor() -> None:
    check("ArrayFeatureExtractor", [X, np.array([[2, 0]])], domain="ai.onnx.ml", opset=1)


def test_zip_map_alone() -> None:
    model, feeds = node_model(
        "ZipMap", [X], attrs={"classlabels_strings": ["a", "b", "c"]}, domain="ai.onnx.ml", opset=1
    )
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y0"))
    (rows,) = backend.prepare(model).run([feeds["x0"]])
    assert [list(r) for r in rows] == [["a", "b", "c"]] * len(X)
    np.testing.assert_array_equal([list(r.values()) for r in rows], X)
