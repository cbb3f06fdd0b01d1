#include "kernels/ssd_scan.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/resident_state.h"
#include "kernels/ssd_pending.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd_scan.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/lanes16-inl.h"

// A work item is one head of one sequence. The chunk is walked in tiles of kTile tokens: first the
// step sizes and decays of the tile, then the rows of S in blocks that fit the registers.

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

inline constexpr int kTile = 64;  // tokens

struct Steps {
  HWY_ALIGN float dt[kTile + 16];
  HWY_ALIGN float decay[kTile + 16];  // exp(dt * A)
};

// Tokens [row, row + count) of head `head`; adds the steps to t_sum in token order.
HWY_INLINE void ComputeSteps(const SsdScanParams& p, int32_t head, int64_t row, int count,
                             double* t_sum, Steps& steps) {
  for (int t = 0; t < count; ++t) steps.dt[t] = p.dt[(row + t) * p.dt_stride + head];
  for (int t = count; t % 16 != 0; ++t) steps.dt[t] = 0;
  const DF d;
  const VF bias = hn::Set(d, p.dt_bias[head]), a = hn::Set(d, p.a[head]);
  const VF lo = hn::Set(d, p.dt_lo), hi = hn::Set(d, p.dt_hi);
  for (int t = 0; t < count; t += kLanes) {
    const VF raw = Softplus(hn::Add(hn::Load(d, steps.dt + t), bias));
    const VF dt = hn::IfThenElse(hn::IsNaN(raw), raw, hn::Min(hn::Max(raw, lo), hi));
    hn::Store(dt, d, steps.dt + t);
    hn::Store(Exp(hn::Mul(dt, a)), d, steps.decay + t);
  }
  double sum = *t_sum;
  for (int t = 0; t < count; ++t) sum += steps.dt[t];
  *t_sum = sum;
}

// kRows rows of S, kVecs * 16 wide, over the tile. With kTail the state is narrower: what lies
// beyond is read as zero and kept zero (0 * infinity would not be).
template <int kRows, int kVecs, bool kTail>
HWY_NOINLINE void WalkRows(const SsdScanParams& p, const Steps& steps, int count, const float* x,
                           const float* b, const float* c, float* state, float* y) {
  const DF d;
  const int64_t n = p.state_dim;
  F16 s[kRows][kVecs];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      s[r][v] =
          kTail ? Load16UpTo(state + r * n + v * 16, n - v * 16) : Load16(state + r * n + v * 16);
    }
  }
  for (int t = 0; t < count; ++t) {
    const VF decay = hn::Set(d, steps.decay[t]);
    VF step[kRows];
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) step[r] = hn::Set(d, steps.dt[t] * x[t * p.x_stride + r]);
    F16 acc[kRows];
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) acc[r] = Zero16();
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      const float* bv = b + t * p.b_stride + v * 16;
      const float* cv = c + t * p.c_stride + v * 16;
      const F16 b16 = kTail ? Load16UpTo(bv, n - v * 16) : Load16(bv);
      const F16 c16 = kTail ? Load16UpTo(cv, n - v * 16) : Load16(cv);
      HWY_UNROLL(4)
      for (int r = 0; r < kRows; ++r) {
        for (int i = 0; i < kRegs; ++i) {
          VF next = hn::MulAdd(step[r], b16.r[i], hn::Mul(s[r][v].r[i], decay));
          if constexpr (kTail) {
            const int64_t left = std::clamp<int64_t>(n - v * 16 - i * kLanes, 0, kLanes);
            next = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(left)), next);
          }
          s[r][v].r[i] = next;
          acc[r].r[i] = hn::MulAdd(next, c16.r[i], acc[r].r[i]);
        }
      }
    }
    HWY_ALIGN float sums[4];
    if constexpr (kRows == 4) {
      Sum16x4(acc[0], acc[1], acc[2], acc[3], sums);
    } else {
      for (int r = 0; r < kRows; ++r) sums[r] = Sum16(acc[r]);
    }
    for (int r = 0; r < kRows; ++r) y[t * p.y_stride + r] = sums[r];
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVecs; ++v) {
      if constexpr (kTail) {
        Store16UpTo(s[r][v], state + r * n + v * 16, n - v * 16);
      } else {
        Store16(s[r][v], state + r * n + v * 16);
      }
    }
  }
}

// All rows of one head over the tile.
template <int kVecs, bool kTail>
HWY_INLINE void WalkHead(const SsdScanParams& p, const Steps& steps, int32_t head, int64_t row,
                         int count, float* state) {
  // As many rows as leave the state in registers.
  constexpr int kRows = std::clamp(kLanes == 16 ? 16 / kVecs : 8 / (kVecs * kRegs), 1, 4);
  const int64_t group = head / (p.heads / p.groups);
  const float* x = p.x + row * p.x_stride + head * p.head_dim;
  const float* b = p.b + row * p.b_stride + group * p.state_dim;
  const float* c = p.c + row * p.c_stride + group * p.state_dim;
  float* y = p.y + row * p.y_stride + head * p.head_dim;
  int64_t r = 0;
  for (; r + kRows <= p.head_dim; r += kRows) {
    WalkRows<kRows, kVecs, kTail>(p, steps, count, x + r, b, c, state + r * p.state_dim, y + r);
  }
  if constexpr (kRows > 1) {
    for (; r < p.head_dim; ++r) {
      WalkRows<1, kVecs, kTail>(p, steps, count, x + r, b, c, state + r * p.state_dim, y + r);
    }
  }
  const DF d;
  const VF skip = hn::Set(d, p.d[head]);
  for (int t = 0; t < count; ++t) {
    for (int64_t i = 0; i < p.head_dim; i += kLanes) {
      const int64_t left = p.head_dim - i;
      float* out = y + t * p.y_stride + i;
      VF v = hn::MulAdd(skip, LoadUpTo(x + t * p.x_stride + i, left), LoadUpTo(out, left));
      if (p.round_to_bf16) v = RoundToBf16(v);
      StoreUpTo(v, out, left);
    }
  }
}

