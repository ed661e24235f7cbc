// One step of a cell, straight from its tensors: of a few sequences it takes no longer than Python
// would take to look at them.
#pragma once

#include <nanobind/nanobind.h>

#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "calls.h"
#include "tensor.h"

namespace peephole {

enum class Cell { lstm, gru, rnn_tanh, rnn_relu };

// Compute new_h [B, H], and for the LSTM new_c, from x [B, I], h and c, as torch's cells do.
//
// Biases may be None, and so are c and new_c of other cells than the LSTM. Gives false, and has
// computed nothing, where there is a tensor whose numbers do not lie as they must.
template <class S>
bool step(int cell, nanobind::handle dtype, nanobind::handle x, nanobind::handle weight_ih,
          nanobind::handle weight_hh, nanobind::handle bias_ih, nanobind::handle bias_hh,
          nanobind::handle h, nanobind::handle c, nanobind::handle new_h, nanobind::handle new_c) {
  auto [B, I] = rows_and_columns(x);
  // That h has as many rows as x is found out with the others.
  const int64_t H = rows_and_columns(h).second;
  if (B < 0 || H < 0) return false;
  const int gates = Cell(cell) == Cell::lstm ? 4 : Cell(cell) == Cell::gru ? 3 : 1;
  const nanobind::tuple states = nanobind::make_tuple(B, H);
  const nanobind::tuple biases = nanobind::make_tuple(gates * H);
  const Found at_x = find(x, nanobind::make_tuple(B, I), dtype);
  const Found at_ih = find(weight_ih, nanobind::make_tuple(gates * H, I), dtype);
  const Found at_hh = find(weight_hh, nanobind::make_tuple(gates * H, H), dtype);
  const Found b_ih = find(bias_ih, biases, dtype), b_hh = find(bias_hh, biases, dtype);
  const Found at_h = find(h, states, dtype), at_c = find(c, states, dtype);
  const Found to_h = find(new_h, states, dtype), to_c = find(new_c, states, dtype);
  for (const Found* each : {&at_x, &at_ih, &at_hh, &b_ih, &b_hh, &at_h, &at_c, &to_h, &to_c})
    if (!*each) return false;

  std::vector<int64_t> offsets(B + 1);
  std::iota(offsets.begin(), offsets.end(), 0);
  std::unique_ptr<S[]> outputs(new S[B * H]);
  const Address first = Address(offsets.data()), y = Address(outputs.get());
  switch (Cell(cell)) {
    case Cell::lstm:
      LstmCalls<S>::forward(B, B, first, false, H, false, int(Peephole::none),
                            std::numeric_limits<double>::infinity(), *at_hh, 0, *at_h, *at_c, 0, 0,
                            0, 0.0, 0, 0, 0.0, 0, *at_x, I, *at_ih, *b_ih, *b_hh, 0, y,
                            *to_h, *to_c, 0, 0);
      break;
    case Cell::gru: {
      const Address bias_hn = *b_hh ? *b_hh + 2 * H * sizeof(S) : 0;
      GruCalls<S>::forward(B, B, first, false, H, *at_hh, bias_hn, *at_h, 0, 0, 0, 0.0, *at_x, I,
                           *at_ih, *b_ih, *b_hh, 0, y, *to_h, 0, 0);
      break;
    }
    default:
      RnnCalls<S>::forward(B, B, first, false, H, Cell(cell) == Cell::rnn_relu, *at_hh, *at_h, 0,
                           0, 0, 0.0, *at_x, I, *at_ih, *b_ih, *b_hh, 0, y, *to_h, 0);
  }
  return true;
}

}  // namespace peephole
