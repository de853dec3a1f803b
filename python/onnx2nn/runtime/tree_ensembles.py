"""Forests of ai.onnx.ml: packed into tables, and walked with all rows at once."""

import math

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.scores import (
    as_matrix,
    binary_scores,
    pick_label,
    post_transform_scores,
    post_transform_targets,
)
from onnx2nn.runtime.text import string_pick


def forest_depth(roots: list[int], child: list[int]) -> int:
    """Steps from the roots to the deepest leaf; node n's children: child[2n], child[2n + 1]."""
    depth, level = 0, set(roots)
    while True:
        level = {c for n in level for c in child[2 * n : 2 * n + 2] if c != n}
        if not level:
            return depth
        depth += 1
        if depth > len(child):
            raise ValueError("tree ensemble: the nodes form a cycle")


def pack_member_sets(
    modes: list[int], sets: list[list[float]], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Member sets as rows padded with NaN, and each node's row; row 0 is the empty set."""
    width = max(map(len, sets), default=0)
    rows = [[math.nan] * width] + [
        list(s) + [math.nan] * (width - len(s)) for s in sets
    ]
    row_of, used = [], 0
    for mode in modes:
        used += mode == 6
        row_of.append(used if mode == 6 else 0)
    return torch.tensor(rows, dtype=dtype), torch.tensor(row_of, dtype=torch.int32)


def pack_forest(
    *,
    nodes_treeids: list[int],
    nodes_nodeids: list[int],
    nodes_featureids: list[int],
    nodes_values: list[float],
    nodes_modes: list[str],
    nodes_truenodeids: list[int],
    nodes_falsenodeids: list[int],
    nodes_missing_value_tracks_true: list[int] | None,
    leaf_treeids: list[int],
    leaf_nodeids: list[int],
    leaf_targetids: list[int],
    leaf_weights: list[float],
    n_targets: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], int, list[int]]:
    """The attributes of TreeEnsembleRegressor or -Classifier as tensors, depth and modes in use.

    Nodes are numbered over all trees, leaves first. feature, threshold [n]; child [2n] holds the
    false child of node i at 2i and the true one at 2i + 1, and a leaf is its own child; roots [T];
    target, weight [leaves, K]: what each leaf adds, padded with target n_targets and weight 0;
    mode [n] (0 <=, 1 <, 2 >=, 3 >, 4 ==, 5 !=, 6 member) and missing [n], where they are needed.
    Indices are int32, which torch gathers several times faster than int64; target is int64.
    """
    names = ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"]
    is_leaf = [m == "LEAF" for m in nodes_modes]
    order = sorted(range(len(is_leaf)), key=lambda i: not is_leaf[i])
    number = {(nodes_treeids[i], nodes_nodeids[i]): at for at, i in enumerate(order)}
    leaves = sum(is_leaf)
    child: list[int] = []
    mode: list[int] = []
    for at, i in enumerate(order):
        tree = nodes_treeids[i]
        if is_leaf[i]:
            child += [at, at]
            continue
        child += [
            number[tree, nodes_falsenodeids[i]],
            number[tree, nodes_truenodeids[i]],
        ]
        mode.append(names.index(nodes_modes[i].removeprefix("BRANCH_")))
    roots = [
        number[tree, nodes_nodeids[i]]
        for i, tree in enumerate(nodes_treeids)
        if i == 0 or tree != nodes_treeids[i - 1]
    ]
    given: list[list[tuple[int, float]]] = [[] for _ in range(leaves)]
    for tree, node, target, weight in zip(
        leaf_treeids, leaf_nodeids, leaf_targetids, leaf_weights, strict=True
    ):
        if number[tree, node] < leaves:
            given[number[tree, node]].append((target, weight))
    width = max(1, max(map(len, given), default=0))
    given = [g + [(n_targets, 0.0)] * (width - len(g)) for g in given]
    packed = {
        "roots": torch.tensor(roots, dtype=torch.int32),
        "feature": torch.tensor(
            [nodes_featureids[i] for i in order], dtype=torch.int32
        ),
        "threshold": torch.tensor([nodes_values[i] for i in order], dtype=dtype),
        "child": torch.tensor(child, dtype=torch.int32),
        "target": torch.tensor([[t for t, _ in g] for g in given]),
        "weight": torch.tensor([[w for _, w in g] for g in given], dtype=dtype),
    }
    modes = sorted(set(mode))
    if len(modes) > 1:
        packed["mode"] = torch.tensor([0] * leaves + mode, dtype=torch.int8)
    if nodes_missing_value_tracks_true and any(nodes_missing_value_tracks_true):
        packed["missing"] = torch.tensor(
            [nodes_missing_value_tracks_true[i] == 1 for i in order]
        )
    return packed, forest_depth(roots, child), modes


