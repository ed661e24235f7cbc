// The LSTM's derivative, from each sequence's last visited step back to its first.
//
// d_x stands for the derivative of the loss with respect to x. The gates' derivatives are with
// respect to their sums, before the nonlinearity; they are those of gates_x. The matrices' are
// products over all steps, which are left to the caller.
#pragma once

#include "lstm.h"

namespace {

template <class S>
struct LstmBackwardWeights {
  Weights<S> hidden;       // d_h(t-1) += d_gates W_h
  Weights<S> looking;      // full peepholes: d_c(t-1) += d_i W_ci + d_f W_cf
  Weights<S> looking_out;  // d_c(t) += d_o W_co

  explicit LstmBackwardWeights(const Lstm<S>& m) {
    int64_t H = m.hidden;
    int gates = m.coupled ? 3 : 4;
    hidden = Weights<S>(columns_of(m.weight_hh, H, gates * H));
    if (m.peephole == Peephole::full) {
      looking = Weights<S>(columns_of(m.weight_ch, H, (gates - 2) * H));
      looking_out = Weights<S>(columns_of(m.weight_ch + (gates - 2) * H * H, H, H));
    }
  }
};

template <class S>
struct LstmBackwardSpace : CommonSpace<S> {
  using typename CommonSpace<S>::T;

  T* d_h;
  T* d_c;
  T* held;         // d_c(t-1) through zoneout, while d_c(t) waits for full peepholes
  RowTotals<T> d_bias;
  RowTotals<T> d_peepholes;

