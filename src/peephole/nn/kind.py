"""What one kind of recurrence says of itself; the rest of ``nn`` knows kinds by this alone."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peephole.nn import exchange, pretrained
from peephole.nn.checks import check_flag, check_share
from peephole.nn.initialization import Initialization, check_initialization
from peephole.ops import RECURRENCES, Recurrence

Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, Tensor]


class KindOptions(TypedDict, total=False):
    """What every kind takes, in a layer and in a cell, besides ``torch.nn``'s arguments."""

    recurrent_dropout: float
    layer_norm: bool
    learn_initial_state: bool
    initialization: Initialization
    single_bias: bool


class Kind(nn.Module):
    """The base of layers and cells: the options, and the parameters of one direction.

    A kind of recurrence is a mixin with ``name``, ``gates``, ``recurrence`` and, where it has more
    than a simple recurrent network, what it overrides of the rest. Its layer is
    ``class MGU(MGUKind, Layer)``, its cell ``class MGUCell(MGUKind, Cell)``.

    Attributes:
        name: of the recurrence.
        gates: their names, in the order of the weights' rows.
        states: "h" first, then what else is carried from step to step.
        recurrence: what one direction computes; see ``peephole.ops.direction``. Without a
            ``weight_ih`` its x is what ``gates_of_input`` gives.
        gates_of_input: from x ``[N, I]`` and a direction's tensors the input's part of its gates
            ``[N, G * H]``, and what is left of the tensors; None where a kind has no such part.
        torch_name: of the class in ``torch.nn`` that computes the same without our options.
        retention: the gates that keep the old state, 1, and that let in the new, -1: what chrono
            initialization sets.
        own_options: the kind's own options, with their defaults.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ("h",)
    recurrence: Recurrence
    gates_of_input: Callable[[Tensor, Tensors], tuple[Tensor, Tensors]] | None = None
    torch_name: ClassVar[str | None] = None
    own_options: ClassVar[Mapping[str, Any]] = {}
    gates: tuple[str, ...]
    retention: Mapping[str, int] = {}

    common_options: ClassVar[Mapping[str, Any]] = {
        "recurrent_dropout": 0.0,
        "zoneout": 0.0,
        "layer_norm": False,
        "learn_initial_state": False,
        "initialization": "torch",
        "single_bias": False,
    }
    # Those of all options that give other equations than torch.nn's; with their defaults.
    _other_equations: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        names = ("peephole", "coupled", "cell_clip", "recurrent_dropout", "zoneout", "layer_norm")
        defaults = {**cls.own_options, **cls.common_options}
        cls._other_equations = {name: defaults[name] for name in names if name in defaults}
        if "recurrence" in cls.__dict__:
            RECURRENCES[cls.name] = cls.recurrence

    def _take(self, *, bias: bool, **options: Any) -> None:
        """Check the options that every kind has, and keep them."""
        for name in options:
            if name not in self.common_options:
                raise TypeError(
                    f"{type(self).__name__}.__init__() got an unexpected keyword argument {name!r}"
                )
        every = {**self.common_options, **options}
        self.bias = check_flag("bias", bias)
        self.layer_norm = check_flag("layer_norm", every["layer_norm"])
        self.learn_initial_state = check_flag("learn_initial_state", every["learn_initial_state"])
        self.single_bias = check_flag("single_bias", every["single_bias"])
        if self.single_bias and not bias:
            raise ValueError("single_bias=True asks for a bias and bias=False for none")
        check_share("recurrent_dropout", every["recurrent_dropout"], below_one=True)
        self.recurrent_dropout: float = every["recurrent_dropout"]
        self.zoneout = self._checked_zoneout(every["zoneout"])
        self.initialization = check_initialization(self, every["initialization"])

    def _checked_zoneout(self, zoneout: Any) -> float | tuple[float, ...]:
        if isinstance(zoneout, tuple | list):
            if len(self.states) == 1 or len(zoneout) != len(self.states):
                takes = "a number or (hidden, cell)" if len(self.states) > 1 else "one number"
                raise ValueError(f"zoneout={zoneout}; {type(self).__name__} takes {takes}")
            zoneout = tuple(zoneout) if any(zoneout) else 0.0
        for share in zoneout if isinstance(zoneout, tuple) else (zoneout,):
            check_share("zoneout", share)
        checked: float | tuple[float, ...] = zoneout
        return checked

    def options(self) -> dict[str, tuple[Any, Any]]:
        """Each option by name: what it is, and what it is by default."""
        defaults = {**self.own_options, **self.common_options}
        return {name: (getattr(self, name), default) for name, default in defaults.items()}

    def is_torchs(self) -> bool:
        """Whether ``torch.nn`` has the equations."""
        if self.torch_name is None:
            return False
        for name, default in self._other_equations.items():
            if getattr(self, name) != default:
                return False
        return True

    def beyond_torch(self, *, values: bool = True) -> str:
        """What of it ``torch.nn``'s equations do not have, as a person writes it.

        Args:
            values: whether to say what options are set to, or only which they are.
        """
        if self.torch_name is None:
            return f"such layer as {type(self).__name__}"
        return ", ".join(
            f"{name}={getattr(self, name)!r}" if values else name
            for name, default in self._other_equations.items()
            if getattr(self, name) != default
        )

    # Parameters of one direction

    def state_sizes(self, hidden_size: int) -> tuple[int, ...]:
        """Width of each state."""
        return (hidden_size,) * len(self.states)

    def shapes(self, input_size: int, hidden_size: int) -> Shapes:
        """One direction's parameters that ``torch.nn`` has too, in its order."""
        G_H, P = len(self.gates) * hidden_size, self.state_sizes(hidden_size)[0]
        shapes: Shapes = {"weight_ih": (G_H, input_size), "weight_hh": (G_H, P)}
        if self.bias:
            shapes |= {"bias_ih": (G_H,)}
        if self.bias and not self.single_bias:
            shapes |= {"bias_hh": (G_H,)}
        return shapes

    def extra_shapes(self, hidden_size: int) -> Shapes:
        """One direction's parameters that ``torch.nn`` does not have."""
        shapes: Shapes = {}
        if self.layer_norm:
            G_H = len(self.gates) * hidden_size
            shapes |= {"weight_ln_ih": (G_H,), "weight_ln_hh": (G_H,)}
        if self.learn_initial_state:
            sizes = zip(self.states, self.state_sizes(hidden_size), strict=True)
            shapes |= {f"{state}_0": (size,) for state, size in sizes}
        return shapes

    # What one run of one direction takes besides its parameters

    def recurrence_options(self) -> dict[str, Any]:
        """The options that ``recurrence`` is told."""
        return {}

    def draw(
        self, sequences: int, steps: int, hidden_size: int, like: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Masks of recurrent dropout and zoneout for one direction; in evaluation, shares.

        Returns:
            ``recurrent_mask [B, P]``, and ``zoneout_h [N, P]``, ``zoneout_c [N, H]`` as masks
            while training, as numbers else; each only where the option is on.
        """
        masks, numbers = self.draw_zoneout(steps, hidden_size, like)
        if self.recurrent_dropout and self.training:
            masks["recurrent_mask"] = self._recurrent_mask(sequences, hidden_size, like)
        return masks, numbers

    def draw_zoneout(
        self, steps: int, hidden_size: int, like: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Of ``draw``, what is zoneout's."""
        masks: dict[str, Tensor] = {}
        numbers: dict[str, float] = {}
        sizes = self.state_sizes(hidden_size)
        both = self.zoneout if isinstance(self.zoneout, tuple) else [self.zoneout] * len(sizes)
        for state, size, share in zip(self.states, sizes, both, strict=True):
            if share and self.training:
                masks[f"zoneout_{state}"] = torch.rand(steps, size, device=like.device) < share
            elif share:
                numbers[f"zoneout_{state}"] = share
        return masks, numbers

    def _recurrent_mask(self, sequences: int, hidden_size: int, like: Tensor) -> Tensor:
        ones = like.new_ones(sequences, self.state_sizes(hidden_size)[0])
        return F.dropout(ones, self.recurrent_dropout, self.training)

    # Elsewhere

    def to_torch(self) -> nn.Module:
        """Make the module of ``torch.nn`` that computes the same, with a copy of the weights.

        Device, dtype, training mode and each parameter's ``requires_grad`` are kept. Options that
        only choose first values (``forget_bias``, ``initialization``) and ``backend`` are left
        behind.

        Raises:
            ValueError: ``torch.nn`` has no such module; why.
        """
        return exchange.to_torch(self)

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors``, which ``peephole.load`` reads.

        Not kept: training mode, ``requires_grad``, that two names share a weight, and a function
        given as ``initialization``, whose values are in the weights.

        Args:
            directory: made where there is none; these two files in it are replaced.

        Raises:
            TypeError: a subclass, which ``peephole.load`` could not make.
            ValueError: parameters that differ in dtype, or are not what the arguments make, as
                pruned ones.
            UserError: the files cannot be written there.
        """
        pretrained.save(self, directory)

    def __prepare_scriptable__(self) -> None:
        refuse_torchscript(self)


def refuse_torchscript(module: nn.Module) -> None:
    """Raise TypeError."""
    raise TypeError(
        f"TorchScript (torch.jit) cannot take peephole.{type(module).__name__}; use torch.export, "
        "or torch.compile"
    )


def refuse_tracing(module: nn.Module) -> None:
    """Raise TypeError while ``torch.jit.trace`` runs, which would keep one batch's lengths."""
    if not torch.compiler.is_compiling() and torch._C._is_tracing():
        refuse_torchscript(module)
