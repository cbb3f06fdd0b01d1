// Rotary embedding in place. An angle is position * frequency in float32 and can be 100,000 rad, so
// one unit in the last place of a frequency would turn pairs visibly: frequencies are computed on
// the host by the very expression of the CPU kernel, and travel by value.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxPairs = 256;

struct Frequencies {
  float of[kMaxPairs];
};

// One row a block: sines and cosines once, then all heads.
__global__ void __launch_bounds__(kThreads)
    RopeKernel(RopeParams p, const __grid_constant__ Frequencies frequencies) {
  __shared__ float cosine[kMaxPairs], sine[kMaxPairs];
  const int64_t row = blockIdx.x;
  const int32_t seq = SequenceOf(p.rows.row_start, p.rows.num_seqs, row);
  const auto at = static_cast<float>(p.position[seq] + row - p.rows.row_start[seq]);
  const int pairs = p.rotary_dim / 2;
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kThreads) {
    sincosf(at * frequencies.of[i], &sine[i], &cosine[i]);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < pairs * p.heads; i += kThreads) {
    const int head = i / pairs, pair = i % pairs;
    const int64_t first = row * p.x_stride + static_cast<int64_t>(head) * p.head_dim + pair;
    float a[1], b[1];
    LoadActs(p.x.data, p.x.dtype, first, a);
    LoadActs(p.x.data, p.x.dtype, first + pairs, b);
    const float new_a[1] = {a[0] * cosine[pair] - b[0] * sine[pair]};
    const float new_b[1] = {b[0] * cosine[pair] + a[0] * sine[pair]};
    StoreActs(p.x.data, p.x.dtype, first, new_a);
    StoreActs(p.x.data, p.x.dtype, first + pairs, new_b);
  }
}

}  // namespace

absl::Status Rope(const RopeParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Rope"); !s.ok()) return s;
  if (p.rows.num_rows() == 0 || p.rotary_dim == 0) return absl::OkStatus();
  const bool ok = p.rows.row_start != nullptr && p.position != nullptr && p.x.data != nullptr &&
                  p.heads > 0 && p.head_dim > 0 && p.rotary_dim > 0 && p.rotary_dim % 2 == 0 &&
                  p.rotary_dim <= p.head_dim && p.theta > 0 &&
                  p.x_stride >= static_cast<int64_t>(p.heads) * p.head_dim;
  if (!ok) return Require(false, "Rope", "bad size, rotary_dim, theta, array or stride");
  if (p.rotary_dim / 2 > kMaxPairs) return Require(false, "Rope", "rotary_dim above 512");
  Frequencies frequencies = {};
  const auto theta = static_cast<float>(p.theta);
  for (int pair = 0; pair < p.rotary_dim / 2; ++pair) {
    const float exponent = static_cast<float>(2 * pair) / static_cast<float>(p.rotary_dim);
    frequencies.of[pair] = 1.0f / std::pow(theta, exponent);
  }
  StartOn(launch.cuda->stream(), RopeKernel, static_cast<unsigned>(p.rows.num_rows()), kThreads, 0,
          p, frequencies);
  return LaunchStatus("Rope");
}

}  // namespace anabranch::kernels::cuda
