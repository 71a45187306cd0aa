"""The limits of a plan (compute, parameters, memory, data, serving) and its objective."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from moelab.config import (
    Bytes,
    Config,
    Context,
    Count,
    CountOrZero,
    Devices,
    Flops,
    Fraction,
    Positive,
    Tokens,
    at_most,
)
from moelab.planning.utilisation import PREDICTED, MfuTable, Share, check_mfu, read_mfu
from moelab.quantities import MOST_TOKENS
from moelab.serving import Hardware, Traffic, load_hardware
from moelab.serving.hardware import Price, device_words
from moelab.serving.traffic import Precision
from moelab.serving.training_time import check_precision

DEFAULT_EPOCHS = 4.0
"""Up to four epochs, repeated tokens are worth almost as much as new ones (arXiv 2305.16264)."""

Objective = Literal["loss", "balance", "serving-cost", "lifetime-cost"]
COSTS = ("serving-cost", "lifetime-cost")
"""Objectives that minimise a cost at bounded loss."""


class Serving(Config):
    """Traffic on given devices: limits on latency and price, and the tokens served in all."""

    hardware: str
    traffic: Traffic = Traffic()
    tokens: Tokens | None = Field(default=None, description="prompt + output tokens over the model's life")
    gpu_price: Price | None = Field(default=None, description="dollars per device-hour; null: the catalogue's")
    max_price: Positive | None = Field(default=None, description="dollars per million tokens, prompt + output")
    price_like_experts: Count | None = Field(
        default=None, description="serve at most at the price of the best design with this many experts (1: dense)"
    )

    @cached_property
    def device(self) -> Hardware:
        """The devices that serve. Raises InputError for an unknown name."""
        return load_hardware(self.hardware)

    @property
    def device_words(self) -> str:
        """What sentences call the devices: the catalogue's key; of a file, the name in it and not its path."""
        return device_words(self.hardware)

    @property
    def price(self) -> float | None:
        """Dollars per device-hour: as given, else the catalogue's; None where neither is known."""
        return self.device.price if self.gpu_price is None else self.gpu_price


