#include "kernels/selective_scan.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/resident_state.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/lanes16-inl.h"

// A work item is 16 channels of one sequence. The chunk is walked in tiles of kTile tokens: step
// sizes of the tile (lanes over channels), the recurrence (lanes over the state, a few channels at
// a time in registers), then skip and gate (lanes over channels again).

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

inline constexpr int kTile = 32;  // tokens
inline constexpr int kChannels = 16;

struct ScanTile {
  HWY_ALIGN float dt[kTile][kChannels];
  HWY_ALIGN float dtu[kTile][kChannels];
  HWY_ALIGN float y[kTile][kChannels];
};

struct ScanBlock {
  int64_t row;  // first row of the tile
  int count;    // tokens
  int64_t channel;
  int channels;  // at most kChannels
};

// Adds the steps to t_sum in token order.
HWY_INLINE void ComputeSteps(const SelectiveScanParams& p, const ScanBlock& blk, double* t_sum,
                             ScanTile& tile) {
  for (int t = 0; t < blk.count; ++t) {
    const float* raw = p.dt + (blk.row + t) * p.dt_stride + blk.channel;
    const float* u = p.u + (blk.row + t) * p.u_stride + blk.channel;
    for (int i = 0; i < kChannels; i += kLanes) {
      const int64_t left = blk.channels - i;
      if (left <= 0) break;
      const VF dt =
          Softplus(hn::Add(LoadUpTo(raw + i, left), LoadUpTo(p.dt_bias + blk.channel + i, left)));
      hn::StoreU(dt, DF(), tile.dt[t] + i);
      hn::StoreU(hn::Mul(dt, LoadUpTo(u + i, left)), DF(), tile.dtu[t] + i);
    }
    for (int i = 0; i < blk.channels; ++i) t_sum[i] += tile.dt[t][i];
  }
}

// Channels [first, first + kRows) of the block over the tile. kTail: state_dim is no multiple of
// 16 * kVecs; what lies beyond is read as zero and kept zero.
template <int kRows, int kVecs, bool kTail>
HWY_NOINLINE void WalkChannels(const SelectiveScanParams& p, const ScanBlock& blk, int first,
                               float* state, ScanTile& tile) {
  const DF d;
  const int64_t n = p.state_dim;
  const float* a = p.a + (blk.channel + first) * n;
  float* h0 = state + first * n;
  F16 h[kRows][kVecs];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      h[r][v] = kTail ? Load16UpTo(h0 + r * n + v * 16, n - v * 16) : Load16(h0 + r * n + v * 16);
    }
  }
  for (int t = 0; t < blk.count; ++t) {
    F16 acc[kRows];
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) acc[r] = Zero16();
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      const float* bv = p.b + (blk.row + t) * p.b_stride + v * 16;
      const float* cv = p.c + (blk.row + t) * p.c_stride + v * 16;
      const F16 b16 = kTail ? Load16UpTo(bv, n - v * 16) : Load16(bv);
      const F16 c16 = kTail ? Load16UpTo(cv, n - v * 16) : Load16(cv);
      HWY_UNROLL(4)
      for (int r = 0; r < kRows; ++r) {
        const VF dt = hn::Set(d, tile.dt[t][first + r]);
        const VF dtu = hn::Set(d, tile.dtu[t][first + r]);
        const float* av = a + r * n + v * 16;
        const F16 a16 = kTail ? Load16UpTo(av, n - v * 16) : Load16(av);
        for (int i = 0; i < kRegs; ++i) {
          const VF decay = Exp(hn::Mul(dt, a16.r[i]));
          VF next = hn::MulAdd(dtu, b16.r[i], hn::Mul(h[r][v].r[i], decay));
          if constexpr (kTail) {
            const int64_t left = std::clamp<int64_t>(n - v * 16 - i * kLanes, 0, kLanes);
            next = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(left)), next);
          }
          h[r][v].r[i] = next;
          acc[r].r[i] = hn::MulAdd(next, c16.r[i], acc[r].r[i]);
        }
      }
    }
    if constexpr (kRows == 4) {
      Sum16x4(acc[0], acc[1], acc[2], acc[3], tile.y[t] + first);
    } else {
      for (int r = 0; r < kRows; ++r) tile.y[t][first + r] = Sum16(acc[r]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      if constexpr (kTail) {
        Store16UpTo(h[r][v], h0 + r * n + v * 16, n - v * 16);
      } else {
        Store16(h[r][v], h0 + r * n + v * 16);
      }
    }
  }
}

template <int kVecs, bool kTail>
HWY_INLINE void WalkBlock(const SelectiveScanParams& p, const ScanBlock& blk, float* state,
                          ScanTile& tile) {
  constexpr int kRows = kVecs * kRegs <= 2 ? 4 : 1;
  int first = 0;
  for (; first + kRows <= blk.channels; first += kRows) {
    WalkChannels<kRows, kVecs, kTail>(p, blk, first, state, tile);
  }
  if constexpr (kRows > 1) {
    for (; first < blk.channels; ++first) {
      WalkChannels<1, kVecs, kTail>(p, blk, first, state, tile);
    }
  }
}

