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
#include "kernels/activations.h"

namespace anabranch::kernels {

// Splits [0, n) into ranges of at least `grain` items and runs `body(begin, end)` on them, possibly
// in parallel; returns when all are done.
class Parallel {
 public:
  virtual ~Parallel() = default;
  virtual void For(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> body) const = 0;
};

class CudaContext;  // kernels/cuda/context.h

struct Launch {
  const Parallel* parallel = nullptr;  // CPU: null runs on the calling thread
  CudaContext* cuda = nullptr;         // CUDA: stream, handles and scratch; null on the CPU

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
// [row_start[i], row_start[i+1]) and keeps its state in slot slot[i]. The counts are for the host;
// the arrays lie where the kernel runs.
struct PackedRows {
  int32_t num_seqs = 0;
  int32_t total_rows = 0;              // row_start[num_seqs]
  int32_t longest = 0;                 // most rows of one sequence; CUDA sizes its grids by it
  const int32_t* row_start = nullptr;  // [num_seqs + 1], ascending, row_start[0] == 0
  const int32_t* slot = nullptr;       // [num_seqs], distinct

  int32_t num_rows() const { return total_rows; }
};

}  // namespace anabranch::kernels
