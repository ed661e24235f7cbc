// The kernels' calls: from addresses and sizes to what kernels take, dealt out to threads.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <vector>

#include "choice.h"
#include "kernels.h"
#include "schedule.h"
#include "threads.h"

namespace peephole {

using Address = uintptr_t;

template <class S>
S* at(Address address) {
  return reinterpret_cast<S*>(address);
}

// A batch as Python gives it.
struct Given {
  int64_t sequences, steps;
  Address offsets;
  bool reverse;
};

// From the form in which numbers are computed to that in which they are stored.
template <class S>
inline S stored(Arithmetic<S> value) {
  return value;
}
template <>
inline BFloat16 stored<BFloat16>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return {uint16_t(bits >> 16 | 0x40)};  // a NaN, and still after it is cut
  // To the nearest, and of two to the even one.
  return {uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

// Sums of each part, [parts, width], whose total goes to `to`; null where nobody asks.
template <class S>
class Totals {
 public:
  using T = Arithmetic<S>;

  Totals(Address to, int64_t parts, int64_t width) : to_(at<S>(to)), parts_(parts), width_(width) {
    if (to_ && (parts > 1 || sizeof(S) < sizeof(T))) memory_.resize(parts * width);
  }

  T* each() {
    if constexpr (sizeof(S) == sizeof(T))
      if (memory_.empty()) return to_;
    return memory_.empty() ? nullptr : memory_.data();
  }

  // In the order of the parts, so that the same threads give the same bits.
  void add_up() {
    if (memory_.empty()) return;
    for (int64_t p = 1; p < parts_; ++p)
      for (int64_t k = 0; k < width_; ++k) memory_[k] += memory_[p * width_ + k];
    std::transform(memory_.begin(), memory_.begin() + width_, to_, stored<S>);
  }

 private:
  S* to_;
  int64_t parts_, width_;
  std::vector<T> memory_;
};

// What other Python threads could do meanwhile is worth giving them the interpreter.
constexpr double kWorkToRelease = 2e5;

// Deal a batch out, and call `run(batch, team)`.
//
// `weights` are the numbers that a step multiplies its state with. Where the gates' input part is
// computed here too, sums may have any order: its own depends on how many steps there are.
template <class Run>
void deal_and_run(const Given& given, int64_t hidden, int64_t weights, bool any_order,
                  const Run& run) {
  // Nonlinearities, and what is loaded and stored, in multiply-adds of a unit.
  double work = double(given.steps) * (double(weights) + 30.0 * double(hidden));
  Team team = team_for(work, given.sequences);
  Schedule schedule(at<const int64_t>(given.offsets), given.sequences, given.steps, given.reverse,
                    team.threads);
  std::optional<nanobind::gil_scoped_release> released;
  if (work > kWorkToRelease) released.emplace();
  if (!run(schedule.batch(any_order), team)) throw std::bad_alloc();
}

// What a sum over steps has on its right side, a row for each step.
template <class S>
class Factor {
 public:
  // The rows of a matrix [steps, columns].
  Factor(const S* matrix, int64_t steps, int64_t columns, S* result)
      : rows_(steps), columns_(columns), result_(result) {
    for (int64_t n = 0; n < steps; ++n) rows_[n] = matrix + n * columns;
  }

  // The states before each step: rows of the states [steps, columns], initial ones [B, columns],
  // null for zeros. `mask` [B, columns] multiplies them, and may be null.
  Factor(const Batch& batch, int64_t steps, const S* states, const S* initial, const S* mask,
         int64_t columns, S* result)
      : rows_(steps), masks_(mask ? steps : 0), columns_(columns), result_(result) {
    for (int64_t p = 0; p < batch.count; ++p)
      for (int64_t r = 0; r < batch.parts[p].count; ++r) {
        const Sequence& sequence = batch.parts[p].sequences[r];
        for (int64_t t = 0; t < sequence.steps; ++t) {
          int64_t n = sequence.first + t * batch.stride;
          rows_[n] = t         ? states + (n - batch.stride) * columns
                     : initial ? initial + sequence.index * columns
                               : nullptr;
          if (mask) masks_[n] = mask + sequence.index * columns;
        }
      }
  }

  OuterFactor<S> factor() const {
    return {rows_.data(), masks_.empty() ? nullptr : masks_.data(), columns_, result_};
  }

 private:
  std::vector<const S*> rows_, masks_;
  int64_t columns_;
  S* result_;
};

// The sums over steps of left [steps, outputs], whose rows are `stride` apart, times factors.
template <class S>
bool add_up_products(const S* left, int64_t stride, int64_t outputs, int64_t steps,
                     const std::vector<Factor<S>>& factors) {
  std::vector<OuterFactor<S>> each;
  int64_t columns = 0;
  for (const Factor<S>& factor : factors) {
    each.push_back(factor.factor());
    columns += each.back().columns;
  }
  if (each.empty()) return true;
  // Outputs are independent here: a single sequence has work for all threads.
  Team team = team_for(double(steps) * double(outputs) * double(columns), outputs);
  return kernels<S>().outer({left, stride, outputs, steps, each.data(), int(each.size())}, team);
}

// The derivative with respect to what the gates' input part was computed from, if anybody asks.
template <class S>
bool input_gradient(const S* d_gates, int64_t outputs, int64_t steps, Address weight_ih,
                    int64_t inputs, Address d_x) {
  if (!d_x) return true;
  // Steps are independent here, so there may be more threads than the recurrence has use for.
  Team team = team_for(double(steps) * double(outputs) * double(inputs), steps);
  return kernels<S>().input_backward(
      {d_gates, outputs, steps, at<const S>(weight_ih), inputs, at<S>(d_x)}, team);
}

// What the gates' input part is computed from, where it is not given.
template <class S>
Input<S> input(Address x, int64_t inputs, Address weight_ih, int64_t outputs, Address bias_ih,
               Address bias_hh, int64_t outputs_too, Address bias_ch = 0, int64_t hidden = 0) {
  return {at<const S>(x),       inputs,      at<const S>(weight_ih), outputs, at<const S>(bias_ih),
          at<const S>(bias_hh), outputs_too, at<const S>(bias_ch),   hidden};
}

template <class S>
Zoneout<S> zoneout(Address mask, Address shares, double share) {
  return {at<const uint8_t>(mask), at<const S>(shares), Arithmetic<S>(share)};
}

template <class S>
struct LstmCalls {
  static Lstm<S> model(int64_t hidden, bool coupled, int peephole, double cell_clip,
                       Address weight_hh, Address weight_ch, Address h0, Address c0,
                       Address recurrent_mask, Zoneout<S> zoneout_h, Zoneout<S> zoneout_c) {
    return {hidden,          coupled,          Peephole(peephole), Arithmetic<S>(cell_clip),
            at<const S>(weight_hh), at<const S>(weight_ch),   at<const S>(h0),    at<const S>(c0),
            at<const S>(recurrent_mask), zoneout_h, zoneout_c};
  }

  static int64_t weights(const Lstm<S>& m) {
    int64_t gates = m.coupled ? 3 : 4;
    return m.hidden * m.hidden * (m.peephole == Peephole::full ? 2 * gates - 1 : gates);
  }

  static void forward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                      int64_t hidden, bool coupled, int peephole, double cell_clip,
                      Address weight_hh, Address weight_ch, Address h0, Address c0,
                      Address recurrent_mask, Address zoneout_h_mask, Address zoneout_h_shares,
                      double zoneout_h, Address zoneout_c_mask, Address zoneout_c_shares,
                      double zoneout_c, Address bias_ch, Address x, int64_t inputs,
                      Address weight_ih, Address bias_ih, Address bias_hh, Address gates_x,
                      Address y, Address h_n, Address c_n, Address gates, Address cells) {
    Lstm<S> m = model(hidden, coupled, peephole, cell_clip, weight_hh, weight_ch, h0, c0,
                      recurrent_mask, zoneout<S>(zoneout_h_mask, zoneout_h_shares, zoneout_h),
                      zoneout<S>(zoneout_c_mask, zoneout_c_shares, zoneout_c));
    int64_t width = (coupled ? 3 : 4) * hidden;
    Input<S> in =
        input<S>(x, inputs, weight_ih, width, bias_ih, bias_hh, width, bias_ch, hidden);
    LstmForward<S> out = {at<const S>(gates_x), gates_x ? nullptr : &in, at<S>(y),    at<S>(h_n),
                          at<S>(c_n),           at<S>(gates),    at<S>(cells)};
    deal_and_run({sequences, steps, offsets, reverse}, hidden, weights(m), gates_x == 0,
                 [&](const Batch& batch, const Team& team) {
                   return kernels<S>().lstm_forward(m, out, batch, team);
                 });
  }

  static void backward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                       int64_t hidden, bool coupled, int peephole, double cell_clip,
                       Address weight_hh, Address weight_ch, Address h0, Address c0,
                       Address recurrent_mask, Address zoneout_h_mask, Address zoneout_h_shares,
                       double zoneout_h, Address zoneout_c_mask, Address zoneout_c_shares,
                       double zoneout_c, Address y, Address gates, Address cells, Address d_y,
                       Address d_h_n, Address d_c_n, Address upstream_gates,
                       Address upstream_cells, Address d_gates, Address d_h0, Address d_c0,
                       Address d_bias, Address d_weight_hh, Address d_weight_ch,
                       Address new_cells, Address x, int64_t inputs, Address d_weight_ih,
                       Address weight_ih, Address d_x) {
    Lstm<S> m = model(hidden, coupled, peephole, cell_clip, weight_hh, weight_ch, h0, c0,
                      recurrent_mask, zoneout<S>(zoneout_h_mask, zoneout_h_shares, zoneout_h),
                      zoneout<S>(zoneout_c_mask, zoneout_c_shares, zoneout_c));
    int64_t width = (coupled ? 3 : 4) * hidden;
    bool full = m.peephole == Peephole::full;
    auto run = [&](const Batch& batch, const Team& team) {
      Totals<S> bias(d_bias, batch.count, width);
      Totals<S> peepholes(full ? 0 : d_weight_ch, batch.count, width - hidden);
      LstmBackward<S> out = {at<const S>(gates),
                             at<const S>(cells),
                             at<const S>(d_y),
                             at<const S>(d_h_n),
                             at<const S>(d_c_n),
                             at<const S>(upstream_gates),
                             at<const S>(upstream_cells),
                             at<S>(d_gates),
                             at<S>(d_h0),
                             at<S>(d_c0),
                             bias.each(),
                             peepholes.each(),
                             at<S>(new_cells)};
      if (!kernels<S>().lstm_backward(m, out, batch, team)) return false;
      bias.add_up();
      peepholes.add_up();
      std::vector<Factor<S>> of_gates;
      if (d_weight_ih)
        of_gates.emplace_back(at<const S>(x), steps, inputs, at<S>(d_weight_ih));
      if (d_weight_hh)
        of_gates.emplace_back(batch, steps, at<const S>(y), m.h0, m.recurrent_mask, hidden,
                              at<S>(d_weight_hh));
      if (!add_up_products(out.d_gates, width, width, steps, of_gates)) return false;
      if (!input_gradient(out.d_gates, width, steps, weight_ih, inputs, d_x)) return false;
      if (!full || !d_weight_ch) return true;
      // i and f looked at the cells before, o at the new ones.
      int64_t looking = width - 2 * hidden;
      S* d_out = at<S>(d_weight_ch) + looking * hidden;
      std::vector<Factor<S>> before, now;
      before.emplace_back(batch, steps, at<const S>(cells), m.c0, nullptr, hidden,
                          at<S>(d_weight_ch));
      now.emplace_back(at<const S>(new_cells ? new_cells : cells), steps, hidden, d_out);
      return add_up_products(out.d_gates, width, looking, steps, before) &&
             add_up_products(out.d_gates + width - hidden, width, hidden, steps, now);
    };
    deal_and_run({sequences, steps, offsets, reverse}, hidden, weights(m), false, run);
  }
};

