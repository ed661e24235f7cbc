// The extension module peephole.ops.cpu._kernels: the kernels' calls from Python.
//
// Recurrences take addresses. What they point at was checked by `address`, when
// src/peephole/ops/cpu/kernels.py asked for them, which alone calls these functions; the offsets,
// whose numbers say what memory is touched, are checked here, on every call. A cell's `step`, which
// step.py calls, takes the tensors themselves and checks them.
#include <nanobind/nanobind.h>

#include "calls.h"
#include "choice.h"
#include "step.h"
#include "tensor.h"
#include "threads.h"

namespace nb = nanobind;

namespace peephole {
namespace {

template <class T>
void evaluate(int function, Address x, Address y, int64_t count) {
  kernels<T>().evaluate(function, at<const T>(x), at<T>(y), count);
}

template <class T>
void define(nb::module_& module, const char* name) {
  nb::module_ own = module.def_submodule(name);
  own.def("lstm_forward", LstmCalls<T>::forward);
  own.def("lstm_backward", LstmCalls<T>::backward);
  own.def("gru_forward", GruCalls<T>::forward);
  own.def("gru_backward", GruCalls<T>::backward);
  own.def("rnn_forward", RnnCalls<T>::forward);
  own.def("rnn_backward", RnnCalls<T>::backward);
  own.def("step", step<T>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg(),
          nb::arg().none());
  own.def("evaluate", evaluate<T>);
}

}  // namespace
}  // namespace peephole

NB_MODULE(_kernels, module) {
  using namespace peephole;
  chosen();
  module.def("instruction_set", [] { return chosen().instruction_set; });
  module.def("instruction_sets", [] {
    nb::list names;
    for (const Kernels* each : supported()) names.append(each->instruction_set);
    return nb::tuple(names);
  });
  module.def("use_threads_of_torch", use_threads_of_torch);
  module.def("use_tensors", use_tensors, nb::arg(), nb::arg(), nb::arg().none());
  module.def("address", address_of, nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
  define<float>(module, "float32");
  define<double>(module, "float64");
  if (chosen().bfloat16) define<BFloat16>(module, "bfloat16");
}
