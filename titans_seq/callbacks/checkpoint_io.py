"""Lightning checkpoint plugin that uses the atomic, verified files of this package."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from titans_seq.checkpoint_files import read_checkpoint, write_checkpoint


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin that syncs and renames files when writing, and verifies them when reading."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write with `write_checkpoint`; raises OSError."""
        assert storage_options is None
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read with `read_checkpoint`, onto the CPU; Lightning moves the tensors to its device."""
        return read_checkpoint(Path(path))
