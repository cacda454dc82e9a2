"""``--init_from``: a new run begins with the weights of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.interchange import load_weights_into
from insight.runtime.messages import say
from insight.runtime.run_folder import DEFAULT_ROOT, find_checkpoint


class InitialWeights(Callback):
    """Loads the weights of a checkpoint before training starts; optimizer, position and step begin anew.

    Args:
        checkpoint: A run folder or a ``.ckpt`` file with the same network and tokenizer.
        root: Where runs are kept, for a run that is given by its name.
    """

    def __init__(self, checkpoint: str, root: Path | str = DEFAULT_ROOT) -> None:
        self.checkpoint, self.root = checkpoint, root

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load them; the network has been built and nothing has been restored yet."""
        path = find_checkpoint(self.checkpoint, self.root)
        module, data = cast(Any, pl_module), cast(Any, trainer).datamodule

        def load(weights: dict[str, Any]) -> None:
            named = {f"network.{name}": tensor for name, tensor in weights.items()}
            trainer.strategy.load_model_state_dict({"state_dict": named}, strict=True)

        load_weights_into(module.network, path, data.tokenizer, load)
        say(f"initial weights: {path}")
