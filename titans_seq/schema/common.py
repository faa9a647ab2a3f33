"""What the configurations of all tasks have in common."""

from dataclasses import dataclass, field
from typing import Any, Literal


def at_least(default: Any, low: float) -> Any:
    """A dataclass field whose value must be `low` or more."""
    return field(default=default, metadata={"low": low})


def between(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose value must lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass
class MemoryOptions:
    """How a `titans_seq.nn.NeuralMemory` computes."""

    num_heads: int = at_least(4, 1)
    depth: int = at_least(1, 1)  # layers of the memory's MLP; 1 is a matrix
    expansion: int = at_least(4, 1)  # hidden width of a deeper memory, in head dimensions
    chunk_size: int = at_least(16, 1)  # tokens whose gradients are taken at the same weights
    # Where a token's gradient is taken: at its chunk's start, or at the weights before it (plain matrix only).
    gradient: Literal["chunk", "online"] = "chunk"
    activation: Literal["silu", "gelu", "relu"] = "silu"  # inside a deeper memory
    forget_to: Literal["zero", "initial"] = "zero"  # what forgetting decays to: nothing, or the initial memory
    residual: bool = False  # M(x) = x + LayerNorm(MLP(x)) instead of the MLP alone
    conv_width: int = at_least(4, 1)  # tokens that the convolution after q, k and v sees; 1 is none
    momentum: bool = True  # False: no past surprise
    forgetting: bool = True  # False: nothing is ever dropped
    channel_forget: bool = False  # one forget gate per input channel of the memory's layers, instead of one per head
    bound_lr: bool = False  # lr at most (1 - momentum) / chunk_size: no run of alike tokens drives a matrix apart
    initial: Literal["learned", "zero"] = "learned"  # the memory at a sequence's start; zero for a plain matrix
    outer_gradient: Literal["exact", "first_order"] = "exact"  # through the inner updates, or as if they were constant
    # Chunks between the states kept for the backward pass; null chooses.
    checkpoint_every: int | None = at_least(None, 1)
    backend: Literal["auto", "reference", "chunked", "triton"] = "auto"  # who computes it; all agree to rounding


@dataclass
class AttentionOptions:
    """Attention, in the variants that have it; see `titans_seq.nn.SlidingWindowAttention`."""

    num_heads: int = at_least(4, 1)
    window: int | None = at_least(
        64, 1
    )  # tokens that a query sees, itself included; null: all, which no stream has room for
    rotary_share: float = between(0.5, 0, 1)  # of a head's features; persistent tokens live on the rest


WITH_MEMORY = ("lmm", "mal", "mag", "mac", "delta")  # variants that read `model.memory`
WITH_ATTENTION = ("mal", "mag", "mac", "transformer")  # and `model.attention`


@dataclass
class BackboneOptions:
    """A stack of blocks from (B, T, dim) to (B, T, dim)."""

    # Titans' four, and what they are compared with: attention alone, the gated delta rule, convolutions.
    variant: Literal["lmm", "mal", "mag", "mac", "transformer", "delta", "cnn"] = "lmm"
    dim: int = at_least(32, 1)  # features of a token
    num_layers: int = at_least(2, 1)
    ffn_expansion: int = at_least(2, 1)  # hidden width of the feed-forward layers, in dims
    dropout: float = between(0.2, 0, 1)
    num_persistent: int = at_least(0, 0)  # learned tokens before every sequence (eq 19), in each memory and attention
    kernel_size: int = at_least(5, 1)  # tokens that a convolution of the variant cnn sees
    segment_length: int = at_least(64, 1)  # tokens that MAC attends to at once, and after which it reads anew
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    attention: AttentionOptions = field(default_factory=AttentionOptions)


@dataclass
class DataOptions:
    """What every task's data have."""

    name: str = ""
    root: str | None = None  # data folder; null: $TITANS_SEQ_DATA, else a cache that downloads fill
    batch_size: int = at_least(32, 1)  # windows or sequences


@dataclass
class TaskOptions:
    """What is minimised, and how."""

    name: str = ""  # chooses the schema
    learning_rate: float = at_least(1e-3, 0)  # AdamW, peak
    weight_decay: float = at_least(0.05, 0)
    warmup_steps: int = at_least(200, 0)
    schedule: Literal["cosine", "constant"] = "cosine"  # after warm-up, to the end of max_epochs


@dataclass
class TrainerOptions:
    """How long, on what, and when to stop."""

    max_epochs: int = at_least(10, 1)
    max_steps: int = at_least(-1, -1)  # -1: no limit
    patience: int = at_least(3, 1)  # epochs without a better validation score before training stops
    gradient_clip: float = at_least(1.0, 0)  # largest norm of the gradient; 0 is none
    ema_decay: float = between(0.0, 0, 1)  # average of the weights that is validated and kept; 0 is none
    accumulate_batches: int = at_least(1, 1)  # batches whose gradients are averaged into one step
    compile: bool = False  # torch.compile the model
    accelerator: str = "auto"
    devices: int = at_least(1, 1)  # on each machine; data.batch_size is that of all devices together
    num_nodes: int = at_least(1, 1)  # machines
    strategy: str = "auto"  # Lightning's names: ddp, fsdp, ...
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    num_threads: int = at_least(0, 0)  # CPU threads; 0 leaves the choice to torch
    epoch_batches: int = at_least(0, 0)  # of a training epoch, others in every epoch; 0 is all there are
    limit_batches: int = at_least(0, 0)  # batches of every split's epoch, to try things out; 0 is all
    progress_bar: bool = True
    # Besides the end of every epoch, last.ckpt is written after so many steps and so much time; 0: not for that reason.
    checkpoint_steps: int = at_least(0, 0)
    checkpoint_minutes: float = at_least(10.0, 0)
    keep_checkpoints: int = at_least(2, 1)  # last.ckpt and those before it, in case it is damaged


@dataclass
class LoggingOptions:
    """Where numbers go besides metrics.csv."""

    wandb: Literal["online", "offline", "off"] | None = None  # null: $WANDB_MODE, else online with a key, else offline
    project: str = "titans_seq"
    every_n_steps: int = at_least(50, 1)
    memory: bool = False  # what the memories do: surprise, gates and norms, averaged over a batch
    artifact: bool = False  # give the best checkpoint to W&B


@dataclass
class RunOptions:
    """Where the run's folder is."""

    dir: str | None = None  # null: runs/<experiment>/<time>


@dataclass
class Config:
    """One experiment; what a task needs besides is in `ForecastConfig` and its like."""

    experiment: str = ""  # names the folder of its runs, below runs/
    seed: int = between(0, 0, 2**32 - 1)
    seeds: list[int] = field(default_factory=list)  # one run for each of them, beside each other in one folder
    # Go on with a run: last (the newest of this experiment and configuration), auto (that, or a new run if there is
    # none), or the path of a run's folder or checkpoint.
    resume: str | None = None
    data: DataOptions = field(default_factory=DataOptions)
    model: BackboneOptions = field(default_factory=BackboneOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    logging: LoggingOptions = field(default_factory=LoggingOptions)
    run: RunOptions = field(default_factory=RunOptions)
