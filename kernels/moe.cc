#include "kernels/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/check.h"

// Routing is a few operations per expert; its weights come from double precision. Experts' matrices
// go through Gemm, each over the rows that chose it: its results do not depend on which rows come
// together, so neither do these.

namespace anabranch::kernels {
namespace {

constexpr double kSumFloor = 1e-20;  // as the reference: sums of sigmoids may underflow

float RoundBf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  if (std::isnan(v)) {
    bits |= 0x00400000u;
  } else {
    bits += 0x7FFF + ((bits >> 16) & 1);
  }
  bits &= 0xFFFF0000u;
  std::memcpy(&v, &bits, sizeof(bits));
  return v;
}

double Sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

// What the experts of a row are ranked by.
void Score(const RouteParams& p, const float* logits, float* scores) {
  std::copy_n(logits, p.experts, scores);
  if (p.kind != RouterKind::kSigmoid) return;
  for (int32_t e = 0; e < p.experts; ++e) {
    scores[e] = static_cast<float>(Sigmoid(logits[e])) + (p.bias == nullptr ? 0 : p.bias[e]);
  }
}

float GroupScore(const float* scores, int32_t size) {
  float best = -std::numeric_limits<float>::infinity(), second = best;
  for (int32_t i = 0; i < size; ++i) {
    if (scores[i] > best) {
      second = best;
      best = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return best + second;
}

// Takes experts of all but the best groups out of the ranking. Those groups stay as they are, so it
// does not matter that others change while the rest is compared with them.
void LimitGroups(const RouteParams& p, float* scores) {
  if (p.groups == p.top_groups) return;
  const int32_t size = p.experts / p.groups;
  for (int32_t g = 0; g < p.groups; ++g) {
    const float own = GroupScore(scores + g * size, size);
    int32_t better = 0;
    for (int32_t other = 0; other < p.groups; ++other) {
      const float score = GroupScore(scores + other * size, size);
      better += score > own || (score == own && other < g);
    }
    if (better < p.top_groups) continue;
    std::fill_n(scores + g * size, size, -std::numeric_limits<float>::infinity());
  }
}

// One pass per choice: `chosen` is small. A NaN is never preferred to a number; where nothing else
// is left it is chosen, and shows in its weight.
void Choose(const RouteParams& p, const float* scores, int32_t* chosen) {
  for (int32_t i = 0; i < p.chosen; ++i) {
    int32_t best = -1;
    for (int32_t e = 0; e < p.experts; ++e) {
      if (std::find(chosen, chosen + i, e) != chosen + i) continue;
      const bool better = best < 0 || scores[e] > scores[best] ||
                          (std::isnan(scores[best]) && !std::isnan(scores[e]));
      if (better) best = e;
    }
    chosen[i] = best;
  }
  std::sort(chosen, chosen + p.chosen);
}

// Unnormalised weight of expert e; softmax subtracts the row's largest logit.
double RawWeight(RouterKind kind, double logit, double largest) {
  return kind == RouterKind::kSigmoid ? Sigmoid(logit) : std::exp(logit - largest);
}

void RouteRow(const RouteParams& p, int64_t row) {
  const float* logits = p.logits + row * p.experts;
  float* scores = p.scores + row * p.experts;
  int32_t* chosen = p.expert + row * p.chosen;
  Score(p, logits, scores);
  LimitGroups(p, scores);
  Choose(p, scores, chosen);
  const double largest = *std::max_element(logits, logits + p.experts);
  const auto raw = [&](int32_t e) { return RawWeight(p.kind, logits[e], largest); };
  double all = 0, some = 0;  // sums over all and over the chosen experts
  for (int32_t e = 0; e < p.experts; ++e) all += raw(e);
  for (int32_t i = 0; i < p.chosen; ++i) some += raw(chosen[i]);
  double factor = p.scale;
  if (p.kind == RouterKind::kSoftmaxThenTopK && !p.normalize) factor /= all;
  if (p.kind == RouterKind::kTopKThenSoftmax || p.normalize) factor /= some + kSumFloor;
  for (int32_t i = 0; i < p.chosen; ++i) {
    float& weight = p.weight[row * p.chosen + i];
    weight = static_cast<float>(raw(chosen[i]) * factor);
    if (p.round_to_bf16) weight = RoundBf16(weight);
  }
}

// slot[i]: where choice i (row * chosen + which) stands in the grouped order; end[e]: where the
// rows of expert e end. Expert e's rows begin at end[e - 1].
void Group(const ExpertsParams& p) {
  const int64_t choices = p.rows * p.chosen;
  std::fill_n(p.end, p.experts + 1, 0);
  for (int64_t i = 0; i < choices; ++i) ++p.end[p.expert[i] + 1];
  for (int32_t e = 0; e < p.experts; ++e) p.end[e + 1] += p.end[e];
  // Starts become ends as they are handed out, one expert to the left.
  for (int64_t i = 0; i < choices; ++i) p.slot[i] = p.end[p.expert[i]]++;
}

void Gather(const ExpertsParams& p, const Launch& launch) {
  launch.For(p.rows * p.chosen, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(p.gathered + p.slot[i] * p.width, p.x + i / p.chosen * p.width,
                  static_cast<size_t>(p.width) * sizeof(float));
    }
  });
}

absl::Status RunExpert(const ExpertsParams& p, int32_t e, const Launch& launch) {
  const int64_t begin = e == 0 ? 0 : p.end[e - 1], rows = p.end[e] - begin;
  if (rows == 0) return absl::OkStatus();
  const int64_t stride = p.gated ? 2 * p.expert_width : p.expert_width;
  float* inside = p.inside + begin * stride;
  float* outside = p.gathered + begin * p.width;
  GemmParams gemm;
  gemm.m = rows;
  gemm.x = outside;
  gemm.x_stride = p.width;
  gemm.w = p.up[e];
  gemm.y = inside;
  gemm.y_stride = stride;
  gemm.round_to_bf16 = p.round_to_bf16;
  if (absl::Status s = Gemm(gemm, launch); !s.ok()) return s;
  GatedMulParams act;
  act.rows = rows;
  act.width = p.expert_width;
  act.activation = p.activation;
  act.gate = act.y = inside;
  act.up = p.gated ? inside + p.expert_width : nullptr;
  act.in_stride = act.y_stride = stride;
  act.round_to_bf16 = p.round_to_bf16;
  if (absl::Status s = GatedMul(act, launch); !s.ok()) return s;
  gemm.x = inside;
  gemm.x_stride = stride;
  gemm.w = p.down[e];
  gemm.y = outside;
  gemm.y_stride = p.width;
  return Gemm(gemm, launch);
}

// As the reference in bfloat16: a weighted result is rounded, and so is the sum.
void Combine(const ExpertsParams& p, const Launch& launch) {
  launch.For(p.rows, RowGrain(p.width * p.chosen), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* y = p.y + row * p.width;
      std::fill_n(y, p.width, 0.0f);
      for (int64_t i = row * p.chosen; i < (row + 1) * p.chosen; ++i) {
        const float* part = p.gathered + p.slot[i] * p.width;
        const float weight = p.weight[i];
        for (int64_t c = 0; c < p.width; ++c) {
          const float product = weight * part[c];
          y[c] += p.round_to_bf16 ? RoundBf16(product) : product;
        }
      }
      if (!p.round_to_bf16) continue;
      for (int64_t c = 0; c < p.width; ++c) y[c] = RoundBf16(y[c]);
    }
  });
}

