"""The Python helpers that pages may copy: short, each for one thing, and none that draws in another by a name."""

import ast
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "python/onnx2nn/runtime"
MOST = 25

# Why a helper is longer. The list may only shrink.
SIGNATURE = "its inputs and attributes alone take most of the lines"
SEARCH = "one loop of a search that ONNX Runtime defines step by step"
FORMAT = "a format of bytes or of text, case by case"
TREES = "made once, from attributes in lists that belong together"
LONGER = {
    "group_query_attention": SIGNATURE,
    "paged_attention": SIGNATURE,
    "sparse_attention": SIGNATURE,
    "mixture_of_experts": SIGNATURE,
    "quantised_mixture_of_experts": SIGNATURE,
    "q_embed_layer_norm": SIGNATURE,
    "tree_ensemble": SIGNATURE,
    "tree_ensemble_classifier": SIGNATURE,
    "tree_ensemble_regressor": SIGNATURE,
    "tree_leaves": SIGNATURE,
    "pack_forest": TREES,
    "pack_tree_ensemble": TREES,
    "beam_step": SIGNATURE,
    "best_sequences": SEARCH,
    "beam_search_decoder": SEARCH,
    "beam_search_encoder_decoder": SEARCH,
    "greedy_search_decoder": SEARCH,
    "sampling_decoder": SEARCH,
    "gated_delta_net": SIGNATURE,
    "roi_align": SIGNATURE,
    "hyper_connection_low_rank_mix": SIGNATURE,
    "ngram_hash_mapping": SIGNATURE,
    "ngram_hashes": SIGNATURE,
    "varlen_ngram_hash_mapping": SIGNATURE,
    "tf_idf_vectorizer": SIGNATURE,
}


def helpers() -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for path in sorted(RUNTIME.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                assert node.name not in found, f"{node.name} is there twice"
                found[node.name] = node
    return found


def lines(node: ast.FunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_helpers_are_short() -> None:
    longer = {name: lines(node) for name, node in helpers().items() if lines(node) > MOST}
    assert set(longer) == set(LONGER), {
        name: longer.get(name) for name in set(longer) ^ set(LONGER)
    }
