// What all recurrences share: a part's memory, its rows, and the weights it takes.
#pragma once

#include "kernels.h"
#include "product.h"
#include "vector.h"

namespace {

using namespace peephole;

constexpr int64_t kAlignment = 64;

// Memory cut into arrays. Without a base it only counts how much they take.
class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}

  template <class U>
  U* take(int64_t count) {
    char* at = base_ ? base_ + used_ : nullptr;
    used_ += round_up(count * int64_t(sizeof(U)), kAlignment);
    return reinterpret_cast<U*>(at);
  }

  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// Memory from the system, given back at the end of the scope. Taken before threads begin, since
// nothing may throw inside of them.
class Memory {
 public:
  explicit Memory(int64_t bytes)
      : base_(static_cast<char*>(__builtin_malloc(bytes + kAlignment))) {}
  ~Memory() { __builtin_free(base_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  bool taken() const { return base_; }
  char* aligned() const {
    return reinterpret_cast<char*>(round_up(reinterpret_cast<intptr_t>(base_), kAlignment));
  }

 private:
  char* base_;
};

// A row of a thread's own state: whole vectors, and one more, so that rows of a power of two do
// not all fall on the same lines of the cache.
template <class T>
int64_t padded(int64_t units) {
  return round_up(units, kLanes<T>) + kLanes<T>;
}

// Whether numbers are stored narrower than they are computed.
template <class S>
constexpr bool kNarrow = sizeof(S) < sizeof(Arithmetic<S>);

// A matrix, and where it lies packed: null where it is packed piece by piece when it is used, or,
// with `dots` and few rows, not at all.
template <class S>
struct Weights {
  Matrix<S> matrix;
  S* packed = nullptr;
  bool dots = false;

  Weights() = default;
  explicit Weights(Matrix<S> m) : matrix(m) {}

  int64_t size() const { return matrix.panels() * matrix.panel_size(); }
};

// sums [rows][C][lanes], a panel's outputs for a few rows.
template <class S>
void multiply(const Weights<S>& w, S* scratch, int64_t panel, const S* const* rows, int64_t count,
              Arithmetic<S>* sums) {
  if (w.dots && count <= kDotRows) {
    for (int64_t r = 0; r < count; ++r)
      multiply_by_dots(w.matrix, panel, rows[r], sums + r * w.matrix.columns * kLanes<S>);
    return;
  }
  switch (w.matrix.columns) {
    case 1: return multiply<S, 1>(w.matrix, w.packed, scratch, panel, rows, count, sums);
    case 2: return multiply<S, 2>(w.matrix, w.packed, scratch, panel, rows, count, sums);
    case 3: return multiply<S, 3>(w.matrix, w.packed, scratch, panel, rows, count, sums);
    default: return multiply<S, 4>(w.matrix, w.packed, scratch, panel, rows, count, sums);
  }
}

// How often a part goes through all weights: steps, times the groups of rows that it takes one
// after the other.
inline int64_t passes(const Batch& batch) {
  int64_t most = 0;
  for (int64_t p = 0; p < batch.count; ++p) {
    const Part& part = batch.parts[p];
    if (!part.count) continue;
    int64_t groups = (part.count + kRowsAtOnce - 1) / kRowsAtOnce;
    most = larger(most, groups * part.sequences[0].steps);
  }
  return most;
}

// Packing reads and writes the weights once more, and takes memory: few passes do without.
constexpr int64_t kPassesUnpacked = 2;

// Pack matrices, all threads together.
template <class S>
void pack_all(Weights<S>* const* all, int count, const Team& team) {
  struct Context {
    Weights<S>* const* all;
    int count;
  } context{all, count};
  int64_t panels = 0;
  for (int w = 0; w < count; ++w) panels += all[w]->matrix.panels();
  team.run(
      panels,
      [](int64_t begin, int64_t end, void* given) {
        auto& c = *static_cast<Context*>(given);
        int64_t before = 0;
        for (int w = 0; w < c.count; ++w) {
          const Matrix<S>& m = c.all[w]->matrix;
          for (int64_t p = larger(0, begin - before); p < m.panels() && before + p < end; ++p)
            pack(m, p, 0, m.depth, c.all[w]->packed + p * m.panel_size());
          before += m.panels();
        }
      },
      &context);
}

// Run `work` for each part of the batch, each with memory of its own.
//
// Args:
//   Space: what a part works with, made from (arena, sizes, rows).
//   sizes: what its arrays' sizes follow from, besides its rows.
//   weights: the matrices to pack beforehand.
//   work: called as work(part number, space).
//
// Returns false where there is no memory.
template <class S, class Space, class Sizes, class Work>
bool run_parts(const Batch& batch, const Team& team, const Sizes& sizes,
               Weights<S>* const* weights, int count, Work& work) {
  bool pack = passes(batch) > kPassesUnpacked;
  for (int w = 0; w < count; ++w)
    weights[w]->dots = batch.any_order && !pack && weights[w]->matrix.transposed;
  Arena counted(nullptr);
  if (pack)
    for (int w = 0; w < count; ++w) counted.take<S>(weights[w]->size());
  for (int64_t p = 0; p < batch.count; ++p) Space(counted, sizes, batch.parts[p].count);
  Memory memory(counted.used());
  if (!memory.taken()) return false;
  Arena arena(memory.aligned());
  if (pack) {
    for (int w = 0; w < count; ++w) weights[w]->packed = arena.take<S>(weights[w]->size());
    pack_all(weights, count, team);
  }
  struct Context {
    Work& work;
    const Batch& batch;
    char* base;
    int64_t packed;
    const Sizes& sizes;
  } context{work, batch, memory.aligned(), arena.used(), sizes};
  team.run(
      batch.count,
      [](int64_t begin, int64_t end, void* given) {
        auto& c = *static_cast<Context*>(given);
        Arena own(c.base);
        own.take<char>(c.packed);
        for (int64_t p = 0; p < end; ++p) {
          Space space(own, c.sizes, c.batch.parts[p].count);
          if (p >= begin) c.work(p, space);
        }
      },
      &context);
  return true;
}

// Copy numbers, or set zeros where there is nothing to copy from.
template <class From, class To>
inline void copy_or_zero(const From* from, To* to, int64_t count) {
  if (from)
    copy(from, count, to);
  else
    zero(to, count);
}

// What every recurrence needs of a thread's own memory.
template <class S>
struct CommonSpace {
  using T = Arithmetic<S>;

  int64_t stride;  // from one row of a state to the next
  T* sums;         // of a panel
  S* scratch;      // a block of weights
  const S** rows;  // what is multiplied

  CommonSpace(Arena& arena, int64_t hidden, int64_t count)
      : stride(padded<S>(hidden)),
        sums(arena.take<T>(kRowsAtOnce * 4 * kLanes<S>)),
        scratch(arena.take<S>(kDepth<S> * 4 * kLanes<S>)),
        rows(arena.take<const S*>(count)) {}

  // Where the rows of a state lie as products take them: apart, if it is kept in another form.
  S* as_multiplied(Arena& arena, T* state, int64_t count) const {
    if constexpr (kNarrow<S>)
      return arena.take<S>(count * stride);
    else
      return state;
  }
};

// Sums over the rows of all steps, for `count` kinds of number a unit.
//
// Added one to the next, many rows would lose the last digits of each. So thirty-two rows are added
// up, and thirty-two such sums, and these.
template <class T>
class RowTotals {
 public:
  RowTotals(Arena& arena, int64_t stride, int count) : stride_(stride), size_(count * stride) {
    for (T*& level : levels_) level = arena.take<T>(size_);
  }

  void clear() {
    for (T* level : levels_) zero(level, size_);
    rows_ = groups_ = 0;
  }

  void add(int which, int64_t j, Vec<T> value) {
    T* at = levels_[0] + which * stride_ + j;
    store(at, load(at) + value);
  }

  void end_row() {
    if (++rows_ < kGroup) return;
    rows_ = 0;
    fold(0);
    if (++groups_ < kGroup) return;
    groups_ = 0;
    fold(1);
  }

  // The sums, [which][stride].
  const T* finish() {
    fold(0);
    fold(1);
    return levels_[2];
  }

 private:
  static constexpr int kGroup = 32;

  void fold(int level) {
    T *from = levels_[level], *to = levels_[level + 1];
    for (int64_t k = 0; k < size_; k += kLanes<T>) {
      store(to + k, load<T>(to + k) + load<T>(from + k));
      store(from + k, Vec<T>{});
    }
  }

  int64_t stride_, size_;
  T* levels_[3];
  int rows_ = 0, groups_ = 0;
};

// A part on its way through its steps: what all recurrences have of it.
//
// r is a row of the part, a sequence; t a step; j the first of a vector of units.
// Weights, and what comes from outside or goes there, is stored as S; states are kept as they are
// computed, and as S where a product takes them.
template <class S>
class PartRun {
 protected:
  using T = Arithmetic<S>;
  static constexpr int L = kLanes<S>;

  PartRun(int64_t hidden, const Batch& batch, int64_t number, CommonSpace<S>& space)
      : H(hidden), number_(number), part_(batch.parts[number]), stride_(batch.stride), s_(space) {}

  int64_t longest() const { return part_.count ? part_.sequences[0].steps : 0; }
  int64_t row(int64_t r, int64_t t) const { return part_.sequences[r].first + t * stride_; }
  int64_t index(int64_t r) const { return part_.sequences[r].index; }
  int lanes(int64_t j) const { return int(smaller(L, H - j)); }

  // How many sequences have a step t, the first ones, if `at_most` so many do.
  int64_t running(int64_t t, int64_t at_most) const {
    while (at_most && part_.sequences[at_most - 1].steps <= t) --at_most;
    return at_most;
  }

  // Ask for a vector of units, from j on, of `count` rows of [rows, H] from `row` on; of none where
  // `all` is null. Where a row is no multiple of a cache line, the last number's is the line that
  // the vectors before have not touched.
  ALWAYS_INLINE void ask(const S* all, int64_t row, int count, int64_t j) const {
    if (!all) return;
    for (int k = 0; k < count; ++k) __builtin_prefetch(all + (row + k) * H + j + lanes(j) - 1);
  }

  // Call ask(r, t) for what a backward pass comes to after row r of step t: a row of a step.
  template <class Ask>
  ALWAYS_INLINE void ask_for_next(int64_t r, int64_t t, int64_t running, const Ask& ask) const {
    if (r + 1 < running)
      ask(r + 1, t);
    else if (t)
      ask(0, t - 1);
  }

  // A sequence's row of [B, H], or null for zeros.
  const S* of_sequence(const S* all, int64_t r) const {
    return all ? all + index(r) * H : nullptr;
  }

  // The state before step t, [H]: a row of all steps' states, or the initial one; null for zeros.
  const S* before(const S* states, const S* initial, int64_t r, int64_t t) const {
    return t ? states + (row(r, t) - stride_) * H : of_sequence(initial, r);
  }

  template <class Count>
  Vec<T> load_or_zero(const S* from, int64_t j, Count count) const {
    return from ? load(from + j, count) : Vec<T>{};
  }

  // Call work(count) with how many units there are of the vector from j on; where they are all
  // there, the compiler knows. What loads and stores fewer are calls and loops, which have to stay
  // out of a loop over rows.
  template <class Work>
  ALWAYS_INLINE void for_vector(int64_t j, const Work& work) const {
    if (j + L <= H)
      work(All<S>());
    else
      work(int(H - j));
  }

  // Call work(j, count) for each vector of units, likewise.
  template <class Work>
  ALWAYS_INLINE void for_each_vector(const Work& work) const {
    int64_t j = 0;
    for (; j + L <= H; j += L) work(j, All<S>());
    if (j < H) work(j, int(H - j));
  }

  // sums = a panel's outputs for rows `first` and following of a state.
  void multiply_state(const Weights<S>& weights, const S* state, int64_t panel, int64_t first,
                      int64_t count, T* sums) const {
    for (int64_t r = 0; r < count; ++r) s_.rows[r] = state + (first + r) * s_.stride;
    multiply(weights, s_.scratch, panel, s_.rows, count, sums);
  }

  // state += d_gates * weights for step t, d_gates being the rows of [N, width] from a column on.
  void add_product(const Weights<S>& weights, const S* d_gates, int64_t width, int64_t column,
                   int64_t t, int64_t running, T* state, const S* mask = nullptr) const {
    const Matrix<S>& m = weights.matrix;
    for (int64_t r = 0; r < running; ++r) s_.rows[r] = d_gates + row(r, t) * width + column;
    for (int64_t panel = 0; panel < m.panels(); ++panel)
      for (int64_t first = 0; first < running; first += kRowsAtOnce) {
        int64_t count = smaller(kRowsAtOnce, running - first);
        multiply(weights, s_.scratch, panel, s_.rows + first, count, s_.sums);
        for (int64_t r = first; r < first + count; ++r)
          for (int c = 0; c < m.columns; ++c) {
            int64_t j = panel * m.panel_step + c * L;
            if (j >= H) break;
            Vec<T> sum = load(s_.sums + ((r - first) * m.columns + c) * L);
            if (mask) sum *= load(mask + index(r) * H + j, lanes(j));
            T* to = state + r * s_.stride + j;
            store(to, load(to) + sum);
          }
      }
  }

  // The part's own rows of [parts, count, H]; nobody asks where `to` is null.
  void write_totals(RowTotals<T>& sums, int count, T* to) const {
    const T* totals = sums.finish();
    for (int k = 0; to && k < count; ++k)
      copy(totals + k * s_.stride, H, to + (number_ * count + k) * H);
  }

  // A row of [B, H] for each sequence, or zeros; the last vector's rest is zero too.
  template <class State>
  void read_states(const S* from, State* state) const {
    for (int64_t r = 0; r < part_.count; ++r) {
      State* to = state + r * s_.stride;
      copy_or_zero(of_sequence(from, r), to, H);
      zero(to + H, s_.stride - H);
    }
  }

  void write_states(const T* state, S* to) const {
    for (int64_t r = 0; to && r < part_.count; ++r) write_state(state, r, to);
  }

  void write_state(const T* state, int64_t r, S* to) const {
    copy(state + r * s_.stride, H, to + index(r) * H);
  }

  // What the weights multiply first: h0, masked.
  void read_masked(const S* h0, const S* mask, S* state) const {
    read_states(h0, state);
    for (int64_t r = 0; mask && r < part_.count; ++r)
      for (int64_t j = 0; j < H; j += L) {
        S* at = state + r * s_.stride + j;
        store(at, load(at) * load(mask + index(r) * H + j, lanes(j)));
      }
  }

  // The final h of the sequences that end with step t, or, at -1, are empty.
  template <class End>
  void end_at(int64_t t, int64_t running, const End& end) const {
    for (int64_t r = running; r-- && part_.sequences[r].steps == t + 1;) end(r);
  }

  const int64_t H;
  const int64_t number_;
  const Part& part_;
  const int64_t stride_;
  CommonSpace<S>& s_;
};

}  // namespace
