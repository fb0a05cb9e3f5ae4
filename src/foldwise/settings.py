"""What can be set: every setting's name, type, range, default, help, formula and source, defined once.

The command line, the validation of search files, the report, docs/settings.md and the saved run read it from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from foldwise.errors import SettingsError, did_you_mean

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "scaled_sigmoid", "gelu", "silu"]
Normalization = Literal["none", "batch", "layer", "group"]
FeatureMap = Literal["none", "polynomial", "fourier"]
Initialization = Literal["xavier", "kaiming", "normal", "orthogonal", "lsuv", "constant", "own"]
Loss = Literal[
    "squared_error",
    "half_squared_error",
    "absolute_error",
    "huber",
    "quantile",
    "cross_entropy",
    "binary_cross_entropy",
    "hinge",
    "binary_hinge",
    "custom",
]
Optimizer = Literal["sgd", "rmsprop", "adagrad", "adam", "adamw", "nadam"]
Schedule = Literal["constant", "step", "exponential", "cosine", "one_cycle", "plateau"]
Option = bool | int | float | str
BlockSetting = tuple[str, str, float]
"""Block, setting, value: what one named block of the network has of its own."""

HIDDEN = ("mlp", "residual", "custom")
BUILT = ("linear", "mlp", "residual")
TRAINED = (*BUILT, "custom")


def shaping(default: Any, says: str, **more: Any) -> Any:
    """Define a setting that members of one stack must share, because it decides their tensors or operations."""
    return _setting(default, says, shaping=True, **more)


def free(default: Any, says: str, **more: Any) -> Any:
    """Define a setting in which members of one stack may differ: it becomes a vector along the member axis."""
    return _setting(default, says, shaping=False, **more)


def _setting(
    default: Any,
    says: str,
    *,
    shaping: bool,
    formula: str = "",
    source: str = "",
    needs: Mapping[str, Sequence[Option]] = MappingProxyType({}),
    off: Option | tuple[()] | None = None,
    **limits: Any,
) -> Any:
    """Define a setting.

    `needs` names other settings and their values without which this one has no effect; then it may only be given
    as `off`, the value that asks for nothing (None: there is no such value).
    """
    about: dict[str, Any] = {
        "shaping": shaping,
        "formula": formula,
        "source": source,
        "needs": {name: list(values) for name, values in needs.items()},
        "off": off,
    }
    return Field(default, description=says, json_schema_extra=about, **limits)


class Settings(BaseModel):
    """One value for everything that is tuned.

    >>> Settings(learning_rate=0.01).width
    128
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # the network

    network: Literal["constant", "linear", "mlp", "residual", "custom"] = shaping(
        "mlp",
        "the family of networks; `linear` is linear or softmax regression, `constant` the baseline",
        formula="residual: h ← h + W₂·drop(a(W₁·norm(h))), output W·a(norm(h))",
        source="residual: He et al. 2016; for tables Gorishniy et al. 2021",
    )
    width: int = shaping(128, "units of each hidden layer", needs={"network": HIDDEN}, ge=1, le=65536)
    depth: int = shaping(
        2,
        "number of hidden layers, or of residual blocks; 0 hidden layers give the linear network",
        needs={"network": HIDDEN},
        ge=0,
        le=1000,
    )
    activation: Activation = shaping(
        "relu",
        "nonlinearity a of each hidden layer; never on the output",
        formula="scaled_sigmoid: 4σ(x) − 2",
        needs={"network": HIDDEN},
    )
    normalization: Normalization = shaping(
        "none",
        "over what hidden units are normalized before the activation: a batch, a row, or groups of its units",
        formula="γ(x − mean)/√(variance + 10⁻⁵) + β",
        source="Ioffe & Szegedy 2015; Ba et al. 2016; Wu & He 2018",
        needs={"network": ("mlp", "residual")},
        off="none",
    )
    normalization_groups: int = shaping(
        4,
        "groups of units that `group` normalizes together; must divide the width",
        needs={"normalization": ("group",)},
        ge=1,
    )
    dropout: float = free(
        0.0,
        "share of hidden units set to zero in each training step; the others are scaled by 1/(1−rate)",
        source="Srivastava et al. 2014",
        needs={"network": HIDDEN},
        off=0.0,
        ge=0,
        lt=1,
    )
    feature_map: FeatureMap = shaping(
        "none",
        "what is made of the inputs before the network: products of them, or cosines of random projections",
        formula="polynomial: all products up to feature_degree, standardized; "
        "fourier: √(2/D)·cos(ωx + b), ω ~ N(0, 1/(fourier_scale·median distance)²)",
        source="fourier: Rahimi & Recht 2007; both learnt per fold",
        needs={"network": BUILT},
        off="none",
    )
    feature_degree: int = shaping(
        2, "highest degree of the products", needs={"feature_map": ("polynomial",)}, ge=1, le=5
    )
    feature_count: int = shaping(
        256, "number D of random cosines", needs={"feature_map": ("fourier",)}, ge=1, le=65536
    )
    fourier_scale: float = free(
        1.0,
        "width of the cosines, in median distances between training rows",
        needs={"feature_map": ("fourier",)},
        gt=0,
    )
    takes: tuple[str, ...] = shaping(
        (), "those of width, depth, activation, dropout that a network of one's own is given"
    )
    options: tuple[tuple[str, Option], ...] = shaping((), "other arguments for a network of one's own")

    # where it starts, and how rows are prepared

    initialization: Initialization = free(
        "kaiming",
        "initial weights (biases are 0); own is what the module's constructor draws",
        formula="variance: xavier 2/(fan_in+fan_out), kaiming 2/fan_in, normal initial_deviation², orthogonal WᵀW = 1; "
        "lsuv scales orthogonal weights until each layer's outputs on the member's own rows have variance 1",
        source="Glorot & Bengio 2010; He et al. 2015; Saxe et al. 2014; lsuv: Mishkin & Matas 2016",
        needs={"network": TRAINED},
    )
    initial_deviation: float = free(
        0.01, "standard deviation of `normal` initial weights", needs={"initialization": ("normal",)}, gt=0
    )
    initial_value: float = free(
        0.0, "value of `constant` initial weights", needs={"initialization": ("constant",)}
    )
    scaling: Literal["robust", "standard"] = free(
        "robust",
        "number columns, learnt per fold",
        formula="standard: (x−mean)/deviation; robust: z=(x−median)/(q75−q25), then z/√(1+(z/3)²), which bounds it",
        source="robust: Holzmüller et al. 2024",
    )

    # the loss

    loss: Loss = shaping(
        "squared_error",
        "what training minimizes; regression learns targets in deviations of the training rows; custom is your own",
        formula="huber: ½e² for |e| ≤ δ, else δ(|e| − δ/2); quantile: max(τe, (τ−1)e) for e = target − output; "
        "cross_entropy: −Σ q log softmax(scores), in nats; hinge: Σⱼ max(0, sⱼ − s_y + margin), j ≠ y; "
        "binary_hinge: max(0, margin − ±s)",
        source="Huber 1964; Koenker & Bassett 1978; hinge: Weston & Watkins 1999",
    )
    huber_delta: float = free(
        1.0,
        "error δ from which `huber` is linear, in deviations of the target",
        needs={"loss": ("huber",)},
        gt=0,
    )
    quantile: float = free(
        0.5, "quantile τ that `quantile` learns", needs={"loss": ("quantile",)}, gt=0, lt=1
    )
    margin: float = free(
        1.0,
        "how far the right score must be ahead; 0 in `binary_hinge` is the perceptron's loss",
        needs={"loss": ("hinge", "binary_hinge")},
        ge=0,
    )
    label_smoothing: float = free(
        0.0,
        "share ε of each label spread evenly over the C classes",
        formula="q = (1−ε)·label + ε/C",
        source="Szegedy et al. 2016",
        needs={"loss": ("cross_entropy", "binary_cross_entropy")},
        off=0.0,
        ge=0,
        lt=1,
    )
    reduction: Literal["mean", "sum"] = free(
        "mean", "whether a step follows the mean or the sum of its rows' losses", needs={"network": TRAINED}
    )

    # the optimizer

    optimizer: Optimizer = shaping(
        "adamw",
        "rule that turns gradients into steps; equal to torch.optim step by step",
        formula="adam: w ← w − η m̂/(√v̂ + ε)",
        source="rmsprop: Hinton 2012; adagrad: Duchi et al. 2011; adam: Kingma & Ba 2015; "
        "adamw: Loshchilov & Hutter 2019; nadam: Dozat 2016",
    )
    learning_rate: float = free(1e-3, "step size η", needs={"network": TRAINED}, ge=0)
    weight_decay: float = free(
        0.0,
        "λ of the optimizer: decoupled in adamw, added to the gradient in the others",
        formula="adamw: w ← (1−ηλ)w − …; others: g ← g + λw",
        source="Loshchilov & Hutter 2019",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    momentum: float = free(
        0.0,
        "share μ of the last step that is kept",
        formula="v ← μv + (1−dampening)g",
        source="Polyak 1964",
        needs={"optimizer": ("sgd", "rmsprop")},
        off=0.0,
        ge=0,
        lt=1,
    )
    dampening: float = free(
        0.0,
        "share of a new gradient left out of the momentum",
        needs={"optimizer": ("sgd",)},
        off=0.0,
        ge=0,
        lt=1,
    )
    nesterov: bool = shaping(
        False,
        "look ahead along the momentum",
        formula="step = g + μv",
        source="Nesterov 1983; Sutskever et al. 2013",
        needs={"optimizer": ("sgd",)},
        off=False,
    )
    alpha: float = free(
        0.99,
        "decay of the mean of squared gradients in rmsprop",
        needs={"optimizer": ("rmsprop",)},
        ge=0,
        lt=1,
    )
    centered: bool = shaping(
        False,
        "divide by the deviation of gradients instead of their root mean square",
        source="Graves 2013",
        needs={"optimizer": ("rmsprop",)},
        off=False,
    )
    beta1: float = free(
        0.9, "decay of the mean of gradients", needs={"optimizer": ("adam", "adamw", "nadam")}, ge=0, lt=1
    )
    beta2: float = free(
        0.999,
        "decay of the mean of squared gradients",
        needs={"optimizer": ("adam", "adamw", "nadam")},
        ge=0,
        lt=1,
    )
    momentum_decay: float = free(
        0.004, "how fast nadam's momentum grows to beta1", needs={"optimizer": ("nadam",)}, ge=0
    )
    rate_decay: float = free(
        0.0,
        "decay of adagrad's learning rate",
        formula="η/(1 + t·rate_decay)",
        needs={"optimizer": ("adagrad",)},
        off=0.0,
        ge=0,
    )
    initial_accumulator: float = free(
        0.0, "where adagrad's sum of squares starts", needs={"optimizer": ("adagrad",)}, off=0.0, ge=0
    )
    epsilon: float = free(
        1e-8,
        "added to the root of squared gradients",
        needs={"optimizer": ("rmsprop", "adagrad", "adam", "adamw", "nadam")},
        gt=0,
    )

    # the learning rate over time

    schedule: Schedule = free(
        "constant",
        "learning rate over a member's T steps; equal to torch.optim.lr_scheduler",
        formula="cosine: ½(1+cos(πt/T)); step: γ^⌊epoch/decay_every⌋; exponential: γ^epoch; one_cycle: up to the rate "
        "and down again, by cosines; plateau: ×γ when the fold-mean validation loss has not fallen for patience epochs",
        source="cosine: Loshchilov & Hutter 2017; one_cycle: Smith & Topin 2019",
        needs={"network": TRAINED},
    )
    warmup: float = free(
        0.0,
        "share of the steps over which the rate first rises evenly to η; a cosine begins after them",
        formula="(t+1)/W at step t of the first W = warmup·T",
        source="Goyal et al. 2017",
        needs={"schedule": ("constant", "step", "exponential", "cosine", "plateau"), "network": TRAINED},
        off=0.0,
        ge=0,
        lt=1,
    )
    decay_factor: float = free(
        0.1, "γ of the schedules step and plateau", needs={"schedule": ("step", "plateau")}, gt=0, lt=1
    )
    decay_every: int = free(10, "epochs between the steps of `step`", needs={"schedule": ("step",)}, ge=1)
    decay_per_epoch: float = free(
        0.95, "γ of `exponential`", needs={"schedule": ("exponential",)}, gt=0, le=1
    )
    patience: int = free(
        10, "epochs without improvement that `plateau` waits for", needs={"schedule": ("plateau",)}, ge=0
    )
    threshold: float = free(
        1e-4,
        "share by which the loss must fall to count as better for `plateau`",
        needs={"schedule": ("plateau",)},
        ge=0,
        lt=1,
    )
    peak_at: float = free(
        0.3,
        "share of the steps at which `one_cycle` is at its highest",
        needs={"schedule": ("one_cycle",)},
        gt=0,
        lt=1,
    )
    start_divisor: float = free(
        25.0, "`one_cycle` starts at rate/start_divisor", needs={"schedule": ("one_cycle",)}, ge=1
    )
    end_divisor: float = free(
        1e4, "`one_cycle` ends at its first rate/end_divisor", needs={"schedule": ("one_cycle",)}, ge=1
    )

    # batches

    batch_size: int = shaping(
        64,
        "rows in one batch; more than there are means all rows; a last batch of a single row joins the one before",
        ge=1,
    )
    accumulation: int = shaping(
        1,
        "batches whose gradients make one step, as if they were one batch (but for batch normalization)",
        needs={"network": TRAINED},
        off=1,
        ge=1,
    )
    batch_growth: float = shaping(
        1.0,
        "factor by which batch_size grows every `batch_growth_every` epochs",
        formula="⌊batch_size·growth^⌊(epoch−1)/every⌋⌋",
        source="Smith et al. 2018",
        needs={"network": TRAINED},
        off=1.0,
        ge=1,
        le=100,
    )
    batch_growth_every: int = shaping(1, "epochs after which batch_size grows", ge=1)
    epochs: int = free(
        30, "passes over the training rows; the best one is chosen on the fold-mean curve", off=0, ge=0
    )

    early_stopping: int = free(
        0,
        "epochs without a better fold-mean score after which a trial stops, all its folds and seeds together; 0: never",
        source="Prechelt 1998",
        needs={"network": TRAINED},
        off=0,
        ge=0,
    )

    # what keeps weights and gradients small

    l1: float = free(
        0.0,
        "L1 penalty in the loss",
        formula="+ λ·Σ|w|",
        source="Tibshirani 1996",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    l2: float = free(
        0.0,
        "L2 penalty in the loss; for sgd without clipping the same as weight_decay",
        formula="+ ½λ·Σw²",
        source="Hoerl & Kennard 1970",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    weight_limit: float = free(
        0.0,
        "hard limit θ on the sum of squared weights, by projection after each step; 0: none",
        formula="w ← w·min(1, √(θ/Σw²))",
        source="Srebro et al. 2005",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    regularized: Literal["weights", "all"] = free(
        "weights",
        "what weight_decay, l1, l2 and weight_limit act on: weights of two or more axes, or biases and scales too",
        needs={"network": TRAINED},
    )
    knobs: tuple[tuple[str, float], ...] = free(
        (), "settings of your own links, by the names that they give them", needs={"network": TRAINED}, off=()
    )
    blocks: tuple[BlockSetting, ...] = free(
        (),
        "what named blocks have of their own; in a search written as `block.setting`",
        needs={"network": TRAINED},
        off=(),
    )
    clip_norm: float = free(
        0.0,
        "norm θ to which a member's gradient, all its entries as one vector, is scaled down when longer; 0: none",
        formula="g ← g·min(1, θ/(‖g‖ + 10⁻⁶))",
        source="Pascanu et al. 2013",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )

    # noise

    input_noise: float = free(
        0.0,
        "deviation of Gaussian noise on the prepared inputs in training",
        source="Bishop 1995 (Tikhonov regularization)",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    label_noise: float = free(
        0.0,
        "for experiments: share of training labels that are drawn anew once; for numbers, deviation of noise on them",
        source="Zhang et al. 2017",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )
    mixup: float = free(
        0.0,
        "α: rows of a batch are mixed pairwise, and their losses too; 0: not",
        formula="x ← λx + (1−λ)x′, λ ~ Beta(α, α)",
        source="Zhang et al. 2018",
        needs={"network": TRAINED},
        off=0.0,
        ge=0,
    )

    # arithmetic

    precision: Literal["full", "bfloat16", "float16"] = shaping(
        "full",
        "number type of the forward and backward pass in training; weights and moments stay full",
        source="Micikevicius et al. 2018",
        needs={"network": TRAINED},
        off="full",
    )
    loss_scale: float = free(
        65536.0,
        "where float16's loss scale starts: halved when a step overflows and is skipped, doubled after 2000 good ones",
        needs={"precision": ("float16",)},
        gt=0,
    )

    @model_validator(mode="after")
    def refuse_useless_combinations(self, info: ValidationInfo) -> Settings:
        """Refuse settings that were asked for and would have no effect (stored ones name every field)."""
        if info.context == "stored":
            return self
        given = info.context if isinstance(info.context, frozenset) else self.model_fields_set
        problems = [text for field, text in useless(self) if field in given and not is_off(self, field)]
        problems += impossible(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def hidden_layers(self) -> int:
        """Count the hidden layers, or residual blocks, of the built-in networks."""
        return self.depth if self.network in ("mlp", "residual") else 0

    def shape(self) -> tuple[Any, ...]:
        """Collect what members must share to be in one stack."""
        # a user's constructor may do anything with the rate: many leave the layer out when it is zero
        own_use = self.dropout if self.network == "custom" else None
        return (*(getattr(self, name) for name in SHAPING), own_use)

    def effective(self) -> dict[str, Any]:
        """List the settings that have an effect on this network and optimizer."""
        if self.network == "constant":
            return {"network": self.network}
        idle = {name for name, _ in useless(self)}
        if self.network == "custom":
            idle |= {"width", "depth", "activation", "dropout"} - {*self.takes}
        return {name: value for name, value in self.model_dump().items() if name not in idle}

    def of_block(self, block: str) -> dict[str, float]:
        """Give what a named block has of its own."""
        return {name: value for own, name, value in self.blocks if own == block}


def about(name: str) -> dict[str, Any]:
    """Give what is known of a setting beside type, range and default: shaping, formula, source, needs, off."""
    extra = Settings.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def is_off(s: Settings, name: str) -> bool:
    """Tell whether a setting has the value that asks for nothing."""
    off = about(name)["off"]
    return off is not None and bool(getattr(s, name) == off)


def useless(s: Settings) -> list[tuple[str, str]]:
    """List every field that has no effect beside the others, with the sentence that says so."""
    none = []
    for name in Settings.model_fields:
        for other, values in about(name)["needs"].items():
            if (has := getattr(s, other)) not in values:
                without = "without a hidden layer" if values == list(HIDDEN) else f"with {other} {has}"
                none.append((name, f"`{name}` has no effect {without}"))
                break
    if s.network == "mlp" and s.depth == 0:
        hidden = ("width", "activation", "normalization", "dropout")
        none += [(name, f"`{name}` has no effect without a hidden layer") for name in hidden]
    if s.momentum == 0 and s.optimizer == "sgd":
        none += [(name, f"`{name}` has no effect without momentum") for name in ("dampening", "nesterov")]
    if s.batch_size == 1:
        none.append(("mixup", "`mixup` has no effect on batches of one row"))
    if not any(_acts(s, name) for name in ("weight_decay", "l1", "l2", "weight_limit")):
        none.append(
            ("regularized", "`regularized` has no effect without weight_decay, l1, l2 or weight_limit")
        )
    if s.network == "constant":
        idle = [name for name in Settings.model_fields if name not in ("network", "loss")]
        none += [(name, f"`{name}` has no effect with network constant") for name in idle]
    if s.batch_growth == 1:
        none += [("batch_growth_every", "`batch_growth_every` has no effect without batch_growth")]
    return none


def _acts(s: Settings, name: str) -> bool:
    return bool(getattr(s, name)) or any(own == name and value for _, own, value in s.blocks)


def impossible(s: Settings) -> list[str]:
    """List the combinations that contradict themselves."""
    problems = []
    if s.hidden_layers and s.normalization == "layer" and s.width == 1:
        problems.append("`normalization` layer turns the only unit of a layer of `width` 1 into 0")
    if s.hidden_layers and s.normalization == "group" and s.width == s.normalization_groups:
        problems.append(f"`normalization_groups` {s.width} of 1 unit each turn every unit into 0")
    if s.hidden_layers and s.normalization == "group" and s.width % s.normalization_groups:
        problems.append(
            f"`normalization_groups` {s.normalization_groups} does not divide the width {s.width}"
        )
    if s.nesterov and s.dampening:
        problems.append("`nesterov` is defined without `dampening`")
    if s.network == "residual" and s.depth == 0:
        problems.append("a residual network needs a `depth` of at least 1")
    if s.network == "constant" and s.loss not in (
        "squared_error",
        "half_squared_error",
        "cross_entropy",
        "binary_cross_entropy",
    ):
        problems.append(f"the best constant under loss {s.loss} is not known; give it another loss")
    frozen = {block for block, name, value in s.blocks if name == "frozen" and value}
    problems += [
        f"`{block}.{name}` has no effect on a block that is frozen"
        for block, name, value in s.blocks
        if block in frozen and name != "frozen" and value
    ]
    return problems


SHAPING: tuple[str, ...] = tuple(name for name in Settings.model_fields if about(name)["shaping"])
FREE: tuple[str, ...] = tuple(name for name in Settings.model_fields if name not in SHAPING)
WRITTEN_OTHERWISE = ("takes", "options", "knobs", "blocks")
SEARCHED: tuple[str, ...] = tuple(name for name in Settings.model_fields if name not in WRITTEN_OTHERWISE)
"""The settings that a search may name; the others follow from names of a network, of links and of blocks."""
BLOCK_SETTINGS: dict[str, str] = {
    "rate_factor": "factor of the learning rate",
    "weight_decay": "in the place of the network's weight_decay",
    "l1": "in the place of the network's l1",
    "l2": "in the place of the network's l2",
    "weight_limit": "hard limit on this block's weights alone",
    "frozen": "true: the block stays as it starts",
}
"""What a named block of a network can have of its own; all are at least 0."""


def make_settings(
    values: Mapping[str, Any], where: str = "", base: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """Build settings from names and values, or say everything that is wrong with them at once.

    `base` holds what `values` do not name; nobody asked for it, so it may be without effect. A name such as
    `hidden1.l2` sets what a named block has of its own.

    >>> make_settings({"hidden1.frozen": True}).blocks
    (('hidden1', 'frozen', 1.0),)
    >>> make_settings({"learning_rate": -0.1}, where="settings 3")
    Traceback (most recent call last):
    ...
    foldwise.errors.SettingsError: `learning_rate`: input should be greater than or equal to 0; got -0.1 (settings 3)
    hint: learning_rate: step size η
    """
    whole = {name: value for name, value in values.items() if "." not in name}
    of_blocks = {name: value for name, value in values.items() if "." in name}
    if of_blocks:
        whole["blocks"] = _block_settings(of_blocks, where)
    try:
        return Settings.model_validate({**base, **whole}, context=frozenset(whole))
    except ValidationError as error:
        raise _explained(error, where) from None


def _block_settings(values: Mapping[str, Any], where: str) -> tuple[BlockSetting, ...]:
    place = f" ({where})" if where else ""
    out = []
    for name, value in values.items():
        block, _, setting = name.rpartition(".")
        if setting not in BLOCK_SETTINGS:
            raise SettingsError(
                f"`{name}`: a block has no setting `{setting}`{place}.",
                hint=did_you_mean(setting, BLOCK_SETTINGS) or f"one of {', '.join(BLOCK_SETTINGS)}",
            )
        if not isinstance(value, bool | int | float) or not 0 <= value < float("inf"):
            raise SettingsError(
                f"`{name}` must be a number of at least 0; got {value!r}{place}.",
                hint=f"{setting}: {BLOCK_SETTINGS[setting]}",
            )
        if setting == "frozen" and value not in (0, 1):
            raise SettingsError(f"`{name}` must be true or false; got {value!r}{place}.")
        out.append((block, setting, float(value)))
    return tuple(sorted(out))


def _explained(error: ValidationError, where: str) -> SettingsError:
    problems, hints = [], []
    for e in error.errors():
        name = str(e["loc"][0]) if e["loc"] else ""
        if e["type"] == "extra_forbidden":
            problems.append(f"there is no setting `{name}`")
            hints.append(did_you_mean(name, SEARCHED) or f"settings: {', '.join(SEARCHED)}")
        elif not name:
            problems.append(e["msg"].removeprefix("Value error, "))
            hints += _what_is_needed(e["msg"])
            hints.append(
                "leave them out, or give separate grids: one mapping for each combination that makes sense"
            )
        else:
            message = e["msg"][0].lower() + e["msg"][1:]
            problems.append(f"`{name}`: {message}; got {e['input']!r}")
            hints.append(f"{name}: {Settings.model_fields[name].description}")
    place = f" ({where})" if where else ""
    return SettingsError("; ".join(problems) + place, hint=" · ".join(dict.fromkeys(hints)))


def _what_is_needed(problem: str) -> list[str]:
    """Say which values of other settings would give an effect to those that have none."""
    return [
        f"`{name}` needs {other} {' or '.join(map(str, about(name)['needs'][other]))}"
        for name, other in re.findall(r"`(\w+)` has no effect with (\w+) ", problem)
        if other in about(name)["needs"]
    ]