  LstmBackwardSpace(Arena& arena, int64_t hidden, int64_t count)
      : CommonSpace<S>(arena, hidden, count),
        d_h(arena.take<T>(count * this->stride)),
        d_c(arena.take<T>(count * this->stride)),
        held(arena.take<T>(count * this->stride)),
        d_bias(arena, this->stride, 4),
        d_peepholes(arena, this->stride, 3) {}
};

template <class S>
class LstmBackwardRun : PartRun<S> {
 public:
  LstmBackwardRun(const Lstm<S>& model, const LstmBackward<S>& given, const Batch& batch,
                  const LstmBackwardWeights<S>& weights, int64_t part, LstmBackwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        g_(given),
        w_(weights),
        own_(space),
        gates_(model.coupled ? 3 : 4) {}

  void run() {
    this->read_states(g_.d_h_n, own_.d_h);
    this->read_states(g_.d_c_n, own_.d_c);
    own_.d_bias.clear();
    own_.d_peepholes.clear();
    int64_t running = 0;
    for (int64_t t = this->longest() - 1; t >= 0; --t) {
      while (running < part_.count && part_.sequences[running].steps > t) ++running;
      step(t, running);
    }
    this->write_states(own_.d_h, g_.d_h0);
    this->write_states(own_.d_c, g_.d_c0);
    this->write_totals(own_.d_bias, gates_, g_.d_bias);
    this->write_totals(own_.d_peepholes, gates_ - 1, g_.d_peepholes);
  }

 private:
  using typename PartRun<S>::T;
  using PartRun<S>::H;
  using PartRun<S>::L;
  using PartRun<S>::part_;
  using PartRun<S>::s_;

  void step(int64_t t, int64_t running) {
    int64_t width = gates_ * H;
    if (m_.peephole == Peephole::full) {
      // c(t) takes in what o saw before the other gates' turn: two passes.
      for (int64_t r = 0; r < running; ++r) {
        this->for_each_vector([&](int64_t j, auto count) INLINED {
          ask_ahead(t, r, running, j);
          CellDerivative d_c = output(units(t, r, j, count));
          store(own_.d_c + r * s_.stride + j, d_c.fresh);
          store(own_.held + r * s_.stride + j, d_c.held);
        });
        end_row();
      }
      this->add_product(w_.looking_out, g_.d_gates, width, width - H, t, running, own_.d_c);
      for (int64_t r = 0; r < running; ++r) {
        this->for_each_vector([&](int64_t j, auto count) INLINED {
          int64_t at = r * s_.stride + j;
          cell(units(t, r, j, count), {load(own_.d_c + at), load(own_.held + at)});
        });
        end_row();
      }
      this->add_product(w_.looking, g_.d_gates, width, 0, t, running, own_.d_c);
    } else {
      for (int64_t r = 0; r < running; ++r) {
        this->for_each_vector([&](int64_t j, auto count) INLINED {
          ask_ahead(t, r, running, j);
          auto u = units(t, r, j, count);
          cell(u, output(u));
        });
        end_row();
      }
    }
    this->add_product(w_.hidden, g_.d_gates, width, 0, t, running, own_.d_h, m_.recurrent_mask);
  }

  void end_row() {
    own_.d_bias.end_row();
    own_.d_peepholes.end_row();
  }

  // Ask for what the same units of the next row are going to read.
  ALWAYS_INLINE void ask_ahead(int64_t t, int64_t r, int64_t running, int64_t j) const {
    this->ask_for_next(r, t, running, [&](int64_t r, int64_t t) INLINED {
      int64_t row = this->row(r, t);
      this->ask(g_.gates, row * gates_, gates_, j);
      this->ask(g_.d_y, row, 1, j);
      if (t) this->ask(g_.cells, this->row(r, t - 1), 1, j);
    });
  }

  // A vector of units at a step, and what the forward pass had there.
  template <class Count>
  struct Units {
    int64_t row, r, j;
    Count count;
    Vec<T> i, f, g;
    Vec<T> old_c, raw_c;  // c(t-1); c(t) before clipping and zoneout
  };

  template <class Count>
  ALWAYS_INLINE Units<Count> units(int64_t t, int64_t r, int64_t j, Count count) const {
    Units<Count> u;
    u.row = this->row(r, t);
    u.r = r;
    u.j = j;
    u.count = count;
    const S* gates = g_.gates + u.row * gates_ * H + j;
    u.i = load(gates, u.count);
    u.f = m_.coupled ? broadcast(T(1)) - u.i : load(gates + H, u.count);
    u.g = load(gates + (gates_ - 2) * H, u.count);
    u.old_c = this->load_or_zero(this->before(g_.cells, m_.c0, r, t), j, count);
    u.raw_c = multiply_add(u.i, u.g, u.f * u.old_c);
    return u;
  }

  // The derivatives of c(t), after clipping and before zoneout, and of c(t-1) through zoneout.
  struct CellDerivative {
    Vec<T> fresh, held;
  };

  // Back through zoneout and h = o tanh(c): d_o, and what reaches the cell.
  template <class Count>
  ALWAYS_INLINE CellDerivative output(const Units<Count>& u) {
    Vec<T> one = broadcast(T(1));
    T* d_h_at = own_.d_h + u.r * s_.stride + u.j;
    Vec<T> d_h = load(d_h_at), d_old_h{};
    if (g_.d_y) d_h += load(g_.d_y + u.row * H + u.j, u.count);
    CellDerivative d_c = {load(own_.d_c + u.r * s_.stride + u.j), Vec<T>{}};
    if (g_.upstream_cells) d_c.fresh += load(g_.upstream_cells + u.row * H + u.j, u.count);
    if (any(m_.zoneout_h)) {
      Vec<T> share = shares(m_.zoneout_h, u.row, H, u.j, u.count);
      d_old_h = held_derivative(m_.zoneout_h, share, d_h);
      d_h = fresh_derivative(m_.zoneout_h, share, d_h);
    }
    if (any(m_.zoneout_c)) {
      Vec<T> share = shares(m_.zoneout_c, u.row, H, u.j, u.count);
      d_c.held = held_derivative(m_.zoneout_c, share, d_c.fresh);
      d_c.fresh = fresh_derivative(m_.zoneout_c, share, d_c.fresh);
    }
    store(d_h_at, d_old_h);  // d_h(t-1); the gates' part is added later

    int at_o = gates_ - 1;
    int64_t at = (u.row * gates_ + at_o) * H + u.j;
    Vec<T> o = load(g_.gates + at, u.count);
    Vec<T> c = clamp(u.raw_c, -m_.cell_clip, m_.cell_clip);
    Vec<T> squashed = vector_tanh(c);
    Vec<T> d_o = with_upstream(d_h * squashed, at_o, u) * (o * (one - o));
    d_c.fresh += d_h * o * (one - squashed * squashed);
    if (m_.peephole == Peephole::diagonal) {
      Vec<T> look = load(m_.weight_ch + (at_o - 1) * H + u.j, u.count);
      d_c.fresh = multiply_add(d_o, look, d_c.fresh);
      own_.d_peepholes.add(at_o - 1, u.j, d_o * c);
    }
    store(g_.d_gates + at, d_o, u.count);
    if (g_.new_cells) store(g_.new_cells + u.row * H + u.j, c, u.count);
    own_.d_bias.add(at_o, u.j, d_o);
    return d_c;
  }

  // Back through c(t) = f c(t-1) + i g: d_i, d_f, d_g and d_c(t-1).
  template <class Count>
  ALWAYS_INLINE void cell(const Units<Count>& u, CellDerivative d_c) {
    Vec<T> one = broadcast(T(1)), most = broadcast(m_.cell_clip);
    // Where clipping held the cell, what came before does not count; at the very edge it does.
    Vec<T> d_raw = u.raw_c > most ? Vec<T>{} : d_c.fresh;
    d_raw = u.raw_c < -most ? Vec<T>{} : d_raw;
    Vec<T> d_i = with_upstream(d_raw * u.g, 0, u), d_f = d_raw * u.old_c;
    if (m_.coupled) {
      d_i = (d_i - d_f) * (u.i * u.f);
    } else {
      d_i *= u.i * (one - u.i);
      d_f = with_upstream(d_f, 1, u) * (u.f * (one - u.f));
    }
    Vec<T> d_g = with_upstream(d_raw * u.i, gates_ - 2, u) * (one - u.g * u.g);
    Vec<T> d_old_c = multiply_add(d_raw, u.f, d_c.held);
    S* gates = g_.d_gates + u.row * gates_ * H + u.j;
    put(gates, 0, u, d_i);
    if (!m_.coupled) put(gates, 1, u, d_f);
    put(gates, gates_ - 2, u, d_g);
    if (m_.peephole == Peephole::diagonal) {
      const S* look = m_.weight_ch + u.j;
      d_old_c = multiply_add(d_i, load(look, u.count), d_old_c);
      own_.d_peepholes.add(0, u.j, d_i * u.old_c);
      if (!m_.coupled) {
        d_old_c = multiply_add(d_f, load(look + H, u.count), d_old_c);
        own_.d_peepholes.add(1, u.j, d_f * u.old_c);
      }
    }
    store(own_.d_c + u.r * s_.stride + u.j, d_old_c);
  }

  // The derivative of a gate, and what comes from who was given it.
  template <class Count>
  Vec<T> with_upstream(Vec<T> d_gate, int which, const Units<Count>& u) const {
    if (!g_.upstream_gates) return d_gate;
    return d_gate + load(g_.upstream_gates + (u.row * gates_ + which) * H + u.j, u.count);
  }

  template <class Count>
  void put(S* gates, int which, const Units<Count>& u, Vec<T> d_gate) {
    store(gates + which * H, d_gate, u.count);
    own_.d_bias.add(which, u.j, d_gate);
  }

  const Lstm<S>& m_;
  const LstmBackward<S>& g_;
  const LstmBackwardWeights<S>& w_;
  LstmBackwardSpace<S>& own_;
  const int gates_;
};

template <class S>
bool lstm_backward(const Lstm<S>& model, const LstmBackward<S>& given, const Batch& batch,
                   const Team& team) {
  LstmBackwardWeights<S> weights(model);
  Weights<S>* all[] = {&weights.hidden, &weights.looking, &weights.looking_out};
  auto work = [&](int64_t part, LstmBackwardSpace<S>& space) {
    LstmBackwardRun<S>(model, given, batch, weights, part, space).run();
  };
  int count = model.peephole == Peephole::full ? 3 : 1;
  return run_parts<S, LstmBackwardSpace<S>>(batch, team, model.hidden, all, count, work);
}

}  // namespace
