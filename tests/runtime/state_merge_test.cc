#include "runtime/state_merge.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/merge_weights.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch {
namespace {

using ::testing::DoubleNear;
using ::testing::FloatNear;
using ::testing::Pointwise;

// What context k keeps on average over all orders, by trying them all.
std::vector<double> BruteForceWeights(const std::vector<double>& transitions) {
  std::vector<int> order(transitions.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> sum(transitions.size());
  int orders = 0;
  do {
    double later = 1;
    for (size_t i = order.size(); i-- > 0;) {
      sum[order[i]] += later;
      later *= transitions[order[i]];
    }
    ++orders;
  } while (std::next_permutation(order.begin(), order.end()));
  for (double& each : sum) each /= orders;
  return sum;
}

TEST(MergeWeightsTest, EqualTheMeanOverAllOrders) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int n = 1; n <= 7; ++n) {
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<double> transitions(n), weights(n);
      for (double& p : transitions) p = trial % 3 == 0 ? random() % 2 : uniform(random);
      MergeWeights(n).Compute(transitions, absl::MakeSpan(weights));
      EXPECT_THAT(weights, Pointwise(DoubleNear(1e-12), BruteForceWeights(transitions)));
    }
  }
}

TEST(MergeWeightsTest, ManyContextsThatForgetNothingKeepAll) {
  std::vector<double> weights(64);
  MergeWeights(64).Compute(std::vector<double>(64, 1.0), absl::MakeSpan(weights));
  EXPECT_THAT(weights, ::testing::Each(DoubleNear(1, 1e-12)));
  MergeWeights(64).Compute(std::vector<double>(64, 0.0), absl::MakeSpan(weights));
  EXPECT_THAT(weights, ::testing::Each(DoubleNear(1.0 / 64, 1e-12)));
}

// Two layers like Mamba-2, whose heads decay as a whole, around one of attention (in float32 only).
struct Fixture {
  explicit Fixture(bool bf16 = false, int32_t rotary_dim = 0) {
    for (const StateEntry& entry : testing::HybridLayout(bf16).entries) {
      if (!bf16 || !entry.paged()) layout.entries.push_back(entry);
    }
    for (StateEntry& entry : layout.entries) {
      if (entry.kind == StateKind::kCumulative) {
        entry.rates = rates;
        entry.num_rates = 2;
      }
      if (entry.kind != StateKind::kKeys) continue;
      entry.rotary_dim = rotary_dim;
      entry.rope_theta = 100;
    }
  }

  // A state whose windows, logits and recurrent tensors are random; T grows with the tokens. Keys
  // and values are those of `ancestor` as far as it goes.
  StateImage Image(int64_t tokens, uint32_t seed, const StateImage* ancestor = nullptr) const {
    std::mt19937 random(seed);
    const auto value = [&] { return static_cast<float>(static_cast<int>(random() % 255) - 127); };
    StateImage image;
    image.header.fingerprint = "model";
    image.header.numerics_profile = "cpu-float32";
    image.header.token_count = tokens;
    image.header.vocab = 3;
    const auto append = [&](const void* bytes, size_t size) {
      image.payload.text().append(static_cast<const char*>(bytes), size);
    };
    const auto append_value = [&](StateDType dtype) {
      const float number = value();
      uint32_t bits;
      std::memcpy(&bits, &number, 4);
      const uint16_t half = bits >> 16;
      dtype == StateDType::kFloat32 ? append(&number, 4) : append(&half, 2);
    };
    for (const StateEntry& entry : layout.entries) {
      for (int64_t i = 0; i < entry.num_elements() && !entry.paged(); ++i) {
        if (entry.kind == StateKind::kCumulative) {
          const double t = 0.05 * tokens * (1 + i);
          append(&t, 8);
        } else {
          append_value(entry.stored_dtype);
        }
      }
    }
    for (int i = 0; i < 3; ++i) append_value(StateDType::kFloat32);
    if (layout.has_kv()) AddBlocks(image, ancestor, value);
    EXPECT_TRUE(SealState(layout, image).ok());
    return image;
  }

