// The GRU: Cho et al. 2014 with the reset gate applied after the product, as torch.nn and cuDNN.
//
// r = sigmoid(x_r + W_r h)    z = sigmoid(x_z + W_z h)    n = tanh(x_n + r (W_n h + b_hn))
// h' = (1 - z) n + z h
//
// The reference, with which it must agree, is src/peephole/ops/reference/gru.py.
#pragma once

#include "functions.h"
#include "input.h"
#include "part.h"
#include "zoneout.h"

namespace {

template <class S>
struct GruForwardSpace : CommonSpace<S> {
  using typename CommonSpace<S>::T;

  T* h[2];     // h before and after a step
  S* seen[2];  // the same as the gates see it: masked, and as W_h multiplies it
  AheadSpace<S> ahead;

  GruForwardSpace(Arena& arena, const ForwardSizes<S>& sizes, int64_t count)
      : CommonSpace<S>(arena, sizes.hidden, count), ahead(arena, sizes.input, count) {
    for (T*& each : h) each = arena.take<T>(count * this->stride);
    for (S*& each : seen) each = arena.take<S>(count * this->stride);
  }
};

template <class S>
class GruForwardRun : PartRun<S> {
 public:
  GruForwardRun(const Gru<S>& model, const GruForward<S>& out, const Batch& batch,
                const Weights<S>& weights, const Weights<S>& input_weights, int64_t part,
                GruForwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        out_(out),
        w_(weights),
        own_(space),
        x_(out.gates_x, out.input, input_weights, 3 * model.hidden, part_, batch.stride,
           space.ahead),
        apart_(kNarrow<S> || model.recurrent_mask) {}

  void run() {
    this->read_states(m_.h0, own_.h[0]);
    if (apart_) this->read_masked(m_.h0, m_.recurrent_mask, own_.seen[0]);
    this->end_at(-1, part_.count, [&](int64_t r) { this->write_state(own_.h[0], r, out_.h_n); });
    int64_t running = part_.count;
    for (int64_t t = 0; t < this->longest(); ++t) {
      running = this->running(t, running);
      x_.reach(t, running);
      step(t, running);
    }
  }

 private:
  using typename PartRun<S>::T;
  using PartRun<S>::H;
  using PartRun<S>::L;
  using PartRun<S>::part_;
  using PartRun<S>::s_;

  void step(int64_t t, int64_t running) {
    const S* seen = own_.seen[t & 1];
    if constexpr (!kNarrow<S>)
      if (!apart_) seen = own_.h[t & 1];
    for (int64_t panel = 0; panel < w_.matrix.panels(); ++panel)
      for (int64_t first = 0; first < running; first += kRowsAtOnce) {
        int64_t count = smaller(kRowsAtOnce, running - first);
        this->multiply_state(w_, seen, panel, first, count, s_.sums);
        this->for_vector(panel * L, [&](auto units) INLINED {
          for (int64_t r = 0; r < count; ++r)
            cell(t, first + r, panel * L, units, s_.sums + r * 3 * L);
        });
      }
    this->end_at(t, running, [&](int64_t r) { this->write_state(own_.h[~t & 1], r, out_.h_n); });
  }

  // Ask for what a vector of units of the next panel is going to read and to write, as in lstm.h.
  ALWAYS_INLINE void ask_ahead(int64_t t, int64_t r, int64_t j) const {
    int64_t row = this->row(r, t);
    this->ask(x_.at(r, t), 0, 3, j);
    this->ask(out_.gates, row * 3, 3, j);
    this->ask(out_.n_h, row, 1, j);
    this->ask(out_.y, row, 1, j);
  }

  template <class Count>
  ALWAYS_INLINE void cell(int64_t t, int64_t r, int64_t j, Count count, const T* sums) {
    if (out_.gates && j + L < H) ask_ahead(t, r, j + L);
    int64_t row = this->row(r, t), at = r * s_.stride + j;
    const S* x = x_.at(r, t) + j;
    Vec<T> n_h = load(sums + 2 * L);
    if (m_.bias_hn) n_h += load(m_.bias_hn + j, count);
    Vec<T> reset = vector_sigmoid(load(x, count) + load(sums));
    Vec<T> z = vector_sigmoid(load(x + H, count) + load(sums + L));
    Vec<T> n = vector_tanh(multiply_add(reset, n_h, load(x + 2 * H, count)));
    Vec<T> old_h = load(own_.h[t & 1] + at);
    Vec<T> h = multiply_add(z, old_h - n, n);
    if (any(m_.zoneout_h))
      h = zoned_out(m_.zoneout_h, old_h, h, shares(m_.zoneout_h, row, H, j, count));
    if (out_.gates) {
      S* gates = out_.gates + row * 3 * H + j;
      store(gates, reset, count);
      store(gates + H, z, count);
      store(gates + 2 * H, n, count);
    }
    if (out_.n_h) store(out_.n_h + row * H + j, n_h, count);
    store(out_.y + row * H + j, h, count);
    store(own_.h[~t & 1] + at, h);
    if (m_.recurrent_mask) h *= load(m_.recurrent_mask + this->index(r) * H + j, count);
    if (apart_) store(own_.seen[~t & 1] + at, h);
  }

  const Gru<S>& m_;
  const GruForward<S>& out_;
  const Weights<S>& w_;
  GruForwardSpace<S>& own_;
  StepsInput<S> x_;
  const bool apart_;  // whether what W_h multiplies is not h itself
};

template <class S>
bool gru_forward(const Gru<S>& model, const GruForward<S>& out, const Batch& batch,
                 const Team& team) {
  Weights<S> weights(gates_by_unit(model.weight_hh, model.hidden, model.hidden, 3));
  Weights<S> input;
  if (out.input) input = input_weights(*out.input);
  Weights<S>* all[] = {&weights, &input};
  ForwardSizes<S> sizes{model.hidden, out.input};
  auto work = [&](int64_t part, GruForwardSpace<S>& space) {
    GruForwardRun<S>(model, out, batch, weights, input, part, space).run();
  };
  return run_parts<S, GruForwardSpace<S>>(batch, team, sizes, all,
                                          out.input ? 2 : 1, work);
}

// The derivative. What W_hn h + b_hn gets is not what gates_x gets for n, but that times r.

template <class S>
struct GruBackwardWeights {
  Weights<S> rz, n;  // d_h(t-1) += d_rz W_rz + d_n_h W_n