template <class S>
struct GruCalls {
  static void forward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                      int64_t hidden, Address weight_hh, Address bias_hn, Address h0,
                      Address recurrent_mask, Address zoneout_mask, Address zoneout_shares,
                      double zoneout_h, Address x, int64_t inputs, Address weight_ih,
                      Address bias_ih, Address bias_hh, Address gates_x, Address y, Address h_n,
                      Address gates, Address n_h) {
    Gru<S> m = {hidden, at<const S>(weight_hh), at<const S>(bias_hn), at<const S>(h0),
                at<const S>(recurrent_mask),
                zoneout<S>(zoneout_mask, zoneout_shares, zoneout_h)};
    // What bias_hh has for n stands inside the reset.
    Input<S> in = input<S>(x, inputs, weight_ih, 3 * hidden, bias_ih, bias_hh, 2 * hidden);
    GruForward<S> out = {at<const S>(gates_x), gates_x ? nullptr : &in, at<S>(y),
                         at<S>(h_n),           at<S>(gates),    at<S>(n_h)};
    deal_and_run({sequences, steps, offsets, reverse}, hidden, 3 * hidden * hidden, gates_x == 0,
                 [&](const Batch& batch, const Team& team) {
                   return kernels<S>().gru_forward(m, out, batch, team);
                 });
  }

  static void backward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                       int64_t hidden, Address weight_hh, Address bias_hn, Address h0,
                       Address recurrent_mask, Address zoneout_mask, Address zoneout_shares,
                       double zoneout_h, Address y, Address gates, Address n_h, Address d_y,
                       Address d_h_n, Address upstream_gates, Address d_gates, Address d_n_h,
                       Address d_h0, Address d_bias, Address d_bias_hn, Address d_weight_hh,
                       Address x, int64_t inputs, Address d_weight_ih, Address weight_ih,
                       Address d_x) {
    Gru<S> m = {hidden, at<const S>(weight_hh), at<const S>(bias_hn), at<const S>(h0),
                at<const S>(recurrent_mask),
                zoneout<S>(zoneout_mask, zoneout_shares, zoneout_h)};
    auto run = [&](const Batch& batch, const Team& team) {
      Totals<S> bias(d_bias, batch.count, 3 * hidden);
      Totals<S> hn(d_bias_hn, batch.count, hidden);
      GruBackward<S> out = {at<const S>(y),
                            at<const S>(gates),
                            at<const S>(n_h),
                            at<const S>(d_y),
                            at<const S>(d_h_n),
                            at<const S>(upstream_gates),
                            at<S>(d_gates),
                            at<S>(d_n_h),
                            at<S>(d_h0),
                            bias.each(),
                            hn.each()};
      if (!kernels<S>().gru_backward(m, out, batch, team)) return false;
      bias.add_up();
      hn.add_up();
      std::vector<Factor<S>> of_input, of_rz, of_n;
      if (d_weight_ih)
        of_input.emplace_back(at<const S>(x), steps, inputs, at<S>(d_weight_ih));
      if (d_weight_hh) {
        S* d_hh = at<S>(d_weight_hh);
        of_rz.emplace_back(batch, steps, at<const S>(y), m.h0, m.recurrent_mask, hidden, d_hh);
        of_n.emplace_back(batch, steps, at<const S>(y), m.h0, m.recurrent_mask, hidden,
                          d_hh + 2 * hidden * hidden);
      }
      int64_t width = 3 * hidden;
      return add_up_products(out.d_gates, width, width, steps, of_input) &&
             add_up_products(out.d_gates, width, 2 * hidden, steps, of_rz) &&
             add_up_products(out.d_n_h, hidden, hidden, steps, of_n) &&
             input_gradient(out.d_gates, width, steps, weight_ih, inputs, d_x);
    };
    deal_and_run({sequences, steps, offsets, reverse}, hidden, 3 * hidden * hidden, false, run);
  }
};

