"""Lightning's way to files, through ours."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from titans_seq.checkpoint_files import read_checkpoint, write_checkpoint


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are synced and renamed when written, and verified when read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """See `write_checkpoint`; raises OSError."""
        assert storage_options is None
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `read_checkpoint`; Lightning moves what it takes to its device."""
        return read_checkpoint(Path(path))
