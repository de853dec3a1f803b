"""The operators of ai.onnx.ml; where the specification is silent, as ONNX Runtime answers."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.text import string_array, string_index, string_pick


def pick_label(labels: Tensor | list[str], index: Tensor) -> Tensor | np.ndarray:
    """Class labels at `index`: integers stay a tensor, strings become a string tensor."""
    return string_pick(labels, index) if isinstance(labels, list) else labels[index]


def as_matrix(x: Tensor) -> Tensor:
    """A batch of rows; ai.onnx.ml reads a vector as a batch of one."""
    return x.reshape(1, -1) if x.dim() == 1 else x


def probit(x: Tensor) -> Tensor:
    """ai.onnx.ml's PROBIT by ONNX Runtime's closed form, which torch.erfinv is not."""
    y = 2 * x - 1
    log = torch.log((1 - y) * (1 + y))
    v = 2 / (3.14159 * 0.147) + 0.5 * log
    root = torch.sqrt(torch.sqrt(v * v - log / 0.147) - v)
    return 1.41421356 * torch.where(y < 0, -root, root)


def softmax_zero(x: Tensor) -> Tensor:
    """ai.onnx.ml's SOFTMAX_ZERO: a softmax over the non-zero scores; zeros stay zero."""
    top = x.amax(-1, keepdim=True)
    used = x.abs() > 1e-7
    e = torch.where(used, torch.exp(x - top), 0.0)
    return torch.where(used, e, x * torch.exp(-top)) / e.sum(-1, keepdim=True)


def post_transform_scores(x: Tensor, post_transform: str) -> Tensor:
    """ai.onnx.ml's post_transform on rows of scores [N, C]."""
    if post_transform == "SOFTMAX":
        return torch.softmax(x, -1)
    if post_transform == "LOGISTIC":
        return torch.sigmoid(x)
    if post_transform == "SOFTMAX_ZERO":
        return softmax_zero(x)
    return probit(x) if post_transform == "PROBIT" else x


def post_transform_targets(x: Tensor, post_transform: str) -> Tensor:
    """post_transform on regression targets: a single target knows only PROBIT."""
    return (
        x
        if x.shape[1] == 1 and post_transform != "PROBIT"
        else post_transform_scores(x, post_transform)
    )


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


def binary_scores(
    score: Tensor, *, binary: bool, all_positive: bool, post_transform: str
) -> Tensor:
    """Two columns from a binary classifier's one score [N, 1], as ONNX Runtime makes them."""
    if post_transform == "PROBIT":
        return torch.cat([probit(score), torch.zeros_like(score)], 1)
    if post_transform == "LOGISTIC":
        return torch.sigmoid(torch.cat([-score, score], 1))
    return torch.cat([1 - score if binary and all_positive else -score, score], 1)


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


def linear_regressor(
    x: Tensor,
    coefficients: Tensor,
    intercepts: Tensor | None = None,
    *,
    targets: int = 1,
    post_transform: str = "NONE",
) -> Tensor:
    """ai.onnx.ml LinearRegressor: float32 [N, targets]; F.linear with a post_transform."""
    y = as_matrix(x).float() @ coefficients.reshape(targets, -1).T
    if intercepts is not None and intercepts.shape[0] == targets:
        y = y + intercepts
    return post_transform_targets(y, post_transform)


def linear_scores(x: Tensor, coefficients: Tensor, intercepts: Tensor | None) -> Tensor:
    """Scores [N, C]; there are as many classes as intercepts, whatever follows in coefficients."""
    weight = coefficients.reshape(-1, x.shape[1])
    if intercepts is None:
        return x @ weight.T
    return x @ weight[: len(intercepts)].T + intercepts


def linear_classifier(
    x: Tensor,
    coefficients: Tensor,
    intercepts: Tensor | None,
    labels: Tensor | list[str],
    *,
    post_transform: str = "NONE",
) -> tuple[Tensor | np.ndarray, Tensor]:
    """ai.onnx.ml LinearClassifier: labels [N] and scores [N, C] in float32."""
    scores = linear_scores(as_matrix(x).float(), coefficients, intercepts)
    if scores.shape[1] > 1:
        label = pick_label(labels, scores.argmax(1))
        return label, post_transform_scores(scores, post_transform)
    positive = (scores[:, 0] > 0).long()
    if len(labels) == 2:
        both = binary_scores(
            scores, binary=True, all_positive=True, post_transform=post_transform
        )
        return pick_label(labels, positive), both
    # ONNX Runtime then answers 0 and 1, whatever the label is called.
    targets = post_transform_targets(scores, post_transform)
    if isinstance(labels, list):
        return string_pick(["0", "1"], positive), targets
    return positive, targets


