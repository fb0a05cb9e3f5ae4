"""Networks and losses of a user's own, with a fault planted or odd and healthy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32


def plain(inputs: int, outputs: int) -> nn.Sequential:
    """Give two hidden layers of ReLU: the healthy twin of most networks here."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
    )


def linear(inputs: int, outputs: int) -> nn.Module:
    """Give linear or softmax regression."""
    return nn.Linear(inputs, outputs)


def no_activation(inputs: int, outputs: int) -> nn.Module:
    """Leave the activations out."""
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, outputs))


def softmax_hidden(inputs: int, outputs: int) -> nn.Module:
    """Use softmax as hidden activation."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH),
        nn.Softmax(-1),
        nn.Linear(WIDTH, WIDTH),
        nn.Softmax(-1),
        nn.Linear(WIDTH, outputs),
    )


class InList(nn.Module):
    """Keep the hidden layers in a Python list."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = [nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, WIDTH)]
        self.output = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Run them all."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.output(x)


class Skipped(nn.Module):
    """Never use the second hidden layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Forget the second."""
        return self.output(F.relu(self.first(x)))


class Detached(nn.Module):
    """Run the hidden layers without gradients, though they are to be trained."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.output = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Cut the graph behind the body."""
        with torch.no_grad():
            h = self.body(x)
        return self.output(h)


def frozen_body(inputs: int, outputs: int) -> nn.Module:
    """Freeze a wide body openly and train a new head."""
    body = nn.Sequential(nn.Linear(inputs, 256), nn.ReLU())
    body.requires_grad_(False)
    return nn.Sequential(body, nn.Linear(256, outputs))


class SpareHead(nn.Module):
    """Have a second head that this task does not use."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, outputs)
        self.other = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 7))

    def forward(self, x: Tensor) -> Tensor:
        """Use the one head."""
        return self.head(self.body(x))


def softmax_end(inputs: int, outputs: int) -> nn.Module:
    """Give probabilities where scores are expected: a sigmoid for one output, a softmax for more."""
    return nn.Sequential(*plain(inputs, outputs), nn.Sigmoid() if outputs == 1 else nn.Softmax(-1))


def log_softmax_end(inputs: int, outputs: int) -> nn.Module:
    """Give the logarithms of probabilities; the loss does so once more, which changes nothing."""
    return nn.Sequential(*plain(inputs, outputs), nn.LogSoftmax(-1))


def dropout_before_normalization(inputs: int, outputs: int) -> nn.Module:
    """Put dropout directly before batch normalization."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(WIDTH),
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def dropout_behind_normalization(inputs: int, outputs: int) -> nn.Module:
    """Put it behind the activation that follows the normalization."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.5), nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def _normalized(inputs: int, outputs: int, momentum: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH, momentum=momentum), nn.ReLU(),
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, momentum=momentum), nn.ReLU(), nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def frozen_statistics(inputs: int, outputs: int) -> nn.Module:
    """Never update running statistics."""
    return _normalized(inputs, outputs, 0.0)


def normalized(inputs: int, outputs: int) -> nn.Module:
    """Update them as usual."""
    return _normalized(inputs, outputs, 0.1)


def strong_dropout(inputs: int, outputs: int) -> nn.Module:
    """Drop 19 of 20 units."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Dropout(0.95), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.95),
        nn.Linear(WIDTH, outputs),
    )  # fmt: skip


class Sparse(nn.Module):
    """Have ReLU units of which 9 of 10 are 0 in a row, each of them alive for some rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, 256)
        self.output = nn.Linear(256, outputs)
        nn.init.kaiming_normal_(self.hidden.weight)
        nn.init.constant_(self.hidden.bias, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Run them."""
        return self.output(F.relu(self.hidden(x)))


class Tied(nn.Module):
    """Use one layer twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH)
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the shared layer twice."""
        x = F.relu(self.first(x))
        return self.output(F.relu(self.shared(F.relu(self.shared(x)))))


