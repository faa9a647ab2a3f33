"""Configuration keys that all tasks share."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

WITH_MEMORY = ("lmm", "mal", "mag", "mac", "delta")  # variants that read `model.memory`
WITH_ATTENTION = ("mal", "mag", "mac", "transformer")  # variants that read `model.attention`
# Variants that read `model.mixer`, other papers' sequence mixers, and the keys that each of them reads.
_EVERY_MIXER = ("num_heads", "value_ratio", "chunk_size")
MIXER_KEYS = {
    "gated_delta_net": (*_EVERY_MIXER, "key_ratio", "conv_width", "beta_max"),
    "delta_product": (*_EVERY_MIXER, "key_ratio", "conv_width", "beta_max", "steps"),
    "mamba2": (*_EVERY_MIXER, "conv_width", "state_size"),
    "gla": (*_EVERY_MIXER, "key_ratio"),
    "retnet": (*_EVERY_MIXER, "key_ratio"),
    "mlstm": (*_EVERY_MIXER, "key_ratio"),
    "ttt_linear": ("num_heads", "chunk_size"),
    "ttt_mlp": ("num_heads", "chunk_size"),
}
# Widths of all heads' keys and values in the papers, as multiples of model.dim; Mamba-2's keys have their own size.
_PAPER_RATIOS = {
    "gated_delta_net": (0.75, 1.5),
    "delta_product": (0.75, 1.5),
    "mamba2": (0.0, 2.0),
    "gla": (0.5, 1.0),
    "retnet": (1.0, 2.0),
    "mlstm": (0.5, 1.0),
    "ttt_linear": (1.0, 1.0),
    "ttt_mlp": (1.0, 1.0),
}
_EVEN_KEYS = ("retnet", "ttt_linear", "ttt_mlp")  # rotary positions turn pairs of features
_UNUSED_PARAMETERS = "ddp_find_unused_parameters_true"  # DDP that accepts parameters without a gradient


def at_least(default: Any, low: float) -> Any:
    """A dataclass field whose value must be `low` or more."""
    return field(default=default, metadata={"low": low})


def between(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose value must lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


class Conflict(NamedTuple):
    """Two keys whose values do not go together."""

    key: str  # the key to report
    other: str  # the key it conflicts with; `key` itself where its own value is invalid
    rule: str  # what is wrong and how to fix it, without the key's name
    # The value of `key` has no effect. A trained model's own configuration may hold such a value: it did no harm.
    no_effect: bool = False


@dataclass
class MemoryOptions:
    """The neural memory, see `titans_seq.nn.NeuralMemory`."""

    num_heads: int = at_least(4, 1)  # independent memories, each of model.dim / num_heads features
    depth: int = at_least(1, 1)  # layers of the memory's MLP; 1 is a matrix
    expansion: int = at_least(4, 1)  # hidden width of a deeper memory, as a multiple of the head dimension
    chunk_size: int = at_least(16, 1)  # tokens whose gradients are taken at the same weights
    # Weights at which a token's gradient is taken: those at its chunk's start, or those just before the token (matrix
    # memory without residual only).
    gradient: Literal["chunk", "online"] = "chunk"
    activation: Literal["silu", "gelu", "relu"] = "silu"  # inside a deeper memory
    forget_to: Literal["zero", "initial"] = "zero"  # target of the decay: zero, or the initial memory
    residual: bool = False  # M(x) = x + LayerNorm(MLP(x)) instead of the MLP alone
    conv_width: int = at_least(4, 1)  # kernel size of the causal convolution after q, k and v; 1 is none
    gates: Literal["sigmoid", "closing"] = "sigmoid"  # closing: lr and forgetting can be exactly 0, for long sequences
    momentum: bool = True  # False: no momentum (past surprise)
    forgetting: bool = True  # False: no decay of the memory
    channel_forget: bool = False  # one forget gate per input channel of the memory's layers, instead of one per head
    bound_lr: bool = False  # lr at most (1 - momentum) / chunk_size, so that no run of identical tokens diverges
    initial: Literal["learned", "zero"] = "learned"  # memory at the start of a sequence; zero: matrix memory only
    outer_gradient: Literal["exact", "first_order"] = "exact"  # first_order: inner updates count as constants
    checkpoint_every: int | None = at_least(None, 1)  # chunks between states kept for the backward; null: automatic
    backend: Literal["auto", "reference", "chunked", "triton"] = "auto"  # all agree to rounding


@dataclass
class AttentionOptions:
    """Attention of the variants that have it, see `titans_seq.nn.SlidingWindowAttention`."""

    num_heads: int = at_least(4, 1)  # each of model.dim / num_heads features
    # Tokens that a query attends to, itself included; null: full attention, whose state grows with the sequence.
    window: int | None = at_least(64, 1)
    rotary_share: float = between(0.5, 0, 1)  # fraction of a head's features with rotary positions


@dataclass
class MixerOptions:
    """Sequence mixers of other papers, the baselines: `gated_delta_net` to `ttt_mlp` of `model.variant`."""

    num_heads: int = at_least(4, 1)  # independent states, each of a share of the keys' and the values' width
    # Width of all heads' keys together, as a multiple of model.dim; null: as in the paper, see docs/variants.md.
    key_ratio: float | None = at_least(None, 0)
    value_ratio: float | None = at_least(None, 0)  # the same of the values
    conv_width: int = at_least(4, 1)  # kernel size of the causal convolution, of the mixers that have one
    # Largest step of the delta rule, of gated_delta_net and delta_product: above 1 a step can flip what is stored.
    # null: as in the paper, 1 and 2.
    beta_max: float | None = between(None, 1, 2)
    steps: int = between(2, 1, 4)  # delta-rule steps per token, of delta_product
    state_size: int = at_least(64, 1)  # features of B and C, of mamba2
    # Tokens that are computed together, which changes the speed and not the result; of ttt_linear and ttt_mlp the
    # mini-batch, whose gradients are taken at the same weights.
    chunk_size: int = at_least(16, 1)


@dataclass
class BackboneOptions:
    """A stack of blocks from (B, T, dim) to (B, T, dim)."""

    # Titans' four variants, and for comparison: attention alone, the LMM without momentum, convolutions, and the
    # sequence mixers of other papers.
    variant: Literal[
        "lmm", "mal", "mag", "mac", "transformer", "delta", "cnn",
        "gated_delta_net", "delta_product", "mamba2", "gla", "retnet", "mlstm", "ttt_linear", "ttt_mlp",
    ] = "lmm"  # fmt: skip
    dim: int = at_least(32, 1)  # features of a token
    num_layers: int = at_least(2, 1)  # blocks
    ffn_expansion: int = at_least(2, 1)  # hidden width of the feed-forward layers, as a multiple of dim
    dropout: float = between(0.2, 0, 1)  # probability of dropout in every layer of a block
    num_persistent: int = at_least(0, 0)  # learned tokens before every sequence (eq 19), in each memory and attention
    kernel_size: int = at_least(5, 1)  # kernel size of the variant cnn, in tokens
    segment_length: int = at_least(64, 1)  # tokens of a segment of MAC, which reads its memory once per segment
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    mixer: MixerOptions = field(default_factory=MixerOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Conflicts between keys of the section `model`."""
        if self.variant in WITH_MEMORY:
            yield from self._memory_conflicts()
        if self.variant in WITH_ATTENTION:
            yield from self._attention_conflicts()
        if self.variant in MIXER_KEYS:
            yield from self._mixer_conflicts()

    def mixer_ratios(self) -> tuple[float, float]:
        """The widths of all heads' keys and values together, as multiples of dim."""
        key, value = _PAPER_RATIOS[self.variant]
        mixer = self.mixer
        return (
            key if mixer.key_ratio is None else mixer.key_ratio,
            value if mixer.value_ratio is None else mixer.value_ratio,
        )

    def _memory_conflicts(self) -> Iterator[Conflict]:
        memory = self.memory
        plain = memory.depth == 1 and not memory.residual
        requires_plain = "requires a matrix memory: model.memory.depth=1 and model.memory.residual=false"
        if self.dim % memory.num_heads:
            rule = f"{memory.num_heads} does not divide model.dim={self.dim}"
            yield Conflict("model.memory.num_heads", "model.dim", rule)
        if memory.gradient == "online" and memory.depth > 1:
            rule = f"online requires model.memory.depth=1 (a matrix memory); got model.memory.depth={memory.depth}"
            yield Conflict("model.memory.gradient", "model.memory.depth", rule)
        if memory.gradient == "online" and memory.residual:
            rule = "online requires model.memory.residual=false"
            yield Conflict("model.memory.gradient", "model.memory.residual", rule)
        if memory.bound_lr and not plain:
            yield Conflict("model.memory.bound_lr", "model.memory.depth", requires_plain)
        if memory.initial == "zero" and not plain:
            yield Conflict("model.memory.initial", "model.memory.depth", f"zero {requires_plain}")
        if self.variant == "delta" and not plain:
            rule = "model.variant=delta requires model.memory.depth=1 and model.memory.residual=false"
            yield Conflict("model.memory.depth", "model.variant", rule)

    def _attention_conflicts(self) -> Iterator[Conflict]:
        heads = self.attention.num_heads
        if self.dim % heads:
            rule = f"{heads} does not divide model.dim={self.dim}"
            yield Conflict("model.attention.num_heads", "model.dim", rule)
        head_dim = self.dim // heads
        rotated = round(self.attention.rotary_share * head_dim)
        if rotated % 2:
            rule = f"{self.attention.rotary_share} of a head's {head_dim} features is {rotated}; it must be even"
            yield Conflict("model.attention.rotary_share", "model.attention.num_heads", rule)
        if self.num_persistent and rotated == head_dim:
            rule = "1 leaves no features for persistent tokens; use less than 1, or set model.num_persistent=0"
            yield Conflict("model.attention.rotary_share", "model.num_persistent", rule)

    def _mixer_conflicts(self) -> Iterator[Conflict]:
        mixer, used = self.mixer, MIXER_KEYS[self.variant]
        no_effect = f"has no effect with model.variant={self.variant}"
        for f in fields(mixer):
            if f.name not in used and getattr(mixer, f.name) != f.default:
                yield Conflict(f"model.mixer.{f.name}", "model.variant", no_effect, no_effect=True)
        if self.num_persistent:
            yield Conflict("model.num_persistent", "model.variant", no_effect, no_effect=True)
        for name, ratio in zip(("key", "value"), self.mixer_ratios(), strict=True):
            width = ratio * self.dim
            if (name == "value" or "state_size" not in used) and (width <= 0 or width % mixer.num_heads):
                rule = f"{mixer.num_heads} does not divide the width of the {name}s, {ratio:g} x model.dim = {width:g}"
                yield Conflict("model.mixer.num_heads", "model.dim", rule)
            elif self.variant in _EVEN_KEYS and name == "key" and width // mixer.num_heads % 2:
                rule = f"{self.variant} requires an even width of a head's keys; got {width / mixer.num_heads:g}"
                yield Conflict("model.mixer.num_heads", "model.dim", rule)