HWY_INLINE void WalkTile(const SelectiveScanParams& p, const ScanBlock& blk, float* state,
                         ScanTile& tile) {
  switch (p.state_dim) {
    case 16:
      return WalkBlock<1, false>(p, blk, state, tile);
    case 32:
      return WalkBlock<2, false>(p, blk, state, tile);
    case 64:
      return WalkBlock<4, false>(p, blk, state, tile);
    default:
      break;
  }
  if (p.state_dim < 16) return WalkBlock<1, true>(p, blk, state, tile);
  if (p.state_dim < 64) return WalkBlock<4, true>(p, blk, state, tile);
  return WalkBlock<16, true>(p, blk, state, tile);
}

HWY_INLINE void SkipAndGate(const SelectiveScanParams& p, const ScanBlock& blk,
                            const ScanTile& tile) {
  for (int t = 0; t < blk.count; ++t) {
    const int64_t row = blk.row + t;
    for (int i = 0; i < blk.channels; i += kLanes) {
      const int64_t left = blk.channels - i, at = blk.channel + i;
      VF v = hn::MulAdd(LoadUpTo(p.d + at, left), LoadUpTo(p.u + row * p.u_stride + at, left),
                        LoadUpTo(tile.y[t] + i, left));
      if (p.round_to_bf16) v = RoundToBf16(v);
      if (p.z != nullptr) {
        v = hn::Mul(v, Silu(LoadUpTo(p.z + row * p.z_stride + at, left)));
        if (p.round_to_bf16) v = RoundToBf16(v);
      }
      StoreUpTo(v, p.y + row * p.y_stride + at, left);
    }
  }
}

// Items are (sequence, channel block). Tiles end at checkpoints.
void ScanItems(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const int64_t blocks = (p.channels + kChannels - 1) / kChannels;
  ScanTile tile;
  for (int64_t item = begin; item < end; ++item) {
    const auto seq = static_cast<int32_t>(item / blocks);
    const int64_t slot = p.rows.slot[seq], first = p.rows.row_start[seq];
    ScanBlock blk;
    blk.channel = item % blocks * kChannels;
    blk.channels = static_cast<int>(std::min<int64_t>(kChannels, p.channels - blk.channel));
    ResidentState resident(p.state, p.state_scales, int64_t{blk.channels} * p.state_dim);
    float* state = resident.Open(slot * p.state_slot_stride, blk.channel * p.state_dim);
    double* t_sum = p.t_sum + slot * p.t_slot_stride + blk.channel;
    const int64_t last = p.rows.row_start[seq + 1];
    int32_t next = p.checkpoints.FirstFrom(first);
    for (blk.row = first; blk.row < last; blk.row += blk.count) {
      const bool keeps = next < p.checkpoints.count && p.checkpoints.row[next] < blk.row + kTile;
      const int64_t end =
          std::min(last, keeps ? p.checkpoints.row[next] + int64_t{1} : blk.row + kTile);
      blk.count = static_cast<int>(end - blk.row);
      ComputeSteps(p, blk, t_sum, tile);
      WalkTile(p, blk, state, tile);
      SkipAndGate(p, blk, tile);
      for (; keeps && next < p.checkpoints.count && p.checkpoints.row[next] == end - 1; ++next) {
        const int64_t place = p.checkpoints.place[next];
        resident.Keep(p.checkpoint_state, place * p.checkpoint_state_stride,
                      RoundingKeyAfter(p, seq, end - first));
        std::copy(t_sum, t_sum + blk.channels,
                  p.checkpoint_t + place * p.checkpoint_t_stride + blk.channel);
      }
    }
    resident.Close(RoundingKeyAfter(p, seq, last - first));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(ScanItems);

constexpr int64_t kBlockChannels = 16;  // kChannels, which lives in a target's namespace

absl::Status Check(const SelectiveScanParams& p) {
  if (absl::Status s = CheckRows(p.rows, true, "SelectiveScan"); !s.ok()) return s;
  if (p.channels <= 0 || p.state_dim <= 0 || p.state_dim > 256) {
    return Require(false, "SelectiveScan", "bad channels or state_dim (1..256)");
  }
  const bool strides = p.u_stride >= p.channels && p.dt_stride >= p.channels &&
                       p.y_stride >= p.channels && p.b_stride >= p.state_dim &&
                       p.c_stride >= p.state_dim && (!p.z || p.z_stride >= p.channels) &&
                       p.state_slot_stride >= 0 && p.t_slot_stride >= 0;
  const bool arrays =
      p.u && p.dt && p.b && p.c && p.a && p.d && p.dt_bias && p.t_sum && p.y && HasState(p);
  const bool ring = p.checkpoints.count == 0 || HasCheckpoints(p);
  return Require(strides && arrays && ring, "SelectiveScan", "missing array or short stride");
}

}  // namespace

absl::Status SelectiveScan(const SelectiveScanParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  const int64_t blocks = (p.channels + kBlockChannels - 1) / kBlockChannels;
  const int64_t rows_each = std::max<int64_t>(1, p.rows.num_rows() / p.rows.num_seqs);
  launch.For(p.rows.num_seqs * blocks, std::max<int64_t>(1, 16 / rows_each),
             [&](int64_t begin, int64_t end) {
               HWY_DYNAMIC_DISPATCH(ScanItems)
               (p, begin, end);
             });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
