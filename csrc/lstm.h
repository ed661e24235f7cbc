// The LSTM: Graves 2013, equations 7 to 11.
//
// The reference, with which it must agree, is src/peephole/ops/reference/lstm.py.
#pragma once

#include "functions.h"
#include "input.h"
#include "part.h"
#include "zoneout.h"

namespace {

template <class S>
struct LstmForwardWeights {
  Weights<S> hidden;       // W_h: all gates of a vector of units a panel
  Weights<S> looking;      // full peepholes of i and f at c(t-1), likewise
  Weights<S> looking_out;  // full peephole of o at c(t)
  Weights<S> input;        // W_x, where its product is made on the way

  LstmForwardWeights(const Lstm<S>& m, const Input<S>* in) {
    int64_t H = m.hidden;
    int gates = m.coupled ? 3 : 4;
    hidden = Weights<S>(gates_by_unit(m.weight_hh, H, H, gates));
    if (m.peephole == Peephole::full) {
      looking = Weights<S>(gates_by_unit(m.weight_ch, H, H, gates - 2));
      looking_out = Weights<S>(rows_of(m.weight_ch + (gates - 2) * H * H, H, H));
    }
    if (in) input = input_weights(*in);
  }
};

template <class S>
struct LstmForwardSpace : CommonSpace<S> {
  using typename CommonSpace<S>::T;

  S* h[2];     // what W_h multiplies, before and after a step
  T* c[2];     // cells; without full peepholes only the first is used
  S* seen[2];  // what full peepholes multiply: the cells
  T* o;        // o's sums, which wait for c(t)
  T* looks;    // of a panel, the peepholes' part
  AheadSpace<S> ahead;