@dataclass
class DataOptions:
    """Data keys of every task."""

    name: str = ""  # the dataset; see the sections of the tasks
    root: str | None = None  # data folder; null: $TITANS_SEQ_DATA, else a cache folder that downloads go to
    batch_size: int = at_least(32, 1)  # windows or sequences


@dataclass
class TaskOptions:
    """Loss and optimiser."""

    name: str = ""  # selects the task, and with it the accepted keys
    # muon: torch.optim.Muon for the matrices of the backbone, AdamW for all other weights
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    learning_rate: float = at_least(1e-3, 0)  # peak learning rate
    weight_decay: float = at_least(0.05, 0)  # of matrices; vectors, convolutions and initial memories have none
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of AdamW
    momentum: float = between(0.95, 0, 1)  # of muon and sgd
    warmup_steps: int = at_least(200, 0)  # steps of linear warm-up to the peak learning rate
    # After warm-up, to the last step of max_epochs or max_steps: a cosine to zero, the peak rate throughout, a line to
    # zero, or (wsd: warm-up, stable, decay) the peak rate and at the end a line to zero.
    schedule: Literal["cosine", "constant", "linear", "wsd"] = "cosine"
    decay_fraction: float = between(0.2, 0, 1)  # of the steps after warm-up, in which wsd decays

    def conflicts(self) -> Iterator[Conflict]:
        """Conflicts between keys of the section `task`."""
        plain = TaskOptions()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield Conflict("task.betas", "task.betas", f"must be two numbers from 0 to below 1; got {self.betas}")
        if self.optimizer == "sgd" and self.betas != plain.betas:
            rule = "has no effect with task.optimizer=sgd; remove one of them"
            yield Conflict("task.betas", "task.optimizer", rule, no_effect=True)
        if self.momentum == 1:
            yield Conflict("task.momentum", "task.momentum", "1 would never forget a gradient; must be below 1")
        if self.optimizer == "adamw" and self.momentum != plain.momentum:
            rule = "only applies to task.optimizer=muon or sgd; got task.optimizer=adamw, which has task.betas"
            yield Conflict("task.momentum", "task.optimizer", rule, no_effect=True)
        if not self.decay_fraction:
            rule = "0 would not decay; must be above 0, or use task.schedule=constant"
            yield Conflict("task.decay_fraction", "task.decay_fraction", rule)
        if self.schedule != "wsd" and self.decay_fraction != plain.decay_fraction:
            rule = f"only applies to task.schedule=wsd; got task.schedule={self.schedule}"
            yield Conflict("task.decay_fraction", "task.schedule", rule, no_effect=True)


