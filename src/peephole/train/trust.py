"""Whether what a checkpoint says can be: it may come from a stranger."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peephole.errors import UserError
from peephole.tensors import Form
from peephole.untrusted import shown

if TYPE_CHECKING:
    from peephole.train.training import Position

# No model has more of them.
MOST_CARRIED = 1000
OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
LEAST_ZERO = (
    "update",
    "planned",
    "epoch",
    "batch",
    "targets",
    "since_best",
    "skipped",
    "events_bytes",
    "carried",
)


def check_position(at: "Position", update: int, monitor: str, where: Path) -> None:
    """Raise UserError unless a training can be there.

    Args:
        at: what the checkpoint says.
        update: the update that it is of.
        monitor: the metric by which the best model is chosen.
        where: the checkpoint.
    """

    def refuse(name: str, value: object, wanted: str) -> None:
        raise UserError(f"{where}: {name} is {shown(value)}; it must be {wanted}")

    if at.update != update:
        refuse("update", at.update, str(update))
    for name in LEAST_ZERO:
        if getattr(at, name) < 0:
            refuse(name, getattr(at, name), "at least 0")
    if at.update and at.planned < 1:
        refuse("planned", at.planned, "at least 1")
    if at.carried > MOST_CARRIED:
        refuse("carried", at.carried, f"at most {MOST_CARRIED}")
    if not 0 <= at.seconds < float("inf"):
        refuse("seconds", at.seconds, "a time")
    if at.best:
        best = at.best.get("update")
        if type(best) is not int or not 0 <= best <= update:
            refuse("best['update']", best, f"between 0 and {update}")
        for name in (monitor, "epoch"):
            value = at.best.get(name, "missing")
            if isinstance(value, str):
                refuse(f"best[{name!r}]", value, "a number")


def check_forms(forms: Mapping[str, Form], carried: int, where: Path) -> None:
    """Raise UserError unless the tensors beside the weights are complete.

    Args:
        forms: of the checkpoint's tensors.
        carried: how many tensors each stream's state is.
        where: the checkpoint.
    """
    learned = {name.split(".")[1] for name in forms if name.startswith("optimizer.")}
    for name in (f"optimizer.{k}.{which}" for k in sorted(learned) for which in OF_ADAM):
        if name not in forms:
            raise UserError(f"{where} lacks {shown(name)}")
    rows = set()
    for k in range(carried):
        if (form := forms.get(f"state.{k}")) is None:
            raise UserError(f"{where} lacks 'state.{k}'")
        rows.add(form.shape[:1])
    if len(rows) > 1 or () in rows or (0,) in rows:
        raise UserError(f"{where} has states of {shown(sorted(rows))} streams")