def svm_kernel(
    x: Tensor,
    vectors: Tensor,
    kernel_type: str = "LINEAR",
    kernel_params: list[float] | None = None,
) -> Tensor:
    """The kernel of each row of x [N, F] with each vector [V, F]: [N, V]."""
    gamma, coef0, degree = kernel_params or [0.0, 0.0, 0.0]
    if kernel_type == "RBF":
        # Written out: |x|^2 - 2xv + |v|^2 loses the digits that the exponential needs.
        return torch.exp(-gamma * (x.unsqueeze(1) - vectors).square().sum(-1))
    dot = x @ vectors.T
    if kernel_type == "POLY":
        return (gamma * dot + coef0) ** degree
    return torch.tanh(gamma * dot + coef0) if kernel_type == "SIGMOID" else dot


def svm_regressor(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    support_vectors: Tensor | None = None,
    *,
    n_supports: int = 0,
    kernel_type: str = "LINEAR",
    kernel_params: list[float] | None = None,
    one_class: int = 0,
) -> Tensor:
    """ai.onnx.ml SVMRegressor: float32 [N, 1]; ONNX Runtime ignores its post_transform."""
    x = as_matrix(x).float()
    if support_vectors is not None and n_supports > 0:
        x = svm_kernel(
            x, support_vectors.reshape(n_supports, -1), kernel_type, kernel_params or []
        )
    y = x @ coefficients.reshape(-1, 1) + rho[0]
    return torch.where(y > 0, 1.0, -1.0) if one_class else y


def improved_pairs(p: Tensor, q: Tensor, qp: Tensor, pqp: Tensor) -> Tensor:
    """One round of Wu, Lin and Weng's iteration, class by class."""
    for t in range(p.shape[1]):
        diagonal, qpt = q[:, t, t].unsqueeze(1), qp[:, t].unsqueeze(1)
        diff = (pqp - qpt) / diagonal
        raised = torch.cat([p[:, :t], p[:, t : t + 1] + diff, p[:, t + 1 :]], 1)
        p = raised / (1 + diff)
        pqp = (pqp + diff * (diff * diagonal + 2 * qpt)) / (1 + diff) ** 2
        qp = (qp + diff * q[:, t]) / (1 + diff)
    return p


def pairwise_probabilities(r: Tensor) -> Tensor:
    """Class probabilities [N, C] from pairwise ones [N, C, C] by Wu, Lin and Weng's iteration.

    It stops where ONNX Runtime stops, long before it has converged, so no closed form will do.
    """
    rows, n, _ = r.shape
    p = r.new_full((rows, n), 1 / n)
    off = 1 - torch.eye(n, device=r.device, dtype=r.dtype)
    q = torch.diag_embed((r.square() * off).sum(1)) - r.transpose(1, 2) * r * off
    running = torch.ones(rows, 1, dtype=torch.bool, device=r.device)
    for _ in range(100):
        qp = (q @ p.unsqueeze(2)).squeeze(2)
        pqp = (p * qp).sum(1, keepdim=True)
        running = running & ((qp - pqp).abs().amax(1, keepdim=True) >= 0.005 / n)
        if not bool(running.any()):
            break
        p = torch.where(running, improved_pairs(p, q, qp, pqp), p)
    return p


def pair_numbers(n: int) -> tuple[list[int], list[int]]:
    """The first and the second of each pair of n classes."""
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def svm_pair_scores(
    kernel: Tensor, coefficients: Tensor, rho: Tensor, vectors_per_class: list[int]
) -> Tensor:
    """One-against-one scores [N, pairs] from the kernel [N, vectors]."""
    first, second = pair_numbers(len(vectors_per_class))
    rows = coefficients.reshape(-1, kernel.shape[1]).T
    pieces = zip(
        torch.split(kernel, vectors_per_class, 1),
        torch.split(rows, vectors_per_class),
        strict=True,
    )
    # parts[:, c, r]: row r of the coefficients on the vectors of class c alone
    parts = torch.stack([k @ w for k, w in pieces], 1)
    left = parts[:, first, [j - 1 for j in second]]
    return left + parts[:, second, first] + rho[: len(first)]


def pair_votes(scores: Tensor, n: int) -> Tensor:
    """How many pairs each of n classes wins, [N, n]."""
    first, second = (torch.tensor(c, device=scores.device) for c in pair_numbers(n))
    winner = torch.where(scores > 0, first, second)
    votes = scores.new_zeros(scores.shape[0], n)
    return votes.scatter_add(1, winner, torch.ones_like(scores))


