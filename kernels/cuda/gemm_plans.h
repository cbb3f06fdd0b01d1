// Matrix products through cuBLASLt, with what its heuristics chose kept: asking them takes longer
// than a small product.
//
// The choice for a shape is the heuristics' first, which the library and the device determine: one
// picked by timing would differ from run to run, and with it the last bits of a resumed session.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <optional>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/activations.h"

namespace anabranch::kernels {

class CudaContext;

// y[m, n] (+)= x[m, k] w[n, k]^T (+ bias), strides in elements. float32 throughout, without TF32;
// or x and w bfloat16, sums in float32, y either and the bias as y.
struct LtProduct {
  int64_t m = 0, n = 0, k = 0;
  DType in = DType::kFloat32, out = DType::kFloat32;
  const void* x = nullptr;
  const void* w = nullptr;  // [n, k], dense
  void* y = nullptr;
  int64_t x_stride = 0, y_stride = 0;
  const void* bias = nullptr;
  bool accumulate = false;
};

class GemmPlans {
 public:
  // Queues the product on the context's stream. False if cuBLASLt has nothing for it (odd strides
  // or addresses), and nothing was queued. One thread at a time.
  absl::StatusOr<bool> Multiply(const LtProduct& product, CudaContext& context);

 private:
  // Everything that an algorithm may depend on; rows by bucket.
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, DType, DType, uint32_t,
                         uint32_t, uint32_t, bool, bool>;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> chosen_;
};

}  // namespace anabranch::kernels
