"""Columns of features, their encodings and maps, as ai.onnx.ml has them."""

import math

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.scores import as_matrix
from onnx2nn.runtime.text import string_array, string_index, string_pick


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
