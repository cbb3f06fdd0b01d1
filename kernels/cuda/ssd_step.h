// What the kernels of one token have in common: how a block shares out the rows of a head's S.
// Only .cu files include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/state_io.h"
#include "kernels/cuda/state_vector.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

// state_dim kDim = kEach * (lanes of a row) * kWide, 16 bytes a lane and vector. A warp of a block
// of kThreads holds kRowsOfSet rows of S at a time and kRounds such sets, all of them on their way
// together. kSets: at most so many sets.
template <int kDim, class S, int kSets>
struct StepShape {
  using State = S;
  static constexpr int kThreads = 128;
  static constexpr int kStates = kDim;
  static constexpr int kEach = kStateEach<S>;
  static constexpr int kLanes = kDim / kEach < kWarp ? kDim / kEach : kWarp;
  static constexpr int kWide = kDim / (kEach * kLanes);
  static constexpr int kApart = kEach * kWarp;  // elements between the vectors of a lane
  static constexpr int kRowsOfSet = kWarp / kLanes;
  static constexpr int kVectors = sizeof(S) == 1 ? 4 : 8;  // that fit a lane's registers, unpacked
  static constexpr int kFits =
      kVectors / kWide < 16 / kRowsOfSet ? kVectors / kWide : 16 / kRowsOfSet;
  static constexpr int kRounds = kFits < kSets ? kFits : kSets;
  static constexpr int kRowsOfWarp = kRounds * kRowsOfSet;
  static constexpr int kRows = kRowsOfWarp * (kThreads / kWarp);  // of a block
};

// Whether S can be read in vectors.
inline bool TakesSteps(const SsdScanParams& p) {
  return (p.state_dim == 64 || p.state_dim == 128 || p.state_dim == 256) &&
         TakesStateVectors(p.state, p.state_slot_stride);
}

// Calls run.template operator()<Shape>() with the shape for the launch, which TakesSteps. Few
// sequences are spread over more blocks, with less on its way in each.
template <int kDim, class S, class Run>
absl::Status WithStepShape(const SsdScanParams& p, const Launch& launch, Run run) {
  const bool few = p.rows.num_seqs * p.heads < 4 * launch.cuda->multiprocessors();
  return few ? run.template operator()<StepShape<kDim, S, 2>>()
             : run.template operator()<StepShape<kDim, S, 8>>();
}
template <class S, class Run>
absl::Status WithStepShape(const SsdScanParams& p, const Launch& launch, Run run) {
  if (p.state_dim == 64) return WithStepShape<64, S>(p, launch, run);
  return p.state_dim == 128 ? WithStepShape<128, S>(p, launch, run)
                            : WithStepShape<256, S>(p, launch, run);
}
template <class Run>
absl::Status WithStepShape(const SsdScanParams& p, const Launch& launch, Run run) {
  return WithStateType(p.state.dtype, [&]<class S>() { return WithStepShape<S>(p, launch, run); });
}

// The same, and B and C in fours, and the ring as S.
bool TakesWholeSteps(const SsdScanParams& params);
// The sequences of one row that do not defer; leaves the others alone.
absl::Status SsdStep(const SsdScanParams& params, const Launch& launch);

// A block for each sequence, head and kRows rows of its S.
inline dim3 StepGrid(const SsdScanParams& p, int rows_of_block) {
  return dim3(static_cast<unsigned>(p.rows.num_seqs), static_cast<unsigned>(p.heads),
              static_cast<unsigned>(CeilDiv(p.head_dim, rows_of_block)));
}

}  // namespace anabranch::kernels::cuda