class Budget(Config):
    """Limits of one plan; None is unlimited. Compute is `flops`, or `gpus` x `days` on `train_hardware` at `mfu`.

    A design trains for D = min(compute / FLOPs per token, unique_tokens x max_epochs, max_tokens,
    max_tokens_per_active x its active parameters) tokens; designs with D below min_tokens_per_active x active or
    min_tokens_per_total x total parameters do not fit. With
    `serve_flops_tokens` the compute also pays for that many served tokens, each costing one forward pass
    (6 N_a D + 2 N_a D_served = F in arXiv 2502.05172). `mfu` is of the bf16 peak, of FLOPs with `causal` attention
    scores or the `full` square, at most the peak of `train_precision` (bf16) over the bf16 peak (fp8: 2);
    `predicted`, the default where devices train, predicts it for each design from hardware, precision and layout.
    `max_memory` holds weights at `precision` and the KV cache of one sequence of `context` tokens at `kv_precision`
    (null: as the weights, in 16 bits beside mxfp4 and nvfp4). All FLOPs are exact
    counts at the space's sequence length.

    `objective` is the least loss; the least price of serving, or of training and serving together, at no more than
    `target_loss` (or the best loss of designs with `target_experts` experts); or `balance`, the knee of loss against
    lifetime cost, where one per cent of compute is worth one per cent of that cost, `within` this excess compute of the
    least loss under compute and data alone (null: 10 %, or as far as the laws disagree). With serving and the tokens to
    serve, `balance` is the default.
    """

    flops: Flops | None = None
    gpus: Devices | None = None
    days: Annotated[Positive, at_most(3650)] | None = None
    train_hardware: str | None = None
    train_gpu_price: Price | None = Field(
        default=None, description="dollars per training device-hour; null: as for serving on the same devices"
    )
    train_precision: Literal["fp32", "bf16", "fp16", "fp8", "mxfp8", "nvfp4"] | None = None
    mfu: Share | MfuTable | Literal["predicted"] = 0.4
    mfu_convention: Literal["causal", "full"] = "causal"
    max_params: Positive | None = None
    max_active: Positive | None = None
    max_memory: Bytes | None = None
    precision: Precision = "bf16"
    kv_precision: Precision | None = Field(
        default=None, description="of the KV cache in max_memory; null: as the weights, 16 bits beside block formats"
    )
    context: Context | None = Field(default=None, description="tokens of KV cache; null: the space's seq_len")
    max_tokens: Positive | None = None
    min_tokens_per_active: Positive | None = None
    max_tokens_per_active: Positive | None = None
    min_tokens_per_total: Positive | None = None
    unique_tokens: Positive | None = None
    max_epochs: Positive | None = None
    serve_flops_tokens: CountOrZero = Field(default=0, le=MOST_TOKENS)
    serving: Serving | None = None
    objective: Objective = "loss"
    within: Fraction | None = Field(
        default=None, gt=0, lt=1, description="excess compute that the balance may give for a lower lifetime cost"
    )
    target_loss: Positive | None = None
    target_experts: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _balance_by_default(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("objective") is not None:
            return data
        serving = data.get("serving")
        tokens = serving.get("tokens") if isinstance(serving, dict) else getattr(serving, "tokens", None)
        targeted = data.get("target_loss") is not None or data.get("target_experts") is not None
        return {**data, "objective": "balance" if tokens is not None and not targeted else "loss"}

    @model_validator(mode="before")
    @classmethod
    def _predicted_by_default(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("mfu") is not None:
            return data
        devices = any(data.get(name) is not None for name in ("gpus", "train_hardware", "serving"))
        return {**data, "mfu": PREDICTED if devices else 0.4}

    @field_validator("mfu", mode="before")
    @classmethod
    def _utilisation(cls, value: Any) -> Any:
        return read_mfu(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        machine = {"gpus": self.gpus, "days": self.days, "train_hardware": self.train_hardware}
        if self.flops is None:
            missing = [name for name, value in machine.items() if value is None]
            if missing:
                raise ValueError(
                    f"flops: is required, or gpus, days and train_hardware (missing: {', '.join(missing)})"
                )
        elif self.gpus is not None or self.days is not None:
            raise ValueError("flops: contradicts gpus and days; give one of them")
        least, most = self.min_tokens_per_active, self.max_tokens_per_active
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_tokens_per_active: must be at most max_tokens_per_active ({most:g}), got {least:g}")
        if self.max_epochs is not None and self.unique_tokens is None:
            raise ValueError("max_epochs: needs unique_tokens, the tokens that may be repeated")
        if self.target_loss is not None and self.target_experts is not None:
            raise ValueError("target_loss: contradicts target_experts; give one of them")
        targeted = self.target_loss is not None or self.target_experts is not None
        if self.objective in COSTS and not targeted:
            raise ValueError(f"objective: {self.objective} needs target_loss or target_experts")
        if self.objective not in COSTS and targeted:
            raise ValueError("target_loss, target_experts: need the objective serving-cost or lifetime-cost")
        if self.objective != "loss" and self.serving is None:
            raise ValueError(f"objective: {self.objective} needs serving hardware")
        if self.objective in ("lifetime-cost", "balance") and self.serving is not None and self.serving.tokens is None:
            raise ValueError(f"objective: {self.objective} needs the tokens that will be served")
        if self.within is not None and self.objective != "balance":
            raise ValueError("within: needs the objective balance, with serving hardware and the tokens to serve")
        if self.train_hardware is not None:
            load_hardware(self.train_hardware)
        if self.train_precision is not None and self.training_device is not None:
            check_precision(self.training_device, self.train_precision)
        check_mfu(self.mfu, self.training_device, self.train_precision or "bf16")
        if self.train_gpu_price is not None and self.training_device is None:
            raise ValueError("train_gpu_price: needs train_hardware, the devices that train")
        self._check_prices()
        return self

    def _check_prices(self) -> None:
        """Raises ValueError where a limit or the objective needs dollars of devices whose price is not known."""
        wanted = self.serving
        if wanted is None:
            return
        load_hardware(wanted.hardware)
        limits = {"max_price": wanted.max_price, "price_like_experts": wanted.price_like_experts}
        needs = [name for name, value in limits.items() if value is not None]
        needs += [f"objective {self.objective}"] * (self.objective != "loss")
        if needs and wanted.price is None:
            raise ValueError(_no_price("gpu_price", wanted.device, needs[0]))
        device = self.training_device
        if self.objective in ("lifetime-cost", "balance") and device is not None and self.training_hour is None:
            raise ValueError(_no_price("train_gpu_price", device, f"objective {self.objective}"))

    @property
    def max_data(self) -> float:
        """Tokens that the data allows: unique tokens times epochs (4 unless given); infinite where unlimited."""
        if self.unique_tokens is None:
            return float("inf")
        return self.unique_tokens * (DEFAULT_EPOCHS if self.max_epochs is None else self.max_epochs)

    @property
    def training_device(self) -> Hardware | None:
        """The devices that train: `train_hardware`, else those that serve; None where neither is given."""
        if self.train_hardware is not None:
            return load_hardware(self.train_hardware)
        return None if self.serving is None else self.serving.device

    @property
    def training_hour(self) -> float | None:
        """Dollars of one training device and hour: as given, else the serving price where the same devices serve, else
        the catalogue's. None without devices, and where no price is known."""
        if self.train_gpu_price is not None:
            return self.train_gpu_price
        if self.serving is not None and self.train_hardware in (None, self.serving.hardware):
            return self.serving.price
        return None if self.training_device is None else self.training_device.price


def _no_price(field: str, device: Hardware, needed_by: str) -> str:
    option = field.replace("_", "-")
    return f"{field}: {needed_by} needs dollars, and no price is known for {device.name}; give one: --{option} 2.5"