  // Block layout: keys of all tokens, then values; one head of two channels.
  template <typename Value>
  void AddBlocks(StateImage& image, const StateImage* ancestor, Value value) const {
    const int64_t tokens = image.header.token_count;
    for (int64_t start = 0; start < tokens; start += kKvPageTokens) {
      const int64_t count = std::min<int64_t>(tokens - start, kKvPageTokens);
      std::string block;
      for (int part = 0; part < 2; ++part) {
        for (int64_t i = 0; i < count; ++i) {
          float pair[2] = {value(), value()};
          if (ancestor != nullptr && start + i < ancestor->header.token_count) {
            std::memcpy(pair, KeyOrValue(*ancestor, start + i, part), sizeof(pair));
          }
          block.append(reinterpret_cast<const char*>(pair), sizeof(pair));
        }
      }
      image.kv_blocks.push_back(std::move(block));
    }
  }

  static const char* KeyOrValue(const StateImage& image, int64_t token, int part) {
    const int64_t start = token - token % kKvPageTokens;
    const int64_t count = std::min<int64_t>(image.header.token_count - start, kKvPageTokens);
    return image.kv_blocks[token / kKvPageTokens].data() + (part * count + token - start) * 8;
  }
  static std::vector<float> Pair(const StateImage& image, int64_t token, int part) {
    std::vector<float> pair(2);
    std::memcpy(pair.data(), KeyOrValue(image, token, part), 8);
    return pair;
  }

  template <typename T>
  static std::vector<T> Segment(const StateImage& image, int32_t layer, StateKind kind) {
    for (const StateSegment& segment : image.header.segments) {
      if (segment.layer != layer || segment.kind != kind) continue;
      std::vector<T> values(segment.bytes / sizeof(T));
      std::memcpy(values.data(), image.payload.data() + segment.offset, segment.bytes);
      return values;
    }
    return {};
  }
  static std::vector<float> Recurrent(const StateImage& image) {
    return Segment<float>(image, 2, StateKind::kRecurrent);
  }
  static std::vector<double> Cumulative(const StateImage& image) {
    return Segment<double>(image, 2, StateKind::kCumulative);
  }

  StateImage Merge(const std::vector<const StateImage*>& inputs, const StateImage* ancestor,
                   MergeMethod method, MergeNorm norm = MergeNorm::kNone) const {
    MergeOptions options;
    options.method = method;
    options.norm = norm;
    auto merged = MergeStates(layout, inputs, ancestor, options);
    EXPECT_TRUE(merged.ok()) << merged.status();
    return *std::move(merged);
  }

  static constexpr float rates[2] = {-0.3f, -0.02f};
  StateLayout layout;
};

// P of the head that an element of the recurrent tensor [2, 3, 4] belongs to.
double Transition(const Fixture&, const StateImage& image, const StateImage& ancestor, size_t i) {
  const size_t head = i / 12;
  return std::exp(Fixture::rates[head] *
                  (Fixture::Cumulative(image)[head] - Fixture::Cumulative(ancestor)[head]));
}

TEST(StateMergeTest, TwoInputsFollowTheFormulas) {
  const Fixture f;
  const StateImage o = f.Image(10, 1), a = f.Image(30, 2, &o), b = f.Image(25, 3, &o);
  const StateImage composed = f.Merge({&a, &b}, &o, MergeMethod::kCompose);
  const StateImage ordered = f.Merge({&a, &b}, &o, MergeMethod::kOrdered);
  const StateImage mean = f.Merge({&a, &b}, &o, MergeMethod::kMean);
  const std::vector<float> so = f.Recurrent(o), sa = f.Recurrent(a), sb = f.Recurrent(b);
  for (size_t i = 0; i < so.size(); ++i) {
    const double pa = Transition(f, a, o, i), pb = Transition(f, b, o, i);
    EXPECT_NEAR(f.Recurrent(composed)[i],
                ((1 + pb) * sa[i] + (1 + pa) * sb[i] - (pa + pb) * so[i]) / 2, 1e-4);
    EXPECT_NEAR(f.Recurrent(ordered)[i], pb * sa[i] + sb[i] - pb * so[i], 1e-4);
    EXPECT_NEAR(f.Recurrent(mean)[i], (sa[i] + sb[i]) / 2, 1e-4);
  }
  for (size_t head = 0; head < 2; ++head) {
    const double added = f.Cumulative(a)[head] + f.Cumulative(b)[head] - f.Cumulative(o)[head];
    EXPECT_DOUBLE_EQ(f.Cumulative(composed)[head], added);
  }
  EXPECT_EQ(f.Segment<float>(ordered, 0, StateKind::kWindow),
            f.Segment<float>(b, 0, StateKind::kWindow));
  EXPECT_EQ(composed.header.token_count, 45);
  EXPECT_EQ(composed.header.vocab, 3);
}

