// The kernels of one instruction set. Compiled once for each, with PEEPHOLE_ISA its name.
#include "kernels.h"

#include "gru.h"
#include "input.h"
#include "lstm.h"
#include "lstm_backward.h"
#include "outer.h"
#include "rnn.h"

#define PASTE_EXPANDED(a, b) a##b
#define PASTE(a, b) PASTE_EXPANDED(a, b)
#define QUOTE_EXPANDED(a) #a
#define QUOTE(a) QUOTE_EXPANDED(a)

namespace {

template <class T>
constexpr KernelsOf<T> kernels_of = {lstm_forward<T>, lstm_backward<T>, gru_forward<T>,
                                     gru_backward<T>, rnn_forward<T>,   rnn_backward<T>,
                                     outer<T>,        evaluate<T>};

}  // namespace

namespace peephole {

// The only name that leaves this file.
extern const Kernels PASTE(kernels_, PEEPHOLE_ISA) = {QUOTE(PEEPHOLE_ISA), kernels_of<float>,
                                                      kernels_of<double>};

}  // namespace peephole
