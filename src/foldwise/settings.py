"""What can be set: every setting's name, type, range, default and help, defined once.

The command line, the validation of search files, the report and the saved run read it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from foldwise.errors import SettingsError, did_you_mean

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "scaled_sigmoid", "gelu", "silu"]
Initialization = Literal["xavier", "kaiming", "normal", "own"]
Loss = Literal["squared_error", "half_squared_error", "cross_entropy", "binary_cross_entropy"]
Option = bool | int | float | str


def shaping(default: Any, says: str, **limits: Any) -> Any:
    """Define a setting that members of one stack must share, because it decides their tensors or operations."""
    return Field(default, description=says, json_schema_extra={"shaping": True}, **limits)


def free(default: Any, says: str, **limits: Any) -> Any:
    """Define a setting in which members of one stack may differ: it becomes a vector along the member axis."""
    return Field(default, description=says, json_schema_extra={"shaping": False}, **limits)


class Settings(BaseModel):
    """One value for everything that is tuned.

    >>> Settings(learning_rate=0.01).width
    128
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["constant", "linear", "mlp", "custom"] = shaping(
        "mlp", "the family of networks; `linear` is linear or softmax regression, `constant` the baseline"
    )
    width: int = shaping(128, "units of each hidden layer", ge=1, le=65536)
    depth: int = shaping(2, "number of hidden layers; 0 gives the linear network", ge=0, le=1000)
    activation: Activation = shaping("relu", "nonlinearity after each hidden layer; never on the output")
    dropout: float = free(0.0, "share of hidden units set to zero in each training step", ge=0, lt=1)
    takes: tuple[str, ...] = shaping(
        (), "those of width, depth, activation, dropout that a network of one's own is given"
    )
    options: tuple[tuple[str, Option], ...] = shaping((), "other arguments for a network of one's own")

    initialization: Initialization = free(
        "kaiming",
        "initial weights: xavier has variance 2/(fan_in+fan_out), kaiming 2/fan_in, normal initial_deviation²; "
        "own is what the module's constructor draws",
    )
    initial_deviation: float = free(0.01, "standard deviation of `normal` initial weights", gt=0)
    scaling: Literal["robust", "standard"] = free(
        "robust",
        "number columns, learnt per fold: standard is (x−mean)/deviation; robust is z=(x−median)/(q75−q25), "
        "then z/√(1+(z/3)²), which bounds outliers",
    )

    loss: Loss = shaping("squared_error", "what training minimizes, averaged over the rows of a batch")
    label_smoothing: float = free(0.0, "share of each label spread evenly over the classes", ge=0, lt=1)

    optimizer: Literal["adamw", "sgd"] = shaping("adamw", "rule that turns gradients into steps")
    learning_rate: float = free(1e-3, "step size η", ge=0)
    weight_decay: float = free(
        0.0, "λ on weights, never on biases: adamw w ← (1−ηλ)w − …, sgd adds λw to the gradient", ge=0
    )
    momentum: float = free(0.0, "sgd only: share μ of the last step that is kept, v ← μv + g", ge=0, lt=1)
    beta1: float = free(0.9, "adamw only: decay of the mean of gradients", ge=0, lt=1)
    beta2: float = free(0.999, "adamw only: decay of the mean of squared gradients", ge=0, lt=1)
    epsilon: float = free(1e-8, "adamw only: added to the root of the mean square", gt=0)
    schedule: Literal["constant", "cosine"] = free(
        "constant", "learning rate over time: cosine falls as ½(1+cos(πt/T)) over all T steps of the member"
    )
    batch_size: int = shaping(64, "rows in one training step; more than there are means all rows", ge=1)
    epochs: int = free(
        30, "passes over the training rows; the best one is chosen on the fold-mean curve", ge=0
    )

    @model_validator(mode="after")
    def refuse_useless_combinations(self, info: ValidationInfo) -> Settings:
        """Refuse settings that were asked for and would have no effect (stored ones name every field)."""
        if info.context == "stored":
            return self
        problems = [text for field, text in useless(self) if field in self.model_fields_set]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def hidden_layers(self) -> int:
        """Count the hidden layers of the built-in networks."""
        return self.depth if self.network == "mlp" else 0

    def shape(self) -> tuple[Any, ...]:
        """Collect what members must share to be in one stack."""
        # a user's constructor may do anything with the rate: many leave the layer out when it is zero
        own_use = self.dropout if self.network == "custom" else None
        return (*(getattr(self, name) for name in SHAPING), own_use)

    def effective(self) -> dict[str, Any]:
        """List the settings that have an effect on this network and optimizer."""
        idle = {name for name, _ in useless(self)} | ({"momentum"} if self.optimizer == "adamw" else set())
        if self.hidden_layers == 0 and self.network != "custom":
            idle.add("dropout")
        if self.network == "constant":
            return {"network": self.network}
        return {name: value for name, value in self.model_dump().items() if name not in idle}


