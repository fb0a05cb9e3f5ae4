"""Networks of one's own that cannot be trained are refused when they are built."""

import pytest
from torch import nn

from foldwise.errors import NetworkError
from foldwise.nets.build import build
from foldwise.settings import make_settings


def test_layers_that_do_not_know_their_size_are_refused() -> None:
    with pytest.raises(NetworkError, match="does not know the size of"):
        build(make_settings({"network": "custom"}), 3, 1, net=lambda: nn.Sequential(nn.LazyLinear(1)))