TEST(StateMergeTest, WindowsAndLogitsAreTheWeightedMean) {
  const Fixture f;
  const StateImage a = f.Image(30, 1), b = f.Image(25, 2);
  const auto merged = MergeStates(f.layout, {&a, &b}, nullptr, {.weights = {3, 1}});
  ASSERT_TRUE(merged.ok()) << merged.status();
  for (const auto& [layer, kind] :
       {std::pair(0, StateKind::kWindow), std::pair(kLastLogitsLayer, StateKind::kRecurrent)}) {
    const auto va = f.Segment<float>(a, layer, kind), vb = f.Segment<float>(b, layer, kind);
    std::vector<float> mean;
    for (size_t i = 0; i < va.size(); ++i) mean.push_back((3 * va[i] + vb[i]) / 4);
    EXPECT_FALSE(mean.empty());
    EXPECT_EQ(f.Segment<float>(*merged, layer, kind), mean);
  }
}

// Merging merges gives what merging all at once gives, if order is kept.
TEST(StateMergeTest, OrderedMergesNest) {
  const Fixture f;
  const StateImage a = f.Image(30, 1), b = f.Image(25, 2), c = f.Image(12, 3);
  const StateImage left = f.Merge({&a, &b}, nullptr, MergeMethod::kOrdered);
  const StateImage nested = f.Merge({&left, &c}, nullptr, MergeMethod::kOrdered);
  const StateImage flat = f.Merge({&a, &b, &c}, nullptr, MergeMethod::kOrdered);
  EXPECT_THAT(f.Recurrent(nested), Pointwise(FloatNear(1e-4f), f.Recurrent(flat)));
  EXPECT_THAT(f.Cumulative(nested), Pointwise(DoubleNear(1e-12), f.Cumulative(flat)));
  EXPECT_EQ(nested.kv_blocks, flat.kv_blocks);
}

TEST(StateMergeTest, BranchesThatReadNothingMergeToTheParent) {
  for (const bool bf16 : {false, true}) {
    const Fixture f(bf16);
    const StateImage parent = f.Image(20, 1);
    for (MergeMethod method : {MergeMethod::kCompose, MergeMethod::kOrdered, MergeMethod::kMean}) {
      const StateImage merged = f.Merge({&parent, &parent, &parent}, &parent, method);
      EXPECT_EQ(merged.payload, parent.payload);
      EXPECT_EQ(merged.kv_blocks, parent.kv_blocks);
    }
  }
}

TEST(StateMergeTest, AnInputThatAddsNothingChangesNothing) {
  const Fixture f;
  const StateImage o = f.Image(10, 1), a = f.Image(30, 2, &o);
  for (MergeMethod method : {MergeMethod::kCompose, MergeMethod::kOrdered}) {
    for (const auto& inputs : {std::vector<const StateImage*>{&a, &o}, {&o, &a}}) {
      const StateImage merged = f.Merge(inputs, &o, method);
      EXPECT_THAT(f.Recurrent(merged), Pointwise(FloatNear(1e-4f), f.Recurrent(a)));
      EXPECT_EQ(f.Cumulative(merged), f.Cumulative(a));
      EXPECT_EQ(merged.kv_blocks, a.kv_blocks);
    }
  }
}

