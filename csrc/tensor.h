// Where the numbers of a Python tensor lie.
//
// The extension knows nothing of torch's own C++. Tensors are asked through DLPack's functions, and
// by their attributes for what these do not say, or where a torch has none.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>
#include <utility>

namespace peephole {

// Tell which classes of tensors have their numbers where data_ptr() says (of others nobody knows),
// what raises the error for a tensor that does not fit, from the arguments of address_of, and the
// capsule with DLPack's functions, or None.
void use_tensors(nanobind::tuple classes, nanobind::callable refuse, nanobind::handle capsule);

// An address, where there is one that fits; 0 for None.
using Found = std::optional<uintptr_t>;

// Where a tensor's numbers lie: of this shape and dtype, without gaps, on the CPU, in memory that
// holds all of them.
Found find(nanobind::handle tensor, nanobind::handle shape, nanobind::handle dtype);

// The same, or the error, under that name.
uintptr_t address_of(nanobind::handle name, nanobind::handle tensor, nanobind::tuple shape,
                     nanobind::handle dtype);

// The shape of a matrix; -1 and -1 for anything else.
std::pair<int64_t, int64_t> rows_and_columns(nanobind::handle tensor);

}  // namespace peephole