  LstmForwardSpace(Arena& arena, const ForwardSizes<S>& sizes, int64_t count)
      : CommonSpace<S>(arena, sizes.hidden, count), ahead(arena, sizes.input, count) {
    for (S*& each : h) each = arena.take<S>(count * this->stride);
    for (T*& each : c) each = arena.take<T>(count * this->stride);
    for (int k = 0; k < 2; ++k) seen[k] = this->as_multiplied(arena, c[k], count);
    o = arena.take<T>(count * this->stride);
    looks = arena.take<T>(kRowsAtOnce * 2 * kLanes<S>);
  }
};

template <class S>
class LstmForwardRun : PartRun<S> {
 public:
  LstmForwardRun(const Lstm<S>& model, const LstmForward<S>& out, const Batch& batch,
                 const LstmForwardWeights<S>& weights, int64_t part, LstmForwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        out_(out),
        w_(weights),
        own_(space),
        gates_(model.coupled ? 3 : 4),
        x_(out.gates_x, out.input, weights.input, gates_ * model.hidden, part_, batch.stride,
           space.ahead),
        full_(model.peephole == Peephole::full) {}

  void run() {
    this->read_masked(m_.h0, m_.recurrent_mask, own_.h[0]);
    this->read_states(m_.c0, own_.c[0]);
    if (full_ && kNarrow<S>) this->read_states(m_.c0, own_.seen[0]);
    this->end_at(-1, part_.count, [&](int64_t r) {
      copy_or_zero(this->of_sequence(m_.h0, r), out_.h_n + this->index(r) * H, H);
      copy_or_zero(this->of_sequence(m_.c0, r), out_.c_n + this->index(r) * H, H);
    });
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
    const S* h = own_.h[t & 1];
    S* h_new = own_.h[~t & 1];
    const T* c = own_.c[full_ ? t & 1 : 0];
    T* c_new = own_.c[full_ ? ~t & 1 : 0];
    const Matrix<S>& matrix = w_.hidden.matrix;
    for (int64_t panel = 0; panel < matrix.panels(); ++panel)
      for (int64_t first = 0; first < running; first += kRowsAtOnce) {
        int64_t count = smaller(kRowsAtOnce, running - first);
        this->multiply_state(w_.hidden, h, panel, first, count, s_.sums);
        if (full_)
          this->multiply_state(w_.looking, own_.seen[t & 1], panel, first, count, own_.looks);
        this->for_vector(panel * L, [&](auto units) INLINED {
          for (int64_t r = 0; r < count; ++r)
            cell(t, first + r, panel * L, units, s_.sums + r * gates_ * L,
                 own_.looks + r * (gates_ - 2) * L, c, c_new, h_new);
        });
      }
    if (full_) look_out(t, running, c, c_new, h_new);
    this->end_at(t, running, [&](int64_t r) {
      copy(out_.y + this->row(r, t) * H, H, out_.h_n + this->index(r) * H);
      this->write_state(c_new, r, out_.c_n);
    });
  }

  // Ask for what a vector of units of the next panel is going to read and to write: no prefetcher
  // follows so many rows, and until that panel is multiplied there is time.
  ALWAYS_INLINE void ask_ahead(int64_t t, int64_t r, int64_t j) const {
    int64_t row = this->row(r, t);
    this->ask(x_.at(r, t), 0, gates_, j);
    this->ask(out_.gates, row * gates_, gates_, j);
    if (full_) return;  // the rest is written when all panels are done
    this->ask(out_.cells, row, 1, j);
    this->ask(out_.y, row, 1, j);
  }

  // A vector of units: from the gates' sums to the new cell, and unless o must wait, the output.
  template <class Count>
  ALWAYS_INLINE void cell(int64_t t, int64_t r, int64_t j, Count count, const T* sums,
                          const T* looks, const T* c, T* c_new, S* h_new) {
    int64_t row = this->row(r, t);
    const S* x = x_.at(r, t) + j;
    if (out_.gates && j + L < H) ask_ahead(t, r, j + L);
    // Where f is coupled to i, what is read for it is i's, and not used.
    int at_f = m_.coupled ? 0 : 1, at_g = gates_ - 2, at_o = gates_ - 1;
    Vec<T> old_c = load(c + r * s_.stride + j);

    Vec<T> a_i = load(x, count) + load(sums);
    Vec<T> a_f = load(x + at_f * H, count) + load(sums + at_f * L);
    Vec<T> a_g = load(x + at_g * H, count) + load(sums + at_g * L);
    Vec<T> a_o = load(x + at_o * H, count) + load(sums + at_o * L);
    if (m_.peephole == Peephole::diagonal) {
      a_i = multiply_add(load(m_.weight_ch + j, count), old_c, a_i);
      a_f = multiply_add(load(m_.weight_ch + at_f * H + j, count), old_c, a_f);
    } else if (full_) {
      a_i += load(looks);
      a_f += load(looks + at_f * L);
    }
    Vec<T> i = vector_sigmoid(a_i);                                     // (7)
    Vec<T> f = m_.coupled ? broadcast(T(1)) - i : vector_sigmoid(a_f);  // (8)
    Vec<T> g = vector_tanh(a_g);
    Vec<T> fresh = multiply_add(i, g, f * old_c);                       // (9)
    fresh = clamp(fresh, -m_.cell_clip, m_.cell_clip);
    if (out_.gates) {
      S* gates = out_.gates + row * gates_ * H + j;
      store(gates, i, count);
      if (!m_.coupled) store(gates + H, f, count);
      store(gates + at_g * H, g, count);
    }
    if (full_) {
      store(own_.o + r * s_.stride + j, a_o);
      store(c_new + r * s_.stride + j, fresh);
      if (kNarrow<S>) store(own_.seen[~t & 1] + r * s_.stride + j, fresh);
      return;
    }
    if (m_.peephole == Peephole::diagonal)
      a_o = multiply_add(load(m_.weight_ch + (at_o - 1) * H + j, count), fresh, a_o);
    output(t, r, j, count, a_o, old_c, fresh, c_new, h_new);
  }

  // Full peepholes: o looks at all new cells, so it has to wait for them.
  void look_out(int64_t t, int64_t running, const T* c, T* c_new, S* h_new) {
    const Matrix<S>& matrix = w_.looking_out.matrix;
    for (int64_t panel = 0; panel < matrix.panels(); ++panel)
      for (int64_t first = 0; first < running; first += kRowsAtOnce) {
        int64_t count = smaller(kRowsAtOnce, running - first);
        this->multiply_state(w_.looking_out, own_.seen[~t & 1], panel, first, count, s_.sums);
        for (int64_t r = first; r < first + count; ++r)
          for (int column = 0; column < matrix.columns; ++column) {
            int64_t j = panel * matrix.panel_step + column * L;
            if (j >= H) break;
            T* o = own_.o + r * s_.stride + j;
            store(o, load(o) + load(s_.sums + ((r - first) * matrix.columns + column) * L));
          }
      }
    // Only now may zoneout change the cells.
    for (int64_t r = 0; r < running; ++r)
      this->for_each_vector([&](int64_t j, auto count) INLINED {
        int64_t at = r * s_.stride + j;
        output(t, r, j, count, load(own_.o + at), load(c + at), load(c_new + at), c_new, h_new);
      });
  }

  // Equations 10 and 11, and what is kept.
  template <class Count>
  ALWAYS_INLINE void output(int64_t t, int64_t r, int64_t j, Count count, Vec<T> a_o, Vec<T> old_c,
                            Vec<T> fresh, T* c_new, S* h_new) {
    int64_t row = this->row(r, t);
    Vec<T> o = vector_sigmoid(a_o);     // (10)
    Vec<T> h = o * vector_tanh(fresh);  // (11)
    Vec<T> c = fresh;
    if (any(m_.zoneout_h)) {
      Vec<T> old_h = this->load_or_zero(this->before(out_.y, m_.h0, r, t), j, count);
      h = zoned_out(m_.zoneout_h, old_h, h, shares(m_.zoneout_h, row, H, j, count));
    }
    if (any(m_.zoneout_c))
      c = zoned_out(m_.zoneout_c, old_c, c, shares(m_.zoneout_c, row, H, j, count));
    store(c_new + r * s_.stride + j, c);
    if (full_ && kNarrow<S>) store(own_.seen[~t & 1] + r * s_.stride + j, c);
    store(out_.y + row * H + j, h, count);
    if (out_.gates) store(out_.gates + (row * gates_ + gates_ - 1) * H + j, o, count);
    if (out_.cells) store(out_.cells + row * H + j, c, count);
    if (m_.recurrent_mask) h *= load(m_.recurrent_mask + this->index(r) * H + j, count);
    store(h_new + r * s_.stride + j, h);
  }

  const Lstm<S>& m_;
  const LstmForward<S>& out_;
  const LstmForwardWeights<S>& w_;
  LstmForwardSpace<S>& own_;
  const int gates_;
  StepsInput<S> x_;
  const bool full_;
};

template <class S>
bool lstm_forward(const Lstm<S>& model, const LstmForward<S>& out, const Batch& batch,
                  const Team& team) {
  LstmForwardWeights<S> weights(model, out.input);
  Weights<S>* all[4] = {&weights.hidden};
  int count = 1;
  if (model.peephole == Peephole::full) {
    all[count++] = &weights.looking;
    all[count++] = &weights.looking_out;
  }
  if (out.input) all[count++] = &weights.input;
  ForwardSizes<S> sizes{model.hidden, out.input};
  auto work = [&](int64_t part, LstmForwardSpace<S>& space) {
    LstmForwardRun<S>(model, out, batch, weights, part, space).run();
  };
  return run_parts<S, LstmForwardSpace<S>>(batch, team, sizes, all, count, work);
}

}  // namespace
