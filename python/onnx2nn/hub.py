"""Models of a hub: `hf://owner/name/file.onnx`, fetched by huggingface_hub into its cache."""

import posixpath

from onnx2nn.errors import Error, first_line

__all__ = ["HUB", "fetch", "path_on_hub"]

HUB = "hf://"


def path_on_hub(model: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of `hf://owner/name/file.onnx` or `hf://owner/name@v1/file.onnx`.

    Raises Error where it is neither.
    """
    owner, _, rest = model.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    name, at, revision = name.partition("@")
    if not (owner and name and file) or (at and not revision):
        raise Error(f"{model}: a model of a hub is like {HUB}owner/name/file.onnx", usage=True)
    return f"{owner}/{name}", revision or None, file


def fetch(model: str) -> str:
    """The path of a model of a hub, fetched with its external data where it is not in the cache.

    Raises Error where huggingface_hub is not installed, or the hub does not give the files.
    """
    repository, revision, file = path_on_hub(model)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise Error(
            f"{model}: huggingface_hub is not installed, which fetches models of a hub: "
            'pip install "onnx2nn[hub]"',
            usage=True,
        ) from error
    from onnx2nn.check.fields import external_locations

    def fetched(name: str) -> str:
        try:
            return str(hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # the hub's, the network's and the disk's
            message = f"{HUB}{repository}/{name}: cannot be fetched: {first_line(error)}"
            raise Error(message, unreadable=True) from error

    path = fetched(file)
    for location in external_locations(path):
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(file), location))
        # The core refuses what lies outside, and says why.
        if not beside.startswith(("../", "/")):
            fetched(beside)
    return path
