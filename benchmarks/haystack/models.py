"""The models that look for needles: arms of about 31,000 parameters, and the byte model around their backbones."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from titans_seq.backbone import build_backbone
from titans_seq.nn import NeuralMemory
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions

MEMORY = MemoryOptions(num_heads=2, chunk_size=16)
LMM = BackboneOptions(
    variant="lmm",
    dim=32,
    num_layers=1,
    ffn_expansion=4,
    dropout=0.0,
    num_persistent=4,
    segment_length=16,
    memory=MEMORY,
    attention=AttentionOptions(num_heads=2, window=16),
)
MAC = replace(LMM, variant="mac", ffn_expansion=2)
ONLINE = replace(MEMORY, gradient="online")
ARMS: dict[str, BackboneOptions] = {
    "lmm": LMM,
    "mal": replace(LMM, variant="mal", ffn_expansion=2),
    "mag": replace(LMM, variant="mag", ffn_expansion=2),
    "mac": MAC,
    "transformer": replace(LMM, variant="transformer", num_layers=2, ffn_expansion=1),
    "delta": replace(LMM, variant="delta"),
    "no_momentum": replace(LMM, memory=replace(MEMORY, momentum=False)),
    "no_forgetting": replace(LMM, memory=replace(MEMORY, forgetting=False)),
    "no_convolution": replace(LMM, memory=replace(MEMORY, conv_width=1)),
    "no_persistent": replace(LMM, num_persistent=0),
    "deep": replace(LMM, ffn_expansion=2, memory=replace(MEMORY, depth=2, expansion=4)),
    "lmm_online": replace(LMM, memory=ONLINE),
    "mac_4x_steps": MAC,
    "lmm_4x_steps": LMM,
}
ABLATIONS = tuple(ARMS)
ARMS["lmm_online_one_head"] = replace(LMM, memory=replace(ONLINE, num_heads=1))


def options_of(arm: str, gates: str, haystack: str) -> BackboneOptions:
    """Return an arm's options with these gates; in text it has a second layer and a convolution of 12 bytes.

    The gates of one layer see the current byte alone. In text a byte is to be kept or not for what is before it, which
    the gates of a second layer see.
    """
    options = ARMS[arm]
    memory = replace(options.memory, gates=gates)
    if haystack == "text":
        return replace(options, num_layers=2, memory=replace(memory, conv_width=12))
    return replace(options, memory=memory)


class Model(nn.Module):
    """Byte model: embedding, backbone, norm, linear head over all bytes."""

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, options.dim)
        self.backbone = build_backbone(options)
        self.norm = nn.RMSNorm(options.dim, eps=1e-6)
        self.head = nn.Linear(options.dim, 256)

    def forward(self, tokens: Tensor, at: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Map bytes (B, T) to the logits (B, Q, N, 256) of what follows positions `at` (Q, N), and the state."""
        x, state = self.backbone(self.embedding(tokens), state)
        return self.head(self.norm(x[:, at])), state

    def read(self, tokens: Tensor, state: Any = None) -> Any:
        """Read bytes (B, T) and return the state after them."""
        return self.backbone(self.embedding(tokens), state)[1]


def memories(model: Model) -> list[NeuralMemory]:
    """Return the model's memories, by layer."""
    return [module for module in model.modules() if isinstance(module, NeuralMemory)]


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
