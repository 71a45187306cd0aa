"""Who holds the model of a run: every process the whole of it, or a mesh of them a share each."""

import torch

from moelab.runs import RunConfig
from moelab.training.processes import World
from moelab.training.replicated import Replicated
from moelab.training.tensor_files import WHOLE, Files


def lay_out(config: RunConfig, everyone: World, dtype: torch.dtype) -> tuple[Replicated, Files]:
    """The model over the run's processes, and how its checkpoints are written. What shards one is loaded then."""
    if config.train.parallel is None or everyone.size == 1:
        return Replicated(config, everyone, dtype), WHOLE
    from moelab.training.mesh import Sharded
    from moelab.training.sharded_files import ShardedFiles

    layout = Sharded(config, everyone, dtype)
    return layout, ShardedFiles(layout)