@dataclass
class TrainerOptions:
    """Length of the training, devices, checkpoints."""

    max_epochs: int = at_least(10, 1)  # passes over the training data, at most
    max_steps: int = at_least(-1, -1)  # -1: no limit
    max_minutes: float = at_least(0.0, 0)  # of training, resumed processes together; 0: no limit
    patience: int = at_least(3, 1)  # epochs without a better validation score before training stops
    gradient_clip: float = at_least(1.0, 0)  # largest norm of the gradient; 0: no clipping
    ema_decay: float = between(0.0, 0, 1)  # moving average of the weights, which is validated and kept; 0: none
    accumulate_batches: int = at_least(1, 1)  # batches whose gradients are averaged into one step
    compile: bool = False  # torch.compile the model
    accelerator: str = "auto"  # cpu, gpu, cuda or mps; auto: the best that this machine has
    devices: int = at_least(1, 1)  # per machine; data.batch_size is the total over all devices
    num_nodes: int = at_least(1, 1)  # machines
    strategy: str = "auto"  # Lightning's names: ddp, fsdp, ...
    # float32, or mixed precision with float16 or bfloat16
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    num_threads: int = at_least(0, 0)  # CPU threads; 0: torch's default
    epoch_batches: int = at_least(0, 0)  # batches of a training epoch, different ones every epoch; 0: all
    limit_batches: int = at_least(0, 0)  # batches of every split, for a quick trial; 0: all
    # Lightning's profiler: its report is written into the run's folder, as fit-profile.txt and test-profile.txt
    profiler: Literal["none", "simple", "advanced", "pytorch"] = "none"
    progress_bar: bool = True  # where the output is not a terminal or a notebook: a line per epoch instead
    # last.ckpt is written at the end of every epoch and after this many steps or minutes; 0: at ends of epochs only.
    checkpoint_steps: int = at_least(0, 0)
    checkpoint_minutes: float = at_least(10.0, 0)  # see trainer.checkpoint_steps
    keep_checkpoints: int = at_least(2, 1)  # last.ckpt and its predecessors, in case it is damaged

    def conflicts(self) -> Iterator[Conflict]:
        """Conflicts between keys of the section `trainer`."""
        for key in ("gradient_clip", "ema_decay"):
            if self.strategy.startswith("fsdp") and getattr(self, key):
                rule = f"must be 0 with trainer.strategy={self.strategy}, which shards the weights: Lightning supports "
                yield Conflict(f"trainer.{key}", "trainer.strategy", f"{rule}this for unsharded weights only")
        if self.ema_decay == 1:
            yield Conflict(
                "trainer.ema_decay", "trainer.ema_decay", "1 would keep the initial weights; must be below 1"
            )
        if self.max_steps == 0:
            yield Conflict("trainer.max_steps", "trainer.max_steps", "0 would not train; -1 means no limit")