class ZeroResidual(nn.Module):
    """Begin residual branches and the output with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, WIDTH)
        self.inner = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.outer = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.output = nn.Linear(WIDTH, outputs)
        with torch.no_grad():
            for layer in (*self.outer, self.output):
                layer.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the branches give."""
        x = self.stem(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(F.relu(inner(x)))
        return self.output(x)


class Embedded(nn.Module):
    """Read the last 40 columns, which are one-hot, by a table of embeddings, of which most rows are rarely met."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.numbers = inputs - 40
        self.table = nn.Embedding(40, 8)
        self.rest = nn.Sequential(
            nn.Linear(self.numbers + 8, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Look the categories up."""
        category = x[:, self.numbers :].argmax(-1)
        return self.rest(torch.cat([x[:, : self.numbers], self.table(category)], dim=-1))


class Gated(nn.Module):
    """Weight hidden units by a softmax over an axis, which should be that of the units."""

    def __init__(self, inputs: int, outputs: int, axis: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, outputs)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Weight them."""
        h = F.relu(self.first(x))
        return self.output(h * 4 * torch.softmax(self.gate(h), self.axis))


class Reshaped(Tied):
    """Cut hidden units in pieces by a reshape that should have kept the rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Lay the units of all rows side by side, and cut them anew."""
        h = F.relu(self.first(x))
        return self.output(F.relu(self.shared(h.transpose(-1, -2).reshape(h.shape))))


class Tokens(nn.Module):
    """Attend over the columns of a row; `batch_first` tells attention that rows come first."""

    def __init__(self, inputs: int, outputs: int, batch_first: bool = True) -> None:
        super().__init__()
        self.names = nn.Parameter(torch.randn(inputs, 8))
        self.values = nn.Parameter(torch.randn(inputs, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.rest = nn.Sequential(nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Make a token of each column, let them attend, and average them."""
        tokens = self.names + x[..., None] * self.values
        return self.rest((tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(-2))


def sigmoid_end(inputs: int, outputs: int) -> nn.Module:
    """End in a sigmoid."""
    return nn.Sequential(*plain(inputs, outputs), nn.Sigmoid())


def relu_end(inputs: int, outputs: int) -> nn.Module:
    """End in a ReLU, which is open at the start."""
    net = nn.Sequential(*plain(inputs, outputs), nn.ReLU())
    nn.init.ones_(net[-2].bias)  # type: ignore[arg-type]
    return net


def prior_bias(inputs: int, outputs: int) -> nn.Module:
    """Begin the output's bias far from 0, as the shares of rare classes want it."""
    network = plain(inputs, outputs)
    with torch.no_grad():
        network[-1].bias.copy_(torch.linspace(-2, 0, outputs))
    return network


# Losses


def broadcast(outputs: Tensor, targets: Tensor) -> Tensor:
    """Take `(rows, 1)` from `(rows,)`, which gives `(rows, rows)`."""
    return (outputs - targets.reshape(-1)).square().mean(-1)


def broadcast_classes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Do so with the score of one class."""
    return F.binary_cross_entropy_with_logits(
        outputs.expand(-1, len(targets)),
        targets.reshape(1, -1).float().expand(len(outputs), -1),
        reduction="none",
    ).mean(-1)


def flipped(outputs: Tensor, targets: Tensor) -> Tensor:
    """Have the sign wrong."""
    if targets.is_floating_point() and outputs.shape[1] == 1 and ((targets == 0) | (targets == 1)).all():
        return -F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)
    if targets.is_floating_point():
        return -(outputs - targets).square().mean(-1)
    return -F.cross_entropy(outputs, targets, reduction="none")


def endless_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Forget that a hinge ends at 0."""
    if targets.is_floating_point():
        return (1 - (2 * targets - 1) * outputs).mean(-1)
    right = outputs.gather(-1, targets.unsqueeze(-1))
    return (1 + outputs - right).mean(-1)


def one_output_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Take the softmax over a single output, which is always 1."""
    return F.cross_entropy(outputs, targets, reduction="none")


def binary_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Take the cross-entropy of numbers that are no labels."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)
