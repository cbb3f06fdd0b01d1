#include "kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/simd-inl.h"

// How work is cut, and why it changes no result: an output element is one accumulator that starts
// at zero and takes one fused multiply-add per k, ascending. Which rows and columns share a tile
// only decides which accumulators are in registers together.
//
// A panel holds 32 columns. Register tiles are two vectors wide, columns q .. q + kLanes and
// 16 + q .. of a panel, so that one vector of packed bfloat16 pairs widens into both with a shift
// and a mask. With 512-bit vectors one tile covers the panel.

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

// Accumulators of a tile fill the register file: 28 of 32 with AVX-512, 12 of 16 otherwise.
inline constexpr int kMaxRows = kLanes == 16 ? 14 : 6;

struct WeightsF32 {
  using Element = float;
  static constexpr int64_t kPerK = kPanelColumns;
  static HWY_INLINE void Load(const float* HWY_RESTRICT w, VF& lo, VF& hi) {
    lo = hn::LoadU(DF(), w);
    hi = hn::LoadU(DF(), w + 16);
  }
};

struct WeightsBf16 {
  using Element = uint32_t;  // columns j (low half) and j + 16 (high half)
  static constexpr int64_t kPerK = kPanelColumns / 2;
  static HWY_INLINE void Load(const uint32_t* HWY_RESTRICT w, VF& lo, VF& hi) {
    const VU v = hn::LoadU(DU(), w);
    lo = hn::BitCast(DF(), hn::ShiftLeft<16>(v));
    hi = hn::BitCast(DF(), hn::And(v, hn::Set(DU(), 0xFFFF0000u)));
  }
};

HWY_INLINE void StoreTile(const GemmParams& p, VF v, int64_t row, int64_t col) {
  const int64_t left = p.w.n - col;
  if (left <= 0) return;
  if (p.bias != nullptr) v = hn::Add(v, LoadUpTo(p.bias + col, left));
  if (p.round_to_bf16) v = RoundToBf16(v);
  StoreUpTo(v, p.y + row * p.y_stride + col, left);
}

// Rows [row, row + kRows) times panels [panel, panel + kPanels).
template <class Weights, int kRows, int kPanels>
HWY_NOINLINE void Tile(const GemmParams& p, int64_t row, int64_t panel) {
  using Element = typename Weights::Element;
  const int64_t k = p.w.k, stride = p.x_stride;
  const int64_t panel_size = k * Weights::kPerK;
  const float* HWY_RESTRICT x = p.x + row * stride;
  for (int q = 0; q < 16; q += kLanes) {
    const Element* HWY_RESTRICT w = static_cast<const Element*>(p.w.data) + panel * panel_size + q;
    VF lo[kPanels][kRows], hi[kPanels][kRows];
    HWY_UNROLL(4)
    for (int j = 0; j < kPanels; ++j) {
      HWY_UNROLL(16)
      for (int r = 0; r < kRows; ++r) lo[j][r] = hi[j][r] = hn::Zero(DF());
    }
    for (int64_t i = 0; i < k; ++i) {
      VF wl[kPanels], wh[kPanels];
      HWY_UNROLL(4)
      for (int j = 0; j < kPanels; ++j) {
        Weights::Load(w + j * panel_size + i * Weights::kPerK, wl[j], wh[j]);
      }
      HWY_UNROLL(16)
      for (int r = 0; r < kRows; ++r) {
        const VF xr = hn::Set(DF(), x[r * stride + i]);
        HWY_UNROLL(4)
        for (int j = 0; j < kPanels; ++j) {
          lo[j][r] = hn::MulAdd(xr, wl[j], lo[j][r]);
          hi[j][r] = hn::MulAdd(xr, wh[j], hi[j][r]);
        }
      }
    }
    for (int j = 0; j < kPanels; ++j) {
      const int64_t col = (panel + j) * kPanelColumns + q;
      for (int r = 0; r < kRows; ++r) {
        StoreTile(p, lo[j][r], row + r, col);
        StoreTile(p, hi[j][r], row + r, col + 16);
      }
    }
  }
}

template <class Weights>
HWY_INLINE void RowBlock(const GemmParams& p, int64_t row, int rows, int64_t panel) {
  switch (rows) {
    case 1:
      return Tile<Weights, 1, 1>(p, row, panel);
    case 2:
      return Tile<Weights, 2, 1>(p, row, panel);
    case 3:
      return Tile<Weights, 3, 1>(p, row, panel);
    case 4:
      return Tile<Weights, 4, 1>(p, row, panel);
    case 5:
      return Tile<Weights, 5, 1>(p, row, panel);
    case 6:
      return Tile<Weights, 6, 1>(p, row, panel);
    default:
      break;
  }
  if constexpr (kMaxRows > 6) {
    switch (rows) {
      case 7:
        return Tile<Weights, 7, 1>(p, row, panel);
      case 8:
        return Tile<Weights, 8, 1>(p, row, panel);
      case 9:
        return Tile<Weights, 9, 1>(p, row, panel);
      case 10:
        return Tile<Weights, 10, 1>(p, row, panel);
      case 11:
        return Tile<Weights, 11, 1>(p, row, panel);
      case 12:
        return Tile<Weights, 12, 1>(p, row, panel);
      case 13:
        return Tile<Weights, 13, 1>(p, row, panel);
      case 14:
        return Tile<Weights, 14, 1>(p, row, panel);
      default:
        break;
    }
  }
}

