#include "runtime/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/quantize.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Rebind<int16_t, DF>;
using DI8 = hn::Rebind<int8_t, DF>;

// As integers, so that a NaN counts as larger than everything.
float MaxAbsOf(const float* values, int64_t count) {
  const DF d;
  const DU du;
  VU best = hn::Zero(du);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF v = hn::Abs(LoadUpTo(values + i, count - i));
    best = hn::Max(best, hn::BitCast(du, v));
  }
  const uint32_t bits = hn::GetLane(hn::MaxOfLanes(du, best));
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

void MaxAbsIntoOf(const float* values, int64_t count, float factor, float* max) {
  const DF d;
  const VF f = hn::Set(d, factor);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF v = hn::Mul(hn::Abs(LoadUpTo(values + i, count - i)), f);
    StoreUpTo(hn::Max(v, LoadUpTo(max + i, count - i)), max + i, count - i);
  }
}

float MaxAbsTimesOf(const float* values, const float* factors, int64_t count) {
  const DF d;
  VF best = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF v = hn::Abs(LoadUpTo(values + i, count - i));
    best = hn::Max(best, hn::Mul(v, LoadUpTo(factors + i, count - i)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, best));
}

double SumOfSquaresOf(const float* values, int64_t count) {
  const DF d;
  constexpr int64_t kBlock = 4096;  // summed in floats; the blocks' sums in doubles
  double sum = 0;
  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t end = std::min(count, block + kBlock);
    VF part = hn::Zero(d);
    for (int64_t i = block; i < end; i += kLanes) {
      const VF v = LoadUpTo(values + i, end - i);
      part = hn::MulAdd(v, v, part);
    }
    sum += hn::GetLane(hn::SumOfLanes(d, part));
  }
  return sum;
}

// Stores the first min(left, kLanes) codes.
template <typename D, typename V>
HWY_INLINE void StoreCodes(V codes, D d, uint8_t* to, int64_t left) {
  using T = hn::TFromD<D>;
  if (left >= kLanes) return hn::StoreU(codes, d, reinterpret_cast<T*>(to));
  alignas(64) T lanes[16];
  hn::Store(codes, d, lanes);
  std::memcpy(to, lanes, static_cast<size_t>(left) * sizeof(T));
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadCodes(D d, const uint8_t* from, int64_t left) {
  using T = hn::TFromD<D>;
  if (left >= kLanes) return hn::LoadU(d, reinterpret_cast<const T*>(from));
  alignas(64) T lanes[16] = {};
  std::memcpy(lanes, from, static_cast<size_t>(left) * sizeof(T));
  return hn::Load(d, lanes);
}

double Quantize16Of(const float* values, int64_t count, float scale, uint8_t* codes) {
  const DF d;
  const DI16 di16;
  const VF s = hn::Set(d, scale), inverse = hn::Set(d, 1 / scale);
  const VF limit = hn::Set(d, kMaxCode16), lowest = hn::Set(d, -kMaxCode16);
  VF error = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF v = LoadUpTo(values + i, count - i);
    const VF c = hn::Max(hn::Min(hn::Mul(v, inverse), limit), lowest);
    const auto code = hn::NearestInt(c);
    StoreCodes(hn::DemoteTo(di16, code), di16, codes + 2 * i, count - i);
    const VF off = hn::Sub(v, hn::Mul(hn::ConvertTo(d, code), s));
    error = hn::MulAdd(off, off, error);
  }
  return hn::GetLane(hn::SumOfLanes(d, error));
}

void Dequantize16Of(const uint8_t* codes, int64_t count, float scale, float* values) {
  const DF d;
  const VF s = hn::Set(d, scale);
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto code = LoadCodes(DI16(), codes + 2 * i, count - i);
    const VF v = hn::ConvertTo(d, hn::PromoteTo(DI32(), code));
    StoreUpTo(hn::Mul(v, s), values + i, count - i);
  }
}

