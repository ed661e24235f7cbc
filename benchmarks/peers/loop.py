"""A peephole LSTM as a loop over padded steps, in plain PyTorch: what people write today.

It is written as well as one can without a kernel of one's own. The input's product is one matrix
product over all steps. Its result is unbound into steps once: the backward pass of ``gates[t]``,
which most loops have instead, makes a gradient of the size of all steps at each step, and so takes
time with the square of their number. The recurrent product adds to its step in one call, and so
do the peepholes. Sequences that have ended keep their state, by a mask. Outputs are stacked once.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class PeepholeLoop(nn.Module):
    """An LSTM with diagonal peepholes (Graves 2013, equations 7 to 11) over a padded batch.

    Parameters are those of ``peephole.LSTM(input_size, hidden_size, peephole="diagonal")``, and
    are named without its ``_l0``.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        """Make the parameters; they are to be filled."""
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        self.weight_ch = nn.Parameter(torch.empty(3, hidden_size))

    def forward(
        self, x: Float[Tensor, "T B I"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]]:
        """Run over a batch, from zeros.

        Args:
            x: padded.
            lengths: the steps of each sequence.

        Returns:
            h at every step, the last one repeated in the padding, and the final (h, c).
        """
        gates_x = F.linear(x, self.weight_ih, self.bias_ih + self.bias_hh).unbind(0)
        steps = torch.arange(x.shape[0], device=lengths.device)
        running = (steps.unsqueeze(1) < lengths).unsqueeze(2).unbind(0)
        W_h = self.weight_hh.t()
        W_ci, W_cf, W_co = self.weight_ch.unbind(0)
        h = c = x.new_zeros(x.shape[1], self.weight_hh.shape[1])
        outputs = []
        for gates, runs in zip(gates_x, running, strict=True):
            a_i, a_f, a_g, a_o = torch.addmm(gates, h, W_h).chunk(4, dim=1)
            i = torch.sigmoid(torch.addcmul(a_i, c, W_ci))
            f = torch.sigmoid(torch.addcmul(a_f, c, W_cf))
            c_new = torch.addcmul(f * c, i, torch.tanh(a_g))
            o = torch.sigmoid(torch.addcmul(a_o, c_new, W_co))
            h = torch.where(runs, o * torch.tanh(c_new), h)
            c = torch.where(runs, c_new, c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)
