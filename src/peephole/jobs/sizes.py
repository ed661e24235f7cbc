"""Whether a model can be trained here, before memory is taken for it.

The settings of a run that is resumed may come from a stranger, and a person errs by a few zeros. So
the model is first made on torch's meta device, where it has shapes and no numbers.
"""

import os
from pathlib import Path

import torch
from torch import nn

from peephole import tensors
from peephole.errors import UserError
from peephole.run import saved
from peephole.tasks.protocol import Task
from peephole.tensors import Form
from peephole.train import Settings

MODEL = "model."
GB = 1e9


def check_memory(task: Task, settings: Settings) -> None:
    """See that this machine has the memory that training a model takes at the least.

    Args:
        task: with a model that can be made on the meta device.
        settings: of the loop.

    Raises:
        UserError: it has not.
    """
    weights = sum(p.numel() * p.element_size() for p in _shapes(task).parameters())
    # The weights, their gradients and averages, and the two moments of AdamW.
    copies = 2 + (settings.average is not None) + 2 * (settings.optimizer == "adam")
    if settings.device != "cpu":
        # What is made here may go to another device.
        copies = 1
    if (needed := copies * weights) > (there := _memory()):
        raise UserError(
            f"to train {weights / GB:,.0f} GB of weights takes {needed / GB:,.0f} GB of memory, "
            f"and this machine has {there / GB:,.0f} GB: fewer layers or units take less"
        )


def check_checkpoints(run: Path, task: Task) -> None:
    """See, by the shapes that stand at the beginning of its files, that a run has task's model.

    Args:
        run: the run folder, of plain files. One checkpoint that fits will do, or none at all:
            which are damaged is told when they are read.
        task: as above.

    Raises:
        UserError: none of its checkpoints fits.
    """
    state = _shapes(task).state_dict()
    wanted = {MODEL + name: Form.of(tensor) for name, tensor in state.items()}
    misfits = []
    for path in reversed(saved.found(run).values()):
        file = path / saved.TENSORS
        try:
            forms = tensors.forms(file)
        except UserError as error:
            misfits.append(error.message)
            continue
        own = {name: form for name, form in forms.items() if name.startswith(MODEL)}
        if (why := tensors.difference(own, wanted)) is None:
            return
        misfits.append(f"{file} does not go with the run's settings: it {why}")
    if misfits:
        raise UserError(misfits[0])


def _shapes(task: Task) -> nn.Module:
    with torch.device("meta"):
        return task.model()


def _memory() -> int:
    """Bytes of memory that this machine has, whatever a container may limit it to."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