double Quantize8Of(const float* values, int64_t count, float row, const float* column,
                   const float* inverse, uint8_t* codes) {
  const DF d;
  const DI8 di8;
  const VF r = hn::Set(d, row), row_inverse = hn::Set(d, 1 / row);
  const VF limit = hn::Set(d, kMaxCode8), lowest = hn::Set(d, -kMaxCode8);
  VF error = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF v = LoadUpTo(values + i, count - i);
    const VF scaled = hn::Mul(hn::Mul(v, LoadUpTo(inverse + i, count - i)), row_inverse);
    const auto code = hn::NearestInt(hn::Max(hn::Min(scaled, limit), lowest));
    StoreCodes(hn::DemoteTo(di8, code), di8, codes + i, count - i);
    const VF step = hn::Mul(r, LoadUpTo(column + i, count - i));
    const VF off = hn::Sub(v, hn::Mul(hn::ConvertTo(d, code), step));
    error = hn::MulAdd(off, off, error);
  }
  return hn::GetLane(hn::SumOfLanes(d, error));
}

void Dequantize8Of(const uint8_t* codes, int64_t count, float row, const float* column,
                   float* values) {
  const DF d;
  const VF r = hn::Set(d, row);
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto code = LoadCodes(DI8(), codes + i, count - i);
    const VF v = hn::ConvertTo(d, hn::PromoteTo(DI32(), code));
    const VF step = hn::Mul(r, LoadUpTo(column + i, count - i));
    StoreUpTo(hn::Mul(v, step), values + i, count - i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch {
namespace kernels {

HWY_EXPORT(MaxAbsOf);
HWY_EXPORT(MaxAbsIntoOf);
HWY_EXPORT(MaxAbsTimesOf);
HWY_EXPORT(SumOfSquaresOf);
HWY_EXPORT(Quantize16Of);
HWY_EXPORT(Dequantize16Of);
HWY_EXPORT(Quantize8Of);
HWY_EXPORT(Dequantize8Of);

}  // namespace kernels

using namespace kernels;  // NOLINT: the dispatch tables

float MaxAbs(const float* values, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(MaxAbsOf)(values, count);
}
void MaxAbsInto(const float* values, int64_t count, float factor, float* max) {
  HWY_DYNAMIC_DISPATCH(MaxAbsIntoOf)(values, count, factor, max);
}
float MaxAbsTimes(const float* values, const float* factors, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(MaxAbsTimesOf)(values, factors, count);
}
double SumOfSquares(const float* values, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(SumOfSquaresOf)(values, count);
}
double Quantize16(const float* values, int64_t count, float scale, void* codes) {
  return HWY_DYNAMIC_DISPATCH(Quantize16Of)(values, count, scale, static_cast<uint8_t*>(codes));
}
void Dequantize16(const void* codes, int64_t count, float scale, float* values) {
  HWY_DYNAMIC_DISPATCH(Dequantize16Of)
  (static_cast<const uint8_t*>(codes), count, scale, values);
}
double Quantize8(const float* values, int64_t count, float row, const float* column,
                 const float* inverse, void* codes) {
  return HWY_DYNAMIC_DISPATCH(Quantize8Of)(values, count, row, column, inverse,
                                           static_cast<uint8_t*>(codes));
}
void Dequantize8(const void* codes, int64_t count, float row, const float* column, float* values) {
  HWY_DYNAMIC_DISPATCH(Dequantize8Of)
  (static_cast<const uint8_t*>(codes), count, row, column, values);
}

float ScaleAbove(float value, int bits) {
  value = std::max(value, std::numeric_limits<float>::min());
  uint32_t raw;
  std::memcpy(&raw, &value, sizeof(raw));
  const uint32_t dropped = (uint32_t{1} << (24 - bits)) - 1;
  raw = (raw + dropped) & ~dropped;
  std::memcpy(&value, &raw, sizeof(raw));
  return value;
}

}  // namespace anabranch
#endif  // HWY_ONCE