def pack_tree_ensemble(
    *,
    tree_roots: list[int],
    nodes_featureids: list[int],
    nodes_splits: list[float],
    nodes_modes: list[int],
    nodes_truenodeids: list[int],
    nodes_trueleafs: list[int],
    nodes_falsenodeids: list[int],
    nodes_falseleafs: list[int],
    leaf_targetids: list[int],
    leaf_weights: list[float],
    nodes_missing_value_tracks_true: list[int] | None = None,
    membership_values: list[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], int, list[int]]:
    """The attributes of TreeEnsemble (ai.onnx.ml 5) in the form that pack_forest explains.

    Leaf i is node i and node i is node leaves + i; with members [sets + 1, K] and member_row [n]
    where a node asks for membership.
    """
    leaves = len(leaf_targetids)
    child = [i // 2 for i in range(2 * leaves)]
    for i in range(len(nodes_modes)):
        child.append(nodes_falsenodeids[i] + (0 if nodes_falseleafs[i] else leaves))
        child.append(nodes_truenodeids[i] + (0 if nodes_trueleafs[i] else leaves))
    roots = [leaves + r for r in tree_roots]
    packed = {
        "roots": torch.tensor(roots, dtype=torch.int32),
        "feature": torch.tensor([0] * leaves + nodes_featureids, dtype=torch.int32),
        "threshold": torch.tensor([0.0] * leaves + nodes_splits, dtype=dtype),
        "child": torch.tensor(child, dtype=torch.int32),
        "target": torch.tensor(leaf_targetids).reshape(-1, 1),
        "weight": torch.tensor(leaf_weights, dtype=dtype).reshape(-1, 1),
    }
    mode = [0] * leaves + nodes_modes
    modes = sorted(set(nodes_modes))
    if len(modes) > 1:
        packed["mode"] = torch.tensor(mode, dtype=torch.int8)
    if nodes_missing_value_tracks_true and any(nodes_missing_value_tracks_true):
        tracks = [False] * leaves + [t == 1 for t in nodes_missing_value_tracks_true]
        packed["missing"] = torch.tensor(tracks)
    if 6 in modes:
        sets: list[list[float]] = [[]]
        for member in membership_values or []:
            if math.isnan(member):
                sets.append([])
            else:
                sets[-1].append(member)
        packed["members"], packed["member_row"] = pack_member_sets(
            mode, sets[: nodes_modes.count(6)], dtype
        )
    return packed, forest_depth(roots, child), modes


def compare_split(value: Tensor, split: Tensor, mode: int) -> Tensor:
    """One of the six comparisons that tree nodes make (0 <=, 1 <, 2 >=, 3 >, 4 ==, 5 !=)."""
    compare = (torch.le, torch.lt, torch.ge, torch.gt, torch.eq, torch.ne)[mode]
    return compare(value, split)


def tree_leaves(
    x: Tensor,
    roots: Tensor,
    feature: Tensor,
    threshold: Tensor,
    child: Tensor,
    mode: Tensor | None = None,
    missing: Tensor | None = None,
    members: Tensor | None = None,
    member_row: Tensor | None = None,
    *,
    depth: int,
    modes: list[int],
) -> Tensor:
    """The leaf [N, T] that each row of x [N, F] reaches in each tree; all walk down together.

    `modes` lists the comparisons in use; `mode` says which is each node's, when there are several.
    """
    rows, width = x.shape
    values = (x if x.is_floating_point() else x.float()).reshape(-1)
    node = roots.repeat(rows)
    first = (
        torch.arange(rows, device=x.device).mul(width).repeat_interleave(roots.shape[0])
    )
    for _ in range(depth):
        value = values.index_select(0, first + feature.index_select(0, node))
        split = threshold.index_select(0, node)
        hit = torch.zeros_like(node, dtype=torch.bool)
        kind = None if mode is None else mode.index_select(0, node)
        for m in modes:
            if m == 6 and members is not None and member_row is not None:
                answer = (
                    members[member_row.index_select(0, node)] == value.unsqueeze(1)
                ).any(1)
            else:
                answer = compare_split(value, split, m)
            hit = answer if kind is None else torch.where(kind == m, answer, hit)
        if missing is not None:
            hit = hit | (missing.index_select(0, node) & value.isnan())
        node = child.index_select(0, 2 * node + hit)
    return node.reshape(rows, roots.shape[0])


def tree_scores(
    leaf: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    n_targets: int,
    aggregate_function: str = "SUM",
) -> Tensor:
    """What the leaves [N, T] give each target [N, n_targets]; 0 where no leaf names the target."""
    names, given = target[leaf].flatten(1), weight[leaf].flatten(1)
    zeros = given.new_zeros(
        leaf.shape[0], n_targets + 1
    )  # the last column takes the padding
    if aggregate_function == "MIN":
        scores = zeros.scatter_reduce(1, names, given, "amin", include_self=False)
    elif aggregate_function == "MAX":
        scores = zeros.scatter_reduce(1, names, given, "amax", include_self=False)
    else:
        scores = zeros.scatter_add(1, names, given)
    scores = scores[:, :n_targets]
    return scores / leaf.shape[1] if aggregate_function == "AVERAGE" else scores


def tree_ensemble(
    x: Tensor,
    roots: Tensor,
    feature: Tensor,
    threshold: Tensor,
    child: Tensor,
    target: Tensor,
    weight: Tensor,
    base_values: Tensor | None = None,
    mode: Tensor | None = None,
    missing: Tensor | None = None,
    members: Tensor | None = None,
    member_row: Tensor | None = None,
    *,
    depth: int,
    modes: list[int],
    n_targets: int,
    aggregate_function: str = "SUM",
    post_transform: str = "NONE",
) -> Tensor:
    """ai.onnx.ml TreeEnsemble on the tensors that pack_tree_ensemble makes; x's floating dtype."""
    dtype = x.dtype if x.is_floating_point() else torch.float32
    work = torch.float64 if dtype == torch.float64 else torch.float32
    leaf = tree_leaves(
        as_matrix(x),
        *(roots, feature, threshold, child, mode, missing, members, member_row),
        depth=depth,
        modes=modes,
    )
    scores = tree_scores(
        leaf,
        target,
        weight.to(work),
        n_targets=n_targets,
        aggregate_function=aggregate_function,
    )
    if base_values is not None:
        base = base_values.to(work)
        if n_targets > 1:  # a target that no leaf of a row names stays 0
            named = base.new_zeros(leaf.shape[0], n_targets + 1)
            base = base * named.scatter(1, target[leaf].flatten(1), 1.0)[:, :n_targets]
        scores = scores + base
    return post_transform_targets(scores, post_transform).to(dtype)


def tree_ensemble_regressor(
    x: Tensor,
    roots: Tensor,
    feature: Tensor,
    threshold: Tensor,
    child: Tensor,
    target: Tensor,
    weight: Tensor,
    base_values: Tensor | None = None,
    mode: Tensor | None = None,
    missing: Tensor | None = None,
    *,
    depth: int,
    modes: list[int],
    n_targets: int,
    aggregate_function: str = "SUM",
    post_transform: str = "NONE",
) -> Tensor:
    """ai.onnx.ml TreeEnsembleRegressor on pack_forest's tensors; float32 [N, targets]."""
    return tree_ensemble(
        x,
        *(roots, feature, threshold, child, target, weight, base_values, mode, missing),
        depth=depth,
        modes=modes,
        n_targets=n_targets,
        aggregate_function=aggregate_function,
        post_transform=post_transform,
    ).float()


def tree_ensemble_classifier(
    x: Tensor,
    roots: Tensor,
    feature: Tensor,
    threshold: Tensor,
    child: Tensor,
    target: Tensor,
    weight: Tensor,
    labels: Tensor | list[str],
    base_values: Tensor | None = None,
    mode: Tensor | None = None,
    missing: Tensor | None = None,
    *,
    depth: int,
    modes: list[int],
    binary: bool,
    all_positive: bool,
    post_transform: str = "NONE",
) -> tuple[Tensor | np.ndarray, Tensor]:
    """ai.onnx.ml TreeEnsembleClassifier on the tensors that pack_forest makes: labels and scores.

    binary: there are two labels and all weights name one class; all_positive: no weight is below 0.
    """
    x = as_matrix(x)
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    leaf = tree_leaves(
        x, roots, feature, threshold, child, mode, missing, depth=depth, modes=modes
    )
    n = len(labels)
    scores = tree_scores(leaf, target, weight.to(work), n_targets=n)
    named = torch.zeros(leaf.shape[0], n + 1, dtype=torch.bool, device=x.device)
    named = named.scatter(1, target[leaf].flatten(1), True)[:, :n]
    base = None if base_values is None else base_values.to(work)
    if n > 2:
        if base is not None:
            scores = scores + base
            best = scores.argmax(1)
        else:
            best = scores.masked_fill(~named, -math.inf).argmax(1)
        return pick_label(labels, best), post_transform_scores(
            scores, post_transform
        ).float()
    single = scores[:, :1]
    if n == 1:
        single = single if base is None else single + base
        sign = (single[:, 0] > 0).long()
        answer = string_pick(labels, 0 * sign) if isinstance(labels, list) else sign
        return answer, post_transform_targets(single, post_transform).float()
    # A class that no leaf of a row names counts as 0, whatever its base value.
    second = named[:, 1:2]
    if base is not None and base.shape[0] == 2:
        raised = single + base[1]
        pair = (
            torch.where(second, torch.cat([-raised, raised], 1), scores + base) * named
        )
        out = post_transform_scores(pair, post_transform)
    else:
        if base is not None:
            single = single + base
        pair = torch.cat([single, scores[:, 1:]], 1) * named
        lone = binary_scores(
            single,
            binary=binary,
            all_positive=all_positive,
            post_transform=post_transform,
        )
        out = torch.where(second, post_transform_scores(pair, post_transform), lone)
    decisive = torch.where(second, pair[:, 1:], pair[:, :1])
    positive = (decisive > (0.5 if binary and all_positive else 0.0)).squeeze(1).long()
    if not binary and not isinstance(labels, list):
        return (
            positive,
            out.float(),
        )  # ONNX Runtime then answers 0 and 1, whatever the labels are
    return pick_label(labels, positive), out.float()
