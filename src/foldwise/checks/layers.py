"""How layers are called in sentences: by their names, or by what they are where the name is a bare number."""

from __future__ import annotations

from torch import nn

BEFORE = "before "  # begins the name of a function that stands between two layers
ENDS = (
    ("in_features", "out_features"), ("in_channels", "out_channels"), ("num_embeddings", "embedding_dim"),
)  # fmt: skip
WIDTHS = ("num_features", "normalized_shape", "num_channels")


def called(name: str, module: nn.Module | None = None) -> str:
    """Call a layer, or a parameter of one, in a sentence: names of words by themselves, numbers with what they number.

    `module` is the network that has the layer; without it, or when there is no such layer, numbers are all there is.

    >>> net = nn.Sequential(nn.Linear(32, 10), nn.ReLU())
    >>> called("0", net), called("1", net), called("0.weight", net)
    ('layer 0 (Linear 32→10)', 'layer 1 (ReLU)', 'the weight of layer 0 (Linear 32→10)')
    >>> called("hidden1", net), called("before 1", net), called("2")
    ('hidden1', 'the function before layer 1 (ReLU)', 'layer 2')
    """
    if name.startswith(BEFORE):
        own = called(name.removeprefix(BEFORE), module)
        return f"the function before {own}" if own != name.removeprefix(BEFORE) else name
    path, _, last = name.rpartition(".")
    if last.isdigit():
        kind = _kind(name, module)
        return f"layer {name}{f' ({kind})' if kind else ''}"
    if path.rpartition(".")[2].isdigit():
        return f"the {last} of {called(path, module)}"
    return name


def described(layer: nn.Module) -> str:
    """Say what a layer is, with its size.

    >>> described(nn.Conv2d(3, 16, 5)), described(nn.BatchNorm1d(8)), described(nn.Tanh())
    ('Conv2d 3→16', 'BatchNorm1d 8', 'Tanh')
    """
    kind = type(layer).__name__.removeprefix("Keyed")  # dropout by keys stands where torch's was
    for first, last in ENDS:
        if hasattr(layer, first) and hasattr(layer, last):
            return f"{kind} {getattr(layer, first)}→{getattr(layer, last)}"
    for width in WIDTHS:
        if hasattr(layer, width):
            size = getattr(layer, width)
            return f"{kind} {'×'.join(map(str, size)) if isinstance(size, tuple) else size}"
    return kind


def _kind(name: str, module: nn.Module | None) -> str:
    try:
        return "" if module is None else described(module.get_submodule(name))
    except AttributeError:
        return ""