// `state`: of the head.
HWY_INLINE void WalkTile(const SsdScanParams& p, const Steps& steps, int32_t head, int64_t row,
                         int count, float* state) {
  switch (p.state_dim) {
    case 16:
      return WalkHead<1, false>(p, steps, head, row, count, state);
    case 32:
      return WalkHead<2, false>(p, steps, head, row, count, state);
    case 64:
      return WalkHead<4, false>(p, steps, head, row, count, state);
    case 128:
      return WalkHead<8, false>(p, steps, head, row, count, state);
    case 256:
      return WalkHead<16, false>(p, steps, head, row, count, state);
    default:
      break;
  }
  if (p.state_dim < 16) return WalkHead<1, true>(p, steps, head, row, count, state);
  if (p.state_dim < 64) return WalkHead<4, true>(p, steps, head, row, count, state);
  return WalkHead<16, true>(p, steps, head, row, count, state);
}

// Items are (sequence, head). Tiles end at checkpoints.
void SsdItems(const SsdScanParams& p, int64_t begin, int64_t end) {
  Steps steps;
  const int64_t cells = int64_t{p.head_dim} * p.state_dim;
  ResidentState resident(p.state, p.state_scales, cells);
  for (int64_t item = begin; item < end; ++item) {
    const int32_t seq = static_cast<int32_t>(item / p.heads);
    const int32_t head = static_cast<int32_t>(item % p.heads);
    if (p.pending.Defers(seq)) continue;
    const int64_t slot = p.rows.slot[seq], first = p.rows.row_start[seq];
    float* state = resident.Open(slot * p.state_slot_stride, head * cells);
    double* t_sum = p.t_sum + slot * p.t_slot_stride + head;
    const int64_t last = p.rows.row_start[seq + 1];
    int32_t next = p.checkpoints.FirstFrom(first);
    for (int64_t row = first, end; row < last; row = end) {
      const bool keeps = next < p.checkpoints.count && p.checkpoints.row[next] < row + kTile;
      end = std::min(last, keeps ? p.checkpoints.row[next] + int64_t{1} : row + kTile);
      const int count = static_cast<int>(end - row);
      ComputeSteps(p, head, row, count, t_sum, steps);
      WalkTile(p, steps, head, row, count, state);
      for (; keeps && next < p.checkpoints.count && p.checkpoints.row[next] == end - 1; ++next) {
        const int64_t place = p.checkpoints.place[next];
        resident.Keep(p.checkpoint_state, place * p.checkpoint_state_stride,
                      RoundingKeyAfter(p, seq, end - first));
        p.checkpoint_t[place * p.checkpoint_t_stride + head] = *t_sum;
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

HWY_EXPORT(SsdItems);

absl::Status Check(const SsdScanParams& p) {
  if (absl::Status s = CheckRows(p.rows, true, "SsdScan"); !s.ok()) return s;
  if (p.heads <= 0 || p.head_dim <= 0 || p.groups <= 0 || p.heads % p.groups != 0 ||
      p.state_dim <= 0 || p.state_dim > 256) {
    return Require(false, "SsdScan", "bad heads, groups, head_dim or state_dim (1..256)");
  }
  const int64_t inner = static_cast<int64_t>(p.heads) * p.head_dim;
  const int64_t shared = static_cast<int64_t>(p.groups) * p.state_dim;
  const bool strides = p.x_stride >= inner && p.y_stride >= inner && p.b_stride >= shared &&
                       p.c_stride >= shared && p.dt_stride >= p.heads && p.state_slot_stride >= 0 &&
                       p.t_slot_stride >= 0;
  const bool arrays =
      p.x && p.b && p.c && p.dt && p.a && p.d && p.dt_bias && p.t_sum && p.y && HasState(p);
  const bool ring = p.checkpoints.count == 0 || HasCheckpoints(p);
  if (p.checkpoints.packed != nullptr) {
    return Require(false, "SsdScan", "checkpoints cannot be packed on the CPU");
  }
  return Require(strides && arrays && ring && p.dt_lo <= p.dt_hi, "SsdScan",
                 "missing array, short stride or dt_lo > dt_hi");
}

}  // namespace

absl::Status SsdScan(const SsdScanParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  if (absl::Status s = CheckPending(p, 1, "SsdScan"); !s.ok()) return s;
  launch.For(static_cast<int64_t>(p.rows.num_seqs) * p.heads, 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SsdItems)(p, begin, end);
    if (p.pending.deferring > 0) StepDeferred(p, begin, end);
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