def svm_probabilities(scores: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """Class probabilities [N, n] from one-against-one scores, by Platt's sigmoid of each pair."""
    first, second = pair_numbers(n)
    chance = torch.sigmoid(-(scores * a[: len(first)] + b[: len(first)]))
    chance = chance.clamp(1e-7, 1 - 1e-7)
    r = scores.new_zeros(scores.shape[0], n, n)
    r[:, first, second] = chance
    r[:, second, first] = 1 - chance
    return pairwise_probabilities(r)


def svm_without_vectors(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    labels: Tensor | list[str],
    post_transform: str,
    all_positive: bool,
) -> tuple[Tensor | np.ndarray, Tensor]:
    """SVMClassifier whose classes have a row of coefficients each."""
    n = len(labels)
    scores = x @ coefficients.reshape(n, -1).T + rho[0]
    best = scores.argmax(1)
    if n == 2:
        top = scores.amax(1)
        best = torch.where(top >= 0.5 if all_positive else top > 0, 1, best)
    return pick_label(labels, best), post_transform_scores(scores, post_transform)


def svm_classifier(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    labels: Tensor | list[str],
    support_vectors: Tensor | None = None,
    prob_a: Tensor | None = None,
    prob_b: Tensor | None = None,
    *,
    vectors_per_class: list[int] | None = None,
    post_transform: str = "NONE",
    all_positive: bool = False,
    **kernel: Any,
) -> tuple[Tensor | np.ndarray, Tensor]:
    """ai.onnx.ml SVMClassifier: labels by one-against-one votes, and scores in float32."""
    x, model = as_matrix(x).float(), (coefficients, rho)
    if not vectors_per_class or support_vectors is None:
        return svm_without_vectors(x, *model, labels, post_transform, all_positive)
    vectors = support_vectors.reshape(sum(vectors_per_class), -1)
    scores = svm_pair_scores(
        svm_kernel(x, vectors, **kernel), *model, vectors_per_class
    )
    n = len(labels)
    label = pick_label(labels, pair_votes(scores, n).argmax(1))
    return label, svm_class_scores(scores, prob_a, prob_b, n, post_transform)


def svm_class_scores(
    scores: Tensor, a: Tensor | None, b: Tensor | None, n: int, post_transform: str
) -> Tensor:
    """What SVMClassifier gives beside the label: probabilities, or the scores of pairs."""
    if a is not None and b is not None and a.shape[0]:
        chances = svm_probabilities(scores, a, b, n)
        return post_transform_scores(chances, post_transform)
    if n > 2:
        return post_transform_scores(scores, post_transform)
    sides = {"binary": True, "all_positive": post_transform != "NONE"}
    return binary_scores(scores, post_transform=post_transform, **sides)


def feature_scaler(x: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    """ai.onnx.ml Scaler: (x - offset) * scale per column, in float32."""
    return ((x - offset) * scale).float()


def feature_normalizer(x: Tensor, *, norm: str = "MAX") -> Tensor:
    """ai.onnx.ml Normalizer: rows over their largest value, L1 or L2 norm; zero rows stay."""
    x = x.float()
    if norm == "MAX":
        size = x.amax(-1, keepdim=True)
    else:
        size = torch.linalg.vector_norm(x, 1 if norm == "L1" else 2, -1, keepdim=True)
    return x / torch.where(size == 0, 1.0, size)


def imputer(x: Tensor, values: Tensor, *, replaced_value: float = 0.0) -> Tensor:
    """ai.onnx.ml Imputer: puts `values` (one, or one a column) where x equals replaced_value."""
    gone = x.isnan() if math.isnan(replaced_value) else x == replaced_value
    if values.shape[0] != x.shape[-1]:
        values = values[:1]
    return torch.where(gone, values.to(x.dtype), x)


def feature_binarizer(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    """ai.onnx.ml Binarizer: 1 where x is above the threshold, else 0, in x's dtype."""
    return (x > threshold).to(x.dtype)


def one_hot_encoder(
    x: Tensor | np.ndarray, categories: Tensor | list[str], *, zeros: int = 1
) -> Tensor:
    """ai.onnx.ml OneHotEncoder: float32, a column a category; all known where not `zeros`."""
    if isinstance(categories, list):
        index = string_index(np.asarray(x, dtype=object), categories)
        hot = index.unsqueeze(-1) == torch.arange(len(categories))
    else:
        hot = torch.eq(torch.as_tensor(x).to(torch.int64).unsqueeze(-1), categories)
    if not zeros and not bool(hot.any(-1).all()):
        raise ValueError(
            "OneHotEncoder: x holds a category that the model does not list"
        )
    return hot.float()


def key_index(x: Tensor, keys: Tensor) -> Tensor:
    """The first position of each x in `keys`, len(keys) where there is none; NaN equals NaN."""
    count = keys.shape[0]
    if not count:
        return torch.zeros_like(x, dtype=torch.int64)
    table, order = torch.sort(
        keys.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf), stable=True
    )
    at = order[torch.searchsorted(table, x.to(keys.dtype)).clamp(max=count - 1)]
    index = torch.where(keys[at] == x, at, count)
    if not keys.is_floating_point():
        return index
    nan = (
        torch.cat([keys.isnan(), keys.new_ones(1, dtype=torch.bool)])
        .to(torch.int8)
        .argmax()
    )
    return torch.where(x.isnan(), nan, index)


def key_places(
    x: Tensor | np.ndarray, keys: Tensor | list[str] | None, count: int
) -> Tensor:
    """The position of each x among the keys, `count` where there is none."""
    if isinstance(keys, list):
        return string_index(np.asarray(x, dtype=object), keys)
    if keys is not None:
        return key_index(torch.as_tensor(x), keys)
    index = torch.as_tensor(x).to(torch.int64)
    return torch.where((index < 0) | (index >= count), count, index)


def label_encoder(
    x: Tensor | np.ndarray,
    keys: Tensor | list[str] | None,
    values: Tensor | list[str] | None,
    *,
    default: float | str,
) -> Tensor | np.ndarray:
    """ai.onnx.ml LabelEncoder: values[i] where x is keys[i], else `default`.

    keys None: x counts positions itself; values None: the answer is the position (LabelEncoder 1).
    """
    listed = keys if keys is not None else values
    count = len(listed) if listed is not None else 0
    index = key_places(x, keys, count)
    if isinstance(values, list):
        return string_pick([*values, str(default)], index)
    if values is None:
        return torch.where(index == count, int(default), index)
    table = torch.cat([values.reshape(-1), values.new_full((1,), float(default))])
    return table[index.to(values.device)]


def category_mapper(
    x: Tensor | np.ndarray,
    cats_strings: list[str],
    cats_int64s: Tensor,
    *,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Tensor | np.ndarray:
    """ai.onnx.ml CategoryMapper: strings to integers, or integers to strings."""
    if isinstance(x, Tensor):
        return label_encoder(x, cats_int64s, cats_strings, default=default_string)
    return label_encoder(x, cats_strings, cats_int64s, default=default_int64)


def feature_vectorizer(inputs: list[Tensor], *, inputdimensions: list[int]) -> Tensor:
    """ai.onnx.ml FeatureVectorizer: inputs side by side in float32, each cut or padded."""
    rows = [as_matrix(x).flatten(1).float() for x in inputs]
    sized = zip(rows, inputdimensions, strict=True)
    return torch.cat(
        [
            torch.nn.functional.pad(x[:, :size], (0, max(0, size - x.shape[1])))
            for x, size in sized
        ],
        1,
    )


def array_feature_extractor(
    x: Tensor | np.ndarray, index: Tensor
) -> Tensor | np.ndarray:
    """ai.onnx.ml ArrayFeatureExtractor: x[..., index]; a vector x gives one row."""
    flat = index.reshape(-1)
    if isinstance(x, Tensor):
        picked = x.index_select(-1, flat)
        return picked.unsqueeze(0) if x.dim() == 1 else picked
    chosen = np.take(x, flat.cpu().numpy(), axis=-1)
    return chosen[None] if x.ndim == 1 else chosen


def dict_vectorizer(
    x: dict[str | int, float | str],
    vocabulary: list[str | int],
    *,
    dtype: torch.dtype | None = torch.float32,
) -> Tensor | np.ndarray:
    """ai.onnx.ml DictVectorizer: values in the vocabulary's order, [1, V]; dtype None: strings."""
    if dtype is None:
        return string_array([str(x.get(k, "")) for k in vocabulary]).reshape(1, -1)
    return torch.tensor(
        [[float(x.get(k, 0)) for k in vocabulary]], dtype=torch.float64
    ).to(dtype)


def zip_map(x: Tensor, labels: list[str] | list[int]) -> list[dict[str | int, float]]:
    """ai.onnx.ml ZipMap: a list of maps from label to score, one a row."""
    order = sorted(
        range(len(labels)), key=lambda i: labels[i]
    )  # as ONNX Runtime lists them
    names = [labels[i] for i in order]
    return [
        dict(zip(names, row, strict=True)) for row in as_matrix(x)[:, order].tolist()
    ]


def cast_map(
    x: dict[int, float | str],
    *,
    cast_to: str = "TO_FLOAT",
    map_form: str = "DENSE",
    max_map: int = 1,
) -> Tensor | np.ndarray:
    """ai.onnx.ml CastMap: values by ascending key, [1, n]; SPARSE: by position, [1, max_map]."""
    keys = sorted(x) if map_form == "DENSE" else list(range(max_map))
    if cast_to == "TO_STRING":
        words = [x.get(k, "0.f") for k in keys]
        return string_array(
            [w if isinstance(w, str) else f"{w:f}" for w in words]
        ).reshape(1, -1)
    numbers = [float(x.get(k, 0)) for k in keys]
    dtype = torch.float32 if cast_to == "TO_FLOAT" else torch.int64
    return torch.tensor([numbers], dtype=torch.float64).to(dtype)