// Few rows: several panels at once, so that enough independent chains hide the latency of an FMA.
// Returns how many panels were done.
template <class Weights>
HWY_INLINE int64_t FewRows(const GemmParams& p, int64_t panel, int64_t panels) {
  if (p.m == 1 && panels >= 4) return Tile<Weights, 1, 4>(p, 0, panel), 4;
  if (p.m == 2 && panels >= 2) return Tile<Weights, 2, 2>(p, 0, panel), 2;
  if (p.m == 3 && panels >= 2) return Tile<Weights, 3, 2>(p, 0, panel), 2;
  return 0;
}

// Items are (panel, row chunk) pairs, chunks of one panel next to each other.
template <class Weights>
HWY_INLINE void Items(const GemmParams& p, int64_t chunk_rows, int64_t begin, int64_t end) {
  const int64_t chunks = (p.m + chunk_rows - 1) / chunk_rows;
  while (begin < end) {
    const int64_t panel = begin / chunks, chunk = begin % chunks;
    if (chunks == 1) {
      const int64_t done = FewRows<Weights>(p, panel, end - begin);
      begin += done;
      if (done > 0) continue;
    }
    const int64_t chunk_end = std::min(chunks, chunk + (end - begin));
    const int64_t row0 = chunk * chunk_rows;
    const int64_t rows = std::min(p.m, chunk_end * chunk_rows) - row0;
    const int64_t blocks = (rows + kMaxRows - 1) / kMaxRows;  // as equal as possible
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t from = rows * b / blocks, to = rows * (b + 1) / blocks;
      RowBlock<Weights>(p, row0 + from, static_cast<int>(to - from), panel);
    }
    begin += chunk_end - chunk;
  }
}

void GemmItems(const GemmParams& p, int64_t chunk_rows, int64_t begin, int64_t end) {
  if (p.w.dtype == DType::kFloat32) {
    Items<WeightsF32>(p, chunk_rows, begin, end);
  } else {
    Items<WeightsBf16>(p, chunk_rows, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(GemmItems);

// Rows that one work item of a large product covers.
constexpr int64_t kChunkRows = 14 * 8;
// Multiply-adds below which a second thread costs more than it brings.
constexpr int64_t kMinWork = 64 * 1024;

template <class T>
void Pack(const T* w, int64_t n, int64_t k, T* packed, bool pairs) {
  for (int64_t panel = 0; panel * kPanelColumns < n; ++panel) {
    T* out = packed + panel * kPanelColumns * k;
    for (int64_t j = 0; j < kPanelColumns; ++j) {
      const int64_t col = panel * kPanelColumns + j;
      const int64_t at = pairs ? (j % 16) * 2 + j / 16 : j;
      for (int64_t i = 0; i < k; ++i) {
        out[i * kPanelColumns + at] = col < n ? w[col * k + i] : T{0};
      }
    }
  }
}

absl::Status Check(const GemmParams& p) {
  if (p.m < 0 || p.w.n < 0 || p.w.k < 0) return Require(false, "Gemm", "negative size");
  if (p.m == 0 || p.w.n == 0) return absl::OkStatus();
  return Require(p.y != nullptr && p.y_stride >= p.w.n && p.x_stride >= p.w.k &&
                     (p.w.k == 0 || (p.x != nullptr && p.w.data != nullptr)),
                 "Gemm", "missing input or output, or a stride below the width");
}

}  // namespace

size_t PackedBytes(DType dtype, int64_t n, int64_t k) {
  const size_t panels = static_cast<size_t>((n + kPanelColumns - 1) / kPanelColumns);
  return panels * kPanelColumns * static_cast<size_t>(k) * (dtype == DType::kFloat32 ? 4 : 2);
}

void PackMatrix(DType dtype, const void* w, int64_t n, int64_t k, void* packed) {
  if (dtype == DType::kFloat32) {
    Pack(static_cast<const float*>(w), n, k, static_cast<float*>(packed), false);
  } else {
    Pack(static_cast<const uint16_t*>(w), n, k, static_cast<uint16_t*>(packed), true);
  }
}

absl::Status Gemm(const GemmParams& params, const Launch& launch) {
  if (absl::Status s = Check(params); !s.ok()) return s;
  if (params.m == 0 || params.w.n == 0) return absl::OkStatus();
  const int64_t panels = (params.w.n + kPanelColumns - 1) / kPanelColumns;
  const int64_t chunk_rows = std::min(params.m, kChunkRows);
  const int64_t chunks = (params.m + chunk_rows - 1) / chunk_rows;
  const int64_t work = std::max<int64_t>(1, chunk_rows * kPanelColumns * params.w.k);
  launch.For(panels * chunks, std::max<int64_t>(1, kMinWork / work),
             [&](int64_t begin, int64_t end) {
               HWY_DYNAMIC_DISPATCH(GemmItems)(params, chunk_rows, begin, end);
             });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
