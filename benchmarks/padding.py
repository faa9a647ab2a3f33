"""Cost of padding: forward and backward of a bidirectional backbone on sequences of mixed length, one thread.

The same batch in three ways: all tokens valid and no mask; with padding, as `Bidirectional` processes it; and with
padding that the same stacks skip token by token, as is necessary in a stream. The model is that of
configs/genomics/gue.yaml.
"""

import statistics
import time
from collections.abc import Callable

import torch
from record import record
from torch import Tensor

from titans_seq.backbone.bidirectional import Bidirectional
from titans_seq.config import load_config
from titans_seq.schema import ClassificationConfig
from titans_seq.tasks.sequences import build_sequence_backbone

VARIANTS = ("lmm", "mal", "mag", "mac", "transformer", "cnn")
BATCH, ROUNDS = 64, 7


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run().square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for variant in VARIANTS:
        config = load_config(["configs/genomics/gue.yaml"], [f"model.variant={variant}"])
        assert isinstance(config, ClassificationConfig)
        model = build_sequence_backbone(config.model).train()
        assert isinstance(model, Bidirectional)
        for tokens, shortest in ((26, 18), (128, 64)):
            x = torch.randn(BATCH, tokens, config.model.dim)
            mask = torch.arange(tokens) < torch.randint(shortest, tokens + 1, (BATCH, 1))

            def skipping(x: Tensor = x, mask: Tensor = mask, model: Bidirectional = model) -> Tensor:
                back, _ = model.ahead(x.flip(1), mask=mask.flip(1))
                return torch.lerp(model.ahead(x, mask=mask)[0], back.flip(1), 0.5)

            ways: dict[str, Callable[[], Tensor]] = {
                "one_length": lambda model=model, x=x: model(x)[0],
                "padded": lambda model=model, x=x, mask=mask: model(x, mask=mask)[0],
                "skipping": skipping,
            }
            # Alternating, so that other load on the machine affects all three.
            rounds = [{name: seconds(run) for name, run in ways.items()} for _ in range(ROUNDS)]
            row = {name: round(1e3 * statistics.median(r[name] for r in rounds) / BATCH, 2) for name in ways}
            ratios = {
                f"{name}_over_one_length": round(statistics.median(r[name] / r["one_length"] for r in rounds), 2)
                for name in ("padded", "skipping")
            }
            figures.append({"variant": variant, "tokens": tokens, "shortest": shortest, "ms_a_sequence": row, **ratios})
            print(f"{variant}, {shortest} to {tokens} tokens: {row} ms a sequence; {ratios}", flush=True)
    record("padding", figures)


if __name__ == "__main__":
    main()