def useless(s: Settings) -> list[tuple[str, str]]:
    """List every field that has no effect beside the others, with the sentence that says so."""
    none = [
        (
            s.optimizer == "adamw" and s.momentum != 0,
            "momentum",
            "`momentum` has no effect with optimizer adamw",
        ),
        (
            s.initialization != "normal",
            "initial_deviation",
            "`initial_deviation` needs initialization normal",
        ),
        (
            s.loss in ("squared_error", "half_squared_error") and s.label_smoothing != 0,
            "label_smoothing",
            "`label_smoothing` has no effect on a squared error",
        ),
    ]
    none += [
        (s.optimizer == "sgd", name, f"`{name}` has no effect with optimizer sgd")
        for name in ("beta1", "beta2", "epsilon")
    ]
    if s.network != "custom" and s.hidden_layers == 0:
        fixed = ("width", "activation") if s.network == "mlp" else ("width", "depth", "activation")
        none += [
            (True, name, f"`{name}` has no effect on a {s.network} network without a hidden layer")
            for name in fixed
        ]
    if s.network != "custom" and s.hidden_layers == 0:
        none += [(s.dropout != 0, "dropout", "`dropout` has no effect without a hidden layer")]
    return [(name, text) for applies, name, text in none if applies]


SHAPING: tuple[str, ...] = tuple(
    name
    for name, field in Settings.model_fields.items()
    if field.json_schema_extra["shaping"]  # type: ignore[index]
)
FREE: tuple[str, ...] = tuple(name for name in Settings.model_fields if name not in SHAPING)


def make_settings(values: Mapping[str, Any], where: str = "") -> Settings:
    """Build settings from names and values, or say everything that is wrong with them at once.

    >>> make_settings({"learning_rate": -0.1}, where="settings 3")
    Traceback (most recent call last):
    ...
    foldwise.errors.SettingsError: `learning_rate`: input should be greater than or equal to 0; got -0.1 (settings 3)
    hint: learning_rate: step size η
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _explained(error, where) from None


def _explained(error: ValidationError, where: str) -> SettingsError:
    problems, hints = [], []
    for e in error.errors():
        name = str(e["loc"][0]) if e["loc"] else ""
        if e["type"] == "extra_forbidden":
            problems.append(f"there is no setting `{name}`")
            hints.append(
                did_you_mean(name, Settings.model_fields) or f"settings: {', '.join(Settings.model_fields)}"
            )
        elif not name:
            problems.append(e["msg"].removeprefix("Value error, "))
            hints.append(
                "leave them out, or give separate grids: one mapping for each combination that makes sense"
            )
        else:
            message = e["msg"][0].lower() + e["msg"][1:]
            problems.append(f"`{name}`: {message}; got {e['input']!r}")
            hints.append(f"{name}: {Settings.model_fields[name].description}")
    place = f" ({where})" if where else ""
    return SettingsError("; ".join(problems) + place, hint=" · ".join(dict.fromkeys(hints)))
