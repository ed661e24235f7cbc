// What the Python module (module.cpp) asks of the kernels (kernels.cpp).
//
// kernels.cpp is compiled once for each instruction set; each build fills one table of functions.
// All matrices are row-major without gaps. N steps, B sequences, H hidden units. There are no
// functions here: a function that several builds share could be that of the wrong one.
#pragma once

#include <cstdint>

namespace peephole {

// Threads: run `work` over parts of 0 to `tasks`, at once as far as there are threads.
struct Team {
  using Work = void (*)(int64_t begin, int64_t end, void* context);
  void (*run)(int64_t tasks, Work work, void* context);
  int64_t threads;
};

// One sequence: its rows are first, first + stride, first + 2 stride, ...
struct Sequence {
  int64_t first;
  int64_t steps;
  int64_t index;  // in the batch
};

// Sequences that one thread takes through all their steps, longest first.
struct Part {
  const Sequence* sequences;
  int64_t count;
};

// A batch, dealt out.
struct Batch {
  const Part* parts;
  int64_t count;
  int64_t stride;  // 1, or -1 where sequences run from their last step to the first
  bool any_order;  // whether a few rows' sums may be added up in another order than many rows'
};

// The share of its old state that a unit keeps: at most one of `mask` (0 or 1) and `shares` is set,
// a row for each step, [N, H]; else `share` holds for all.
template <class T>
struct Zoneout {
  const uint8_t* mask;
  const T* shares;
  T share;
};

enum class Peephole { none, diagonal, full };

// What forward and backward share. A null pointer stands for zeros (h0, c0) or for ones.
template <class T>
struct Lstm {
  int64_t hidden;
  bool coupled;  // f = 1 - i: the gates are i, g, o
  Peephole peephole;
  T cell_clip;  // infinite for none
  const T* weight_hh;
  const T* weight_ch;
  const T* h0;
  const T* c0;
  const T* recurrent_mask;  // [B, H]
  Zoneout<T> zoneout_h;
  Zoneout<T> zoneout_c;
};

// What gates_x [steps, outputs] = x [steps, inputs] W' + biases is computed from; these may be null.
// The second one may have fewer outputs, the first ones; the third, of peepholes, has none for the
// `hole` outputs before the last `hole`, which are g's.
template <class T>
struct Input {
  const T* x;
  int64_t inputs;
  const T* weights;  // [outputs, inputs]
  int64_t outputs;
  const T* bias;
  const T* bias_too;
  int64_t outputs_too;
  const T* bias_of_peepholes;
  int64_t hole;
};

// The gates' input part is there, or computed on the way: then `input` says from what, else it is
// null.
//
// `gates` may be null, or the memory of `gates_x` itself; `cells` may be null. The backward pass
// needs both. h_n and c_n get the initial state of an empty sequence.
template <class T>
struct LstmForward {
  const T* gates_x;
  const Input<T>* input;
  T* y;
  T* h_n;
  T* c_n;
  T* gates;
  T* cells;
};

// Null upstream gradients are zeros. `d_gates` may be the memory of `gates` itself.
template <class T>
struct LstmBackward {
  const T* gates;
  const T* cells;
  const T* d_y;
  const T* d_h_n;
  const T* d_c_n;
  const T* upstream_gates;  // with respect to gates and cells, where somebody has them
  const T* upstream_cells;
  T* d_gates;
  T* d_h0;
  T* d_c0;
  T* d_bias;       // [parts, gates * H], the sum of d_gates over each part's rows; may be null
  T* d_peepholes;  // [parts, looking gates, H], likewise, for diagonal ones; else null
  T* new_cells;    // [N, H], the cells before zoneout; may be null
};

template <class T>
struct Gru {
  int64_t hidden;
  const T* weight_hh;
  const T* bias_hn;
  const T* h0;
  const T* recurrent_mask;
  Zoneout<T> zoneout_h;
};

// `gates` may be null, or the memory of `gates_x`; `n_h` [N, H] holds W_hn h + b_hn, and may be
// null.
template <class T>
struct GruForward {
  const T* gates_x;
  const Input<T>* input;
  T* y;
  T* h_n;
  T* gates;
  T* n_h;
};

// `d_gates` may be the memory of `gates`, and `d_n_h` that of `n_h`.
template <class T>
struct GruBackward {
  const T* y;
  const T* gates;
  const T* n_h;
  const T* d_y;
  const T* d_h_n;
  const T* upstream_gates;  // with respect to gates, where somebody has them
  T* d_gates;
  T* d_n_h;
  T* d_h0;
  T* d_bias;     // [parts, 3 * H], as the LSTM's
  T* d_bias_hn;  // [parts, H], likewise
};

template <class T>
struct Rnn {
  int64_t hidden;
  bool relu;  // else tanh
  const T* weight_hh;
  const T* h0;
  const T* recurrent_mask;
  Zoneout<T> zoneout_h;
};

// `new_h` [N, H] is h before zoneout, which the backward pass needs; null without zoneout.
template <class T>
struct RnnForward {
  const T* gates_x;
  const Input<T>* input;
  T* y;
  T* h_n;
  T* new_h;
};

// `d_gates` may be the memory of `new_h`, but not that of `y`.
template <class T>
struct RnnBackward {
  const T* new_h;  // `y`, without zoneout
  const T* d_y;
  const T* d_h_n;
  T* d_gates;
  T* d_h0;
  T* d_bias;  // [parts, H], as the LSTM's
};

// One right side of a sum over steps: a row for each step, null for zeros; `masks` multiply them,
// and may be null. The result is [outputs, columns].
template <class T>
struct OuterFactor {
  const T* const* rows;
  const T* const* masks;
  int64_t columns;
  T* result;
};

// result [outputs, columns] = sum over steps n of left[n][outputs] x rows[n][columns].
template <class T>
struct Outer {
  const T* left;
  int64_t left_stride;
  int64_t outputs;
  int64_t steps;
  const OuterFactor<T>* factors;
  int count;
};

// Each gives false where there is no memory for it.
template <class T>
struct KernelsOf {
  bool (*lstm_forward)(const Lstm<T>&, const LstmForward<T>&, const Batch&, const Team&);
  bool (*lstm_backward)(const Lstm<T>&, const LstmBackward<T>&, const Batch&, const Team&);
  bool (*gru_forward)(const Gru<T>&, const GruForward<T>&, const Batch&, const Team&);
  bool (*gru_backward)(const Gru<T>&, const GruBackward<T>&, const Batch&, const Team&);
  bool (*rnn_forward)(const Rnn<T>&, const RnnForward<T>&, const Batch&, const Team&);
  bool (*rnn_backward)(const Rnn<T>&, const RnnBackward<T>&, const Batch&, const Team&);
  bool (*outer)(const Outer<T>&, const Team&);
  void (*evaluate)(int function, const T* x, T* y, int64_t count);
};

struct Kernels {
  const char* instruction_set;  // as PEEPHOLE_CPU and instruction_set() name it
  KernelsOf<float> float32;
  KernelsOf<double> float64;
};

#if defined(__x86_64__)
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
extern const Kernels kernels_baseline;
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
#else
extern const Kernels kernels_baseline;
#endif

}  // namespace peephole