absl::Status CheckExperts(const ExpertsParams& p) {
  const bool sizes = p.rows > 0 && p.width > 0 && p.expert_width > 0 && p.experts > 0 &&
                     p.chosen > 0 && p.chosen <= p.experts &&
                     p.rows <= std::numeric_limits<int32_t>::max() / p.chosen;
  if (!sizes) return Require(false, "Experts", "a size out of range");
  const bool arrays = p.x && p.expert && p.weight && p.up && p.down && p.gathered && p.inside &&
                      p.slot && p.end && p.y;
  if (!arrays) return Require(false, "Experts", "missing array");
  for (int64_t i = 0; i < p.rows * p.chosen; ++i) {
    if (p.expert[i] < 0 || p.expert[i] >= p.experts) {
      return Require(false, "Experts", "a chosen expert out of range");
    }
  }
  const int64_t inside = p.gated ? 2 * p.expert_width : p.expert_width;
  for (int32_t e = 0; e < p.experts; ++e) {
    const bool fits = p.up[e].k == p.width && p.up[e].n == inside &&
                      p.down[e].k == p.expert_width && p.down[e].n == p.width;
    if (!fits) return Require(false, "Experts", "a matrix of another size");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Route(const RouteParams& p, const Launch& launch) {
  if (p.rows == 0) return absl::OkStatus();
  const bool sizes = p.rows > 0 && p.chosen > 0 && p.chosen <= p.experts && p.groups > 0 &&
                     p.experts % p.groups == 0 && p.top_groups > 0 && p.top_groups <= p.groups &&
                     p.chosen <= p.top_groups * (p.experts / p.groups);
  if (!sizes) return Require(false, "Route", "sizes do not fit together");
  if (p.logits == nullptr || p.scores == nullptr || p.expert == nullptr || p.weight == nullptr) {
    return Require(false, "Route", "missing array");
  }
  launch.For(p.rows, RowGrain(p.experts * p.chosen), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) RouteRow(p, row);
  });
  return absl::OkStatus();
}

absl::Status Experts(const ExpertsParams& p, const Launch& launch) {
  if (p.rows == 0) return absl::OkStatus();
  if (absl::Status s = CheckExperts(p); !s.ok()) return s;
  Group(p);
  Gather(p, launch);
  for (int32_t e = 0; e < p.experts; ++e) {
    if (absl::Status s = RunExpert(p, e, launch); !s.ok()) return s;
  }
  Combine(p, launch);
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