  explicit GruBackwardWeights(const Gru<S>& m)
      : rz(columns_of(m.weight_hh, m.hidden, 2 * m.hidden)),
        n(columns_of(m.weight_hh + 2 * m.hidden * m.hidden, m.hidden, m.hidden)) {}
};

template <class S>
struct GruBackwardSpace : CommonSpace<S> {
  using typename CommonSpace<S>::T;

  T* d_h;
  RowTotals<T> d_bias;
  RowTotals<T> d_bias_hn;

  GruBackwardSpace(Arena& arena, int64_t hidden, int64_t count)
      : CommonSpace<S>(arena, hidden, count),
        d_h(arena.take<T>(count * this->stride)),
        d_bias(arena, this->stride, 3),
        d_bias_hn(arena, this->stride, 1) {}
};

template <class S>
class GruBackwardRun : PartRun<S> {
 public:
  GruBackwardRun(const Gru<S>& model, const GruBackward<S>& given, const Batch& batch,
                 const GruBackwardWeights<S>& weights, int64_t part, GruBackwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        g_(given),
        w_(weights),
        own_(space) {}

  void run() {
    this->read_states(g_.d_h_n, own_.d_h);
    own_.d_bias.clear();
    own_.d_bias_hn.clear();
    int64_t running = 0;
    for (int64_t t = this->longest() - 1; t >= 0; --t) {
      while (running < part_.count && part_.sequences[running].steps > t) ++running;
      for (int64_t r = 0; r < running; ++r) {
        this->for_each_vector([&](int64_t j, auto count) INLINED {
          ask_ahead(t, r, running, j);
          cell(t, r, j, count);
        });
        own_.d_bias.end_row();
        own_.d_bias_hn.end_row();
      }
      const S* mask = m_.recurrent_mask;
      this->add_product(w_.rz, g_.d_gates, 3 * H, 0, t, running, own_.d_h, mask);
      this->add_product(w_.n, g_.d_n_h, H, 0, t, running, own_.d_h, mask);
    }
    this->write_states(own_.d_h, g_.d_h0);
    this->write_totals(own_.d_bias, 3, g_.d_bias);
    this->write_totals(own_.d_bias_hn, 1, g_.d_bias_hn);
  }

 private:
  using typename PartRun<S>::T;
  using PartRun<S>::H;
  using PartRun<S>::L;
  using PartRun<S>::part_;
  using PartRun<S>::s_;

  // Ask for what the same units of the next row are going to read.
  ALWAYS_INLINE void ask_ahead(int64_t t, int64_t r, int64_t running, int64_t j) const {
    this->ask_for_next(r, t, running, [&](int64_t r, int64_t t) INLINED {
      int64_t row = this->row(r, t);
      this->ask(g_.gates, row * 3, 3, j);
      this->ask(g_.n_h, row, 1, j);
      this->ask(g_.d_y, row, 1, j);
      if (t) this->ask(g_.y, this->row(r, t - 1), 1, j);
    });
  }

  template <class Count>
  ALWAYS_INLINE void cell(int64_t t, int64_t r, int64_t j, Count count) {
    int64_t row = this->row(r, t);
    Vec<T> one = broadcast(T(1));
    const S* gates = g_.gates + row * 3 * H + j;
    Vec<T> reset = load(gates, count), z = load(gates + H, count), n = load(gates + 2 * H, count);
    Vec<T> n_h = load(g_.n_h + row * H + j, count);
    Vec<T> old_h = this->load_or_zero(this->before(g_.y, m_.h0, r, t), j, count);
    T* d_h_at = own_.d_h + r * s_.stride + j;
    Vec<T> d_h = load(d_h_at), d_old_h{};
    if (g_.d_y) d_h += load(g_.d_y + row * H + j, count);
    if (any(m_.zoneout_h)) {
      Vec<T> share = shares(m_.zoneout_h, row, H, j, count);
      d_old_h = held_derivative(m_.zoneout_h, share, d_h);
      d_h = fresh_derivative(m_.zoneout_h, share, d_h);
    }
    Vec<T> d_z = d_h * (old_h - n), d_n = d_h * (one - z), up_reset{};
    if (g_.upstream_gates) {
      const S* upstream = g_.upstream_gates + row * 3 * H + j;
      up_reset = load(upstream, count);
      d_z += load(upstream + H, count);
      d_n += load(upstream + 2 * H, count);
    }
    d_z *= z * (one - z);
    d_n *= one - n * n;
    Vec<T> d_reset = multiply_add(d_n, n_h, up_reset) * (reset * (one - reset));
    Vec<T> d_n_h = d_n * reset;
    store(d_h_at, multiply_add(d_h, z, d_old_h));  // the gates' part is added later
    S* d_gates = g_.d_gates + row * 3 * H + j;
    store(d_gates, d_reset, count);
    store(d_gates + H, d_z, count);
    store(d_gates + 2 * H, d_n, count);
    store(g_.d_n_h + row * H + j, d_n_h, count);
    own_.d_bias.add(0, j, d_reset);
    own_.d_bias.add(1, j, d_z);
    own_.d_bias.add(2, j, d_n);
    own_.d_bias_hn.add(0, j, d_n_h);
  }

  const Gru<S>& m_;
  const GruBackward<S>& g_;
  const GruBackwardWeights<S>& w_;
  GruBackwardSpace<S>& own_;
};

template <class S>
bool gru_backward(const Gru<S>& model, const GruBackward<S>& given, const Batch& batch,
                  const Team& team) {
  GruBackwardWeights<S> weights(model);
  Weights<S>* all[] = {&weights.rz, &weights.n};
  auto work = [&](int64_t part, GruBackwardSpace<S>& space) {
    GruBackwardRun<S>(model, given, batch, weights, part, space).run();
  };
  return run_parts<S, GruBackwardSpace<S>>(batch, team, model.hidden, all, 2, work);
}

}  // namespace