@dataclass
class LoggingOptions:
    """Loggers in addition to metrics.csv."""

    wandb: Literal["online", "offline", "off"] | None = None  # null: $WANDB_MODE, else online with a key, else offline
    project: str = "titans_seq"  # of W&B
    every_n_steps: int = at_least(50, 1)  # steps between two logged rows of the training loss
    memory: bool = False  # log surprise, gates and norms of the memories, averaged over a batch
    artifact: bool = False  # upload the best checkpoint to W&B


@dataclass
class RunOptions:
    """The run's folder."""

    dir: str | None = None  # null: runs/<experiment>/<time>


@dataclass
class Config:
    """One experiment; its task adds keys of its own, see `ForecastingConfig` and the others."""

    experiment: str = ""  # names the folder of its runs, below runs/
    seed: int = between(0, 0, 2**32 - 1)  # of the initial weights, the order of batches and dropout
    seeds: list[int] = field(default_factory=list)  # one run for each seed, side by side in one folder
    # Resume a run: last (the newest of this experiment and configuration), auto (that, or a new run if there is none),
    # or the path of a run's folder (FOLDER/last: the newest run below FOLDER) or of a checkpoint.
    resume: str | None = None
    data: DataOptions = field(default_factory=DataOptions)
    model: BackboneOptions = field(default_factory=BackboneOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    logging: LoggingOptions = field(default_factory=LoggingOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Values that do not go together; the tasks' configurations add their own."""
        if self.experiment in ("", ".", "..") or self.experiment != Path(self.experiment).name:
            rule = f"{self.experiment!r} must be a plain name: it names a folder below runs"
            yield Conflict("experiment", "experiment", rule)
        if any(not 0 <= seed < 2**32 for seed in self.seeds):
            yield Conflict("seeds", "seeds", f"{self.seeds}: each must be between 0 and {2**32 - 1}")
        if len(set(self.seeds)) < len(self.seeds):
            yield Conflict("seeds", "seeds", f"{self.seeds} lists a seed twice")
        yield from self.model.conflicts()
        yield from self.task.conflicts()
        yield from self.trainer.conflicts()
        if self.model.dropout == 1:
            yield Conflict("model.dropout", "model.dropout", "1 would drop all features; must be below 1")

    @property
    def uses_ddp(self) -> bool:
        """Whether several devices would train by DDP."""
        return self.trainer.strategy == "auto" or self.trainer.strategy.startswith("ddp")

    def unused_parameter_conflicts(self, key: str, reason: str) -> Iterator[Conflict]:
        """A conflict where several devices train and, for `reason`, not every parameter gets a gradient at each step.

        DDP waits for the gradient of every parameter unless its strategy allows parameters without one.
        """
        devices = self.trainer.devices * self.trainer.num_nodes
        if devices > 1 and self.trainer.strategy != _UNUSED_PARAMETERS:
            rule = f"{reason}; several devices require trainer.strategy={_UNUSED_PARAMETERS}"
            yield Conflict(key, "trainer.strategy", rule)
