// Checkpoints of the chunked scan that are stored in 8 bits: behind the walk of a segment, which
// left S of each as it was, into the place's stored form (kernels/packed_state.h). A walk is a
// chain that the whole read waits for, so this is not done in it; and it is over before the next
// launch.
//
// Bytes: 32 KB of a head read, mostly from the L2 cache, and 8 KB written.
#include "kernels/cuda/codec_heads.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/ssd_segment.h"
#include "kernels/cuda/start.h"
#include "kernels/packed_state.h"

namespace anabranch::kernels::cuda {
namespace {

// Whether a chunk of the segment has the row.
__device__ bool Has(const Segment& segment, const PackedRows& rows, int64_t row) {
  const int32_t seq = SequenceOf(rows.row_start, rows.num_seqs, row);
  const int32_t begin = rows.row_start[seq], end = rows.row_start[seq + 1];
  const int32_t id = begin / kChunk + seq + (static_cast<int32_t>(row) - begin) / kChunk;
  return end - begin > segment.longer_than && id >= segment.first &&
         id < segment.first + segment.count;
}

// Blocks: (heads, checkpoints of the launch).
__global__ void __launch_bounds__(kHeadThreads) PackKernel(SsdScanParams p, Segment segment) {
  constexpr int kHead = kHeadRows * kHeadColumns, kWarps = kHeadThreads / kWarp;
  __shared__ HeadShared shared;
  __shared__ double sums[kWarps][2];
  const int32_t head = static_cast<int32_t>(blockIdx.x), check = static_cast<int32_t>(blockIdx.y);
  if (p.checkpoints.packed[check] == 0 || !Has(segment, p.rows, p.checkpoints.row[check])) return;
  const PackedPlaces places(p.heads, kHeadRows, kHeadColumns);
  auto* const tensor =
      reinterpret_cast<char*>(static_cast<float*>(p.checkpoint_state.data) +
                              p.checkpoints.place[check] * p.checkpoint_state_stride);
  const HeadPlaces out = {reinterpret_cast<int8_t*>(tensor) + int64_t{head} * kHeadColumns,
                          tensor + places.scales + int64_t{head} * kHeadRows * 2,
                          reinterpret_cast<int8_t*>(tensor) + places.codes + int64_t{head} * kHead};
  const float* const values =
      static_cast<const float*>(segment.kept.data) + (int64_t{check} * p.heads + head) * kHead;
  const HeadMeasure seen = EncodeHead(values, out, shared);
  const double off = WarpSum(seen.off), norm = WarpSum(seen.norm);
  if (threadIdx.x % kWarp == 0) {
    sums[threadIdx.x / kWarp][0] = off, sums[threadIdx.x / kWarp][1] = norm;
  }
  const bool refused = __syncthreads_or(seen.refused) != 0;
  if (threadIdx.x != 0) return;
  double all[2] = {};
  for (const auto& of_warp : sums) all[0] += of_warp[0], all[1] += of_warp[1];
  PackedMeasure measure;
  measure.off = static_cast<float>(all[0]), measure.norm = static_cast<float>(all[1]);
  measure.refused = refused ? 1 : 0;
  reinterpret_cast<PackedMeasure*>(tensor + places.measures)[head] = measure;
}

}  // namespace

absl::Status RunPack(const SsdScanParams& p, const Segment& segment, bool beside,
                     const Launch& launch) {
  if (p.checkpoints.packed == nullptr) return absl::OkStatus();
  const dim3 grid(static_cast<unsigned>(p.heads), static_cast<unsigned>(p.checkpoints.count));
  const auto start = beside ? StartBeside<SsdScanParams, Segment> : Start<SsdScanParams, Segment>;
  return start(launch, "SsdScan", PackKernel, grid, kHeadThreads, 0, p, segment);
}

}  // namespace anabranch::kernels::cuda