TEST(StateMergeTest, ComposeAndMeanDoNotDependOnTheOrder) {
  const Fixture f;
  const StateImage a = f.Image(30, 1), b = f.Image(25, 2), c = f.Image(300, 3);
  for (MergeMethod method : {MergeMethod::kCompose, MergeMethod::kMean}) {
    for (MergeNorm norm : {MergeNorm::kNone, MergeNorm::kWeights, MergeNorm::kInputs}) {
      const StateImage abc = f.Merge({&a, &b, &c}, nullptr, method, norm);
      const StateImage cab = f.Merge({&c, &a, &b}, nullptr, method, norm);
      EXPECT_THAT(f.Recurrent(cab), Pointwise(FloatNear(1e-4f), f.Recurrent(abc)));
      EXPECT_THAT(f.Cumulative(cab), Pointwise(DoubleNear(1e-12), f.Cumulative(abc)));
      EXPECT_THAT(f.Segment<float>(cab, 0, StateKind::kWindow),
                  Pointwise(FloatNear(1e-4f), f.Segment<float>(abc, 0, StateKind::kWindow)));
    }
  }
}

double NormOf(absl::Span<const float> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

TEST(StateMergeTest, TheNormGuardKeepsHeadsAtTheSizeOfTheInputs) {
  const Fixture f;
  std::vector<StateImage> images;
  std::vector<const StateImage*> inputs;
  for (int i = 0; i < 8; ++i) images.push_back(f.Image(1 + i, 10 + i));
  double mean = 0;
  for (const StateImage& image : images) {
    inputs.push_back(&image);
    mean += NormOf(absl::MakeConstSpan(f.Recurrent(image)).subspan(0, 12)) / 8;
  }
  const std::vector<float> guarded =
      f.Recurrent(f.Merge(inputs, nullptr, MergeMethod::kCompose, MergeNorm::kInputs));
  EXPECT_NEAR(NormOf(absl::MakeConstSpan(guarded).subspan(0, 12)), mean, 1e-2);
}

TEST(StateMergeTest, AttentionSeesTheSharedPrefixOnceAndThenEachInput) {
  const Fixture f;
  const StateImage o = f.Image(300, 1), a = f.Image(310, 2, &o), b = f.Image(580, 3, &o);
  const StateImage merged = f.Merge({&a, &b}, &o, MergeMethod::kCompose);
  ASSERT_EQ(merged.header.token_count, 590);
  for (int part = 0; part < 2; ++part) {
    for (int64_t i = 0; i < 590; ++i) {
      const std::vector<float> expected = i < 300   ? f.Pair(o, i, part)
                                          : i < 310 ? f.Pair(a, i, part)
                                                    : f.Pair(b, i - 10, part);
      ASSERT_EQ(f.Pair(merged, i, part), expected) << i;
    }
  }
}

TEST(StateMergeTest, RotatedKeysAreTurnedToTheirNewPositions) {
  const Fixture f(/*bf16=*/false, /*rotary_dim=*/2);
  const StateImage a = f.Image(7, 1), b = f.Image(5, 2);
  const StateImage merged = f.Merge({&a, &b}, nullptr, MergeMethod::kOrdered);
  for (int64_t i = 0; i < 5; ++i) {
    const std::vector<float> before = f.Pair(b, i, 0), after = f.Pair(merged, 7 + i, 0);
    const double c = std::cos(7.0), s = std::sin(7.0);  // theta^0 = 1: seven positions
    EXPECT_NEAR(after[0], before[0] * c - before[1] * s, 1e-4);
    EXPECT_NEAR(after[1], before[1] * c + before[0] * s, 1e-4);
    EXPECT_EQ(f.Pair(merged, 7 + i, 1), f.Pair(b, i, 1)) << "values do not turn";
    EXPECT_EQ(f.Pair(merged, i, 0), f.Pair(a, i, 0));
  }
}

TEST(StateMergeTest, BadOptionsAreNamed) {
  const Fixture f;
  const StateImage a = f.Image(7, 1), b = f.Image(5, 2);
  MergeOptions options;
  options.weights = {1};
  EXPECT_THAT(std::string(MergeStates(f.layout, {&a, &b}, nullptr, options).status().message()),
              ::testing::HasSubstr("2 inputs"));
  options.weights = {1, -1};
  EXPECT_THAT(std::string(MergeStates(f.layout, {&a, &b}, nullptr, options).status().message()),
              ::testing::HasSubstr("> 0"));
  EXPECT_FALSE(MergeStates(f.layout, {}, nullptr, {}).ok());
}

}  // namespace
}  // namespace anabranch
