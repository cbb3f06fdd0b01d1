// How a kernel is run. Every kernel is one function taking one parameter struct of raw pointers and
// strides plus a Launch, and returning a status; it allocates nothing and prints nothing. The CPU
// and CUDA builds share the parameter structs, so tests compare the two on the same inputs.
//
// Row invariance (contract of every kernel here): the result for one row (token) of one sequence
// depends only on that sequence's own tokens and state, bit for bit. It does not depend on how many
// other rows are in the launch, where the row stands in it, how a sequence is split over launches,
// or how many threads run. So a state is a pure function of model and tokens, whatever the
// batching. The CPU kernels give the same bits with AVX2 and AVX-512, too (sums run in 16 virtual
// lanes, products of matrices as one chain per element); only CPUs without fused multiply-add,
// which get a slow portable path, and the CUDA kernels differ in the last bits.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace anabranch::kernels {

// Splits [0, n) into ranges of at least `grain` items and runs `body(begin, end)` on them, possibly
// in parallel; returns when all are done.
class Parallel {
 public:
  virtual ~Parallel() = default;
  virtual void For(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> body) const = 0;
};

struct Launch {
  const Parallel* parallel = nullptr;  // CPU: null runs on the calling thread.
  void* stream = nullptr;              // CUDA: a cudaStream_t. Ignored by the CPU kernels.

  void For(int64_t n, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) const {
    if (n <= 0) return;
    if (parallel == nullptr) {
      body(0, n);
    } else {
      parallel->For(n, grain, body);
    }
  }
};

// Rows of several sequences packed one after the other. Sequence i owns rows
// [row_start[i], row_start[i+1]) and keeps its state in slot slot[i].
struct PackedRows {
  int32_t num_seqs = 0;
  const int32_t* row_start = nullptr;  // [num_seqs + 1], ascending, row_start[0] == 0
  const int32_t* slot = nullptr;       // [num_seqs], distinct

  int32_t num_rows() const { return num_seqs == 0 ? 0 : row_start[num_seqs]; }
};

enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1 };

}  // namespace anabranch::kernels