template <class S>
struct RnnCalls {
  static void forward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                      int64_t hidden, bool relu, Address weight_hh, Address h0,
                      Address recurrent_mask, Address zoneout_mask, Address zoneout_shares,
                      double zoneout_h, Address x, int64_t inputs, Address weight_ih,
                      Address bias_ih, Address bias_hh, Address gates_x, Address y, Address h_n,
                      Address new_h) {
    Rnn<S> m = {hidden, relu, at<const S>(weight_hh), at<const S>(h0), at<const S>(recurrent_mask),
                zoneout<S>(zoneout_mask, zoneout_shares, zoneout_h)};
    Input<S> in = input<S>(x, inputs, weight_ih, hidden, bias_ih, bias_hh, hidden);
    RnnForward<S> out = {at<const S>(gates_x), gates_x ? nullptr : &in, at<S>(y), at<S>(h_n),
                         at<S>(new_h)};
    deal_and_run({sequences, steps, offsets, reverse}, hidden, hidden * hidden, gates_x == 0,
                 [&](const Batch& batch, const Team& team) {
                   return kernels<S>().rnn_forward(m, out, batch, team);
                 });
  }

  static void backward(int64_t sequences, int64_t steps, Address offsets, bool reverse,
                       int64_t hidden, bool relu, Address weight_hh, Address h0,
                       Address recurrent_mask, Address zoneout_mask, Address zoneout_shares,
                       double zoneout_h, Address y, Address new_h, Address d_y, Address d_h_n,
                       Address d_gates, Address d_h0, Address d_bias, Address d_weight_hh,
                       Address x, int64_t inputs, Address d_weight_ih, Address weight_ih,
                       Address d_x) {
    Rnn<S> m = {hidden, relu, at<const S>(weight_hh), at<const S>(h0), at<const S>(recurrent_mask),
                zoneout<S>(zoneout_mask, zoneout_shares, zoneout_h)};
    auto run = [&](const Batch& batch, const Team& team) {
      Totals<S> bias(d_bias, batch.count, hidden);
      RnnBackward<S> out = {at<const S>(new_h), at<const S>(d_y), at<const S>(d_h_n),
                            at<S>(d_gates),     at<S>(d_h0),      bias.each()};
      if (!kernels<S>().rnn_backward(m, out, batch, team)) return false;
      bias.add_up();
      std::vector<Factor<S>> factors;
      if (d_weight_ih) factors.emplace_back(at<const S>(x), steps, inputs, at<S>(d_weight_ih));
      if (d_weight_hh)
        factors.emplace_back(batch, steps, at<const S>(y), m.h0, m.recurrent_mask, hidden,
                             at<S>(d_weight_hh));
      return add_up_products(out.d_gates, hidden, hidden, steps, factors) &&
             input_gradient(out.d_gates, hidden, steps, weight_ih, inputs, d_x);
    };
    deal_and_run({sequences, steps, offsets, reverse}, hidden, hidden * hidden, false, run);
  }
};

}  // namespace peephole
