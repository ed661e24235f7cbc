// What DLPack 1.3 says a library's tensors are asked by from C: its functions are found through the
// capsule `__dlpack_c_exchange_api__` of the tensors' class. https://dmlc.github.io/dlpack
#pragma once

#include <cstdint>

namespace peephole {

// DLTensor: a view, good for as long as nothing else happens to the tensor.
struct TensorView {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int64_t* shape;
  int64_t* strides;  // in numbers
  uint64_t byte_offset;
};

// DLPackExchangeAPI, as far as it is used here.
struct TensorFunctions {
  uint32_t major;
  uint32_t minor;
  TensorFunctions* older;
  void (*allocate)();
  void (*to_managed)();
  void (*from_managed)();
  // Gives 0, or -1 with a Python error; may be null.
  int (*view)(void* tensor, TensorView* view);
};

constexpr char kTensorFunctions[] = "dlpack_exchange_api";
constexpr uint32_t kTensorFunctionsMajor = 1;
constexpr int32_t kDeviceCpu = 1;

}  // namespace peephole
