// Spans, forgetting and decay of real states: of every golden model, against their definitions in
// double, and against each other.
#include "runtime/state_algebra.h"

#include <cmath>
#include <cstring>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/state_diff.h"
#include "runtime/state_merge.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using testing::GoldenCase;

constexpr int64_t kBegin = 40, kCut = 270, kEnd = 300;  // the span crosses a KV page

template <typename T>
std::vector<T> Values(const StateImage& image, const StateSegment& segment) {
  std::vector<T> values(segment.bytes / sizeof(T));
  std::memcpy(values.data(), image.payload.data() + segment.offset, segment.bytes);
  return values;
}

// A golden model that has read kEnd tokens, with its states on the way.
class StateAlgebraTest : public ::testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    const GoldenCase& golden = GetParam();
    LoadOptions load;
    load.dtype = golden.dtype;
    load.num_threads = 1;
    auto model = Model::Load(testing::GoldenModelDir(golden.model), load);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    EngineOptions options;
    options.slots.num_slots = 4;
    options.slots.num_kv_pages = 16;
    engine_ = *Engine::Create(model_, options);
    std::mt19937 random(1);
    for (int i = 0; i < kEnd; ++i) {
      tokens_.push_back(static_cast<int32_t>(random() % model_->description().vocab));
    }
    begin_ = At(kBegin);
    cut_ = At(kCut);
    end_ = At(kEnd);
  }
  StateImage At(int64_t position) const { return Read(0, position); }
  StateImage Read(int64_t from, int64_t to) const {
    const SequencePtr sequence = *engine_->NewSequence();
    EXPECT_TRUE(
        testing::Read(*engine_, sequence, {tokens_.begin() + from, tokens_.begin() + to}).ok());
    return *engine_->Capture(sequence);
  }
  const StateLayout& layout() const { return model_->state_layout(); }

  // What the formula sum_k sign_k exp(A (T - T_k)) S_k gives, element by element.
  using Terms = std::vector<std::pair<const StateImage*, double>>;
  // `added` is a state with a T of its own, which counts as it is.
  void ExpectRecurrent(const StateImage& actual, const Terms& terms, double aging = 0,
                       const StateImage* added = nullptr) const {
    int tensors = 0;
    for (const StateSegment& segment : actual.header.segments) {
      if (segment.kind != StateKind::kRecurrent || segment.layer == kLastLogitsLayer) continue;
      ++tensors;
      const StateEntry* t_entry = nullptr;
      for (const StateEntry& entry : layout().entries) {
        if (entry.layer == segment.layer && entry.kind == StateKind::kCumulative) t_entry = &entry;
      }
      const StateSegment* t = nullptr;
      for (const StateSegment& each : actual.header.segments) {
        if (each.layer == segment.layer && each.kind == StateKind::kCumulative) t = &each;
      }
      ASSERT_TRUE(t_entry != nullptr && t != nullptr);
      const std::vector<float> out = Values<float>(actual, segment);
      const std::vector<double> now = Values<double>(*terms.front().first, *t);
      const int64_t groups = t_entry->num_elements(), size = out.size() / groups;
      const int64_t rates = t_entry->num_rates / groups;
      std::vector<double> sum(out.size()), scale(out.size(), 1);
      for (const auto& [image, sign] : terms) {
        const std::vector<float> in = Values<float>(*image, segment);
        const std::vector<double> then = Values<double>(*image, *t);
        for (size_t i = 0; i < out.size(); ++i) {
          const int64_t g = static_cast<int64_t>(i) / size, r = static_cast<int64_t>(i) % rates;
          const double age = now[g] * (1 + aging) - then[g];
          const double term = std::exp(t_entry->rates[g * rates + r] * age) * in[i];
          sum[i] += sign * term;
          scale[i] = std::max(scale[i], std::abs(term));
        }
      }
      const std::vector<float> more =
          added == nullptr ? std::vector<float>(out.size()) : Values<float>(*added, segment);
      for (size_t i = 0; i < out.size(); ++i) {
        scale[i] = std::max<double>(scale[i], std::abs(more[i]));
        ASSERT_NEAR(out[i], sum[i] + more[i], 1e-5 * scale[i]) << "layer " << segment.layer;
      }
    }
    EXPECT_GT(tensors, 0);
  }
  // Of every element of every tensor: |a - b| against the larger of the two tensors' norms.
  void ExpectSame(const StateImage& a, const StateImage& b, double tolerance) const {
    const auto distances = DiffStates(layout(), a, b);
    ASSERT_TRUE(distances.ok()) << distances.status();
    for (const TensorDistance& tensor : *distances) {
      EXPECT_LT(tensor.whole.relative_l2, tolerance)
          << "layer " << tensor.layer << " kind " << static_cast<int>(tensor.kind);
    }
    EXPECT_EQ(a.header.token_count, b.header.token_count);
    for (const StateSegment& segment : a.header.segments) {
      if (segment.kind != StateKind::kCumulative) continue;
      const std::vector<double> ta = Values<double>(a, segment), tb = Values<double>(b, segment);
      for (size_t i = 0; i < ta.size(); ++i) EXPECT_NEAR(ta[i], tb[i], 1e-9 * (1 + tb[i]));
    }
  }
  static void ExpectSameWindows(const StateImage& a, const StateImage& b) {
    for (const StateSegment& segment : a.header.segments) {
      if (segment.kind != StateKind::kWindow) continue;
      EXPECT_EQ(Values<char>(a, segment), Values<char>(b, segment)) << "layer " << segment.layer;
    }
  }
  double KeyTolerance() const {  // turned keys are rounded to bfloat16 again
    return GetParam().dtype == kernels::DType::kBFloat16 ? 1e-2 : 1e-5;
  }
  absl::Status Check(const StateImage& image) const {
    return CheckState(image, layout(), model_->fingerprint(), model_->numerics_profile());
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
  StateImage begin_, cut_, end_;
};

TEST_P(StateAlgebraTest, SpansForgettingAndDecayEqualTheirDefinitions) {
  const auto span = SpanState(layout(), &begin_, cut_);
  ASSERT_TRUE(span.ok()) << span.status();
  EXPECT_EQ(Check(*span), absl::OkStatus());
  EXPECT_EQ(span->header.token_count, kCut - kBegin);
  ExpectRecurrent(*span, {{&cut_, 1}, {&begin_, -1}});
  ExpectSameWindows(*span, cut_);

  const auto without = ForgetSpan(layout(), &begin_, cut_, end_);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(Check(*without), absl::OkStatus());
  EXPECT_EQ(without->header.token_count, kBegin + kEnd - kCut);
  ExpectRecurrent(*without, {{&end_, 1}, {&cut_, -1}, {&begin_, 1}});
  ExpectSameWindows(*without, end_);

  const auto aged = DecayState(layout(), end_, 0.5);
  ASSERT_TRUE(aged.ok()) << aged.status();
  EXPECT_EQ(Check(*aged), absl::OkStatus());
  ExpectRecurrent(*aged, {{&end_, 1}}, 0.5);
  EXPECT_EQ(aged->kv_blocks, end_.kv_blocks);
}

TEST_P(StateAlgebraTest, ASpanPutBackBehindWhatCameBeforeIsTheState) {
  const StateImage span = *SpanState(layout(), &begin_, end_);
  MergeOptions ordered;
  ordered.method = MergeMethod::kOrdered;
  const auto whole = MergeStates(layout(), {&begin_, &span}, nullptr, ordered);
  ASSERT_TRUE(whole.ok()) << whole.status();
  ExpectSame(*whole, end_, KeyTolerance());
  ExpectSameWindows(*whole, end_);
}

// The state before, with the time of the span passed, and its own window: nothing of the span.
TEST_P(StateAlgebraTest, ForgettingTheLastSpanIsTheEarlierStateDecayed) {
  const StateImage forgotten = *ForgetSpan(layout(), &begin_, end_, end_);
  ExpectSameWindows(forgotten, begin_);
  EXPECT_EQ(forgotten.kv_blocks, begin_.kv_blocks);
  for (const StateSegment& segment : begin_.header.segments) {
    if (segment.layer == kLastLogitsLayer) {
      EXPECT_EQ(Values<float>(forgotten, segment), Values<float>(begin_, segment));
    } else if (segment.kind == StateKind::kCumulative) {
      EXPECT_EQ(Values<double>(forgotten, segment), Values<double>(end_, segment));
    }
  }
  ExpectRecurrent(forgotten, {{&end_, 0}, {&begin_, 1}});
}

TEST_P(StateAlgebraTest, ForgettingEverythingBeforeASpanLeavesTheSpan) {
  StateImage rest = *ForgetSpan(layout(), nullptr, cut_, end_);
  const StateImage span = *SpanState(layout(), &cut_, end_);
  EXPECT_EQ(rest.kv_blocks, span.kv_blocks);
  ExpectSameWindows(rest, span);
  for (const StateSegment& segment : span.header.segments) {
    if (segment.kind != StateKind::kRecurrent) continue;
    EXPECT_EQ(Values<float>(rest, segment), Values<float>(span, segment));
  }
}

TEST_P(StateAlgebraTest, TheSpanOfAWholeContextIsItsState) {
  const StateImage whole = *SpanState(layout(), nullptr, end_);
  EXPECT_EQ(whole.payload, end_.payload);
  EXPECT_EQ(whole.kv_blocks, end_.kv_blocks);
}

TEST_P(StateAlgebraTest, DecayAddsUpAndNoneChangesNothing) {
  EXPECT_EQ(DecayState(layout(), end_, 0)->payload, end_.payload);
  const StateImage once = *DecayState(layout(), end_, 0.75);  // 0.5, then a quarter of the first
  const StateImage twice = *DecayState(layout(), *DecayState(layout(), end_, 0.5), 0.25 / 1.5);
  ExpectSame(twice, once, 1e-6);
}

// A fork that has aged counts what it shares with the other only as much as it still holds.
TEST_P(StateAlgebraTest, AnAgedForkMergesAsOneThatHasReadOn) {
  const StateImage aged = *DecayState(layout(), begin_, 2);
  MergeOptions ordered;
  ordered.method = MergeMethod::kOrdered;
  const auto merged = MergeStates(layout(), {&end_, &aged}, &begin_, ordered);
  ASSERT_TRUE(merged.ok()) << merged.status();
  // Nothing was added by the second input: the first one, with that much time passed.
  ExpectRecurrent(*merged, {{&*merged, 0}, {&end_, 1}});
}

TEST_P(StateAlgebraTest, AWindowHoldsNothingOfAForgottenSpan) {
  const StateImage near = At(kEnd - 1), before = At(kEnd - 6);
  const StateImage forgotten = *ForgetSpan(layout(), &before, near, end_);
  const StateImage span = *SpanState(layout(), &near, end_);
  for (const StateSegment& segment : end_.header.segments) {
    if (segment.kind != StateKind::kWindow) continue;
    const size_t row = segment.bytes / segment.shape[0];
    const std::vector<char> out = Values<char>(forgotten, segment);
    const std::vector<char> old = Values<char>(before, segment);
    const std::vector<char> last = Values<char>(end_, segment);
    EXPECT_TRUE(std::equal(out.begin(), out.end() - row, old.begin() + row));
    EXPECT_TRUE(std::equal(out.end() - row, out.end(), last.end() - row));
    const std::vector<char> alone = Values<char>(span, segment);
    EXPECT_EQ(std::vector<char>(alone.begin(), alone.end() - row),
              std::vector<char>(segment.bytes - row));
  }
}

TEST_P(StateAlgebraTest, StatesDifferByWhatOneHasRead) {
  const auto same = DiffStates(layout(), end_, end_);
  const auto different = DiffStates(layout(), begin_, end_);
  ASSERT_TRUE(same.ok() && different.ok());
  ASSERT_EQ(same->size(), different->size());
  for (size_t i = 0; i < same->size(); ++i) {
    EXPECT_EQ((*same)[i].whole.relative_l2, 0);
    EXPECT_NEAR((*same)[i].whole.cosine, 1, 1e-12);
    const Distance& whole = (*different)[i].whole;
    EXPECT_GT(whole.relative_l2, 0);
    EXPECT_LT(whole.cosine, 1);
    double sum = 0;
    for (const Distance& part : (*different)[i].parts) sum += part.norm_b * part.norm_b;
    EXPECT_NEAR(std::sqrt(sum), whole.norm_b, 1e-6 * whole.norm_b);
  }
}

TEST_P(StateAlgebraTest, BadSpansAreRefused) {
  EXPECT_FALSE(SpanState(layout(), &end_, begin_).ok());
  EXPECT_FALSE(SpanState(layout(), &end_, end_).ok());
  EXPECT_FALSE(ForgetSpan(layout(), &begin_, end_, cut_).ok());
  EXPECT_EQ(ForgetSpan(layout(), nullptr, end_, end_).status().message(), "nothing would be left");
  EXPECT_FALSE(DecayState(layout(), end_, -1).ok());
  EXPECT_FALSE(DecayState(layout(), end_, std::nan("")).ok());
}

// What merging promises, on states that models have made.
TEST_P(StateAlgebraTest, AnEmptyContextMergesToNothing) {
  const StateImage empty = *engine_->Capture(*engine_->NewSequence());
  for (MergeMethod method : {MergeMethod::kCompose, MergeMethod::kOrdered, MergeMethod::kMean}) {
    MergeOptions options;
    options.method = method;
    for (const auto& inputs : {std::vector<const StateImage*>{&end_, &empty}, {&empty, &end_}}) {
      const auto merged = MergeStates(layout(), inputs, nullptr, options);
      ASSERT_TRUE(merged.ok()) << merged.status();
      EXPECT_EQ(merged->payload, end_.payload);
      EXPECT_EQ(merged->kv_blocks, end_.kv_blocks);
    }
  }
}

TEST_P(StateAlgebraTest, ComposeAndMeanDoNotDependOnTheOrder) {
  const StateImage other = Read(100, 200), third = Read(kCut, kEnd);
  for (MergeMethod method : {MergeMethod::kCompose, MergeMethod::kMean}) {
    MergeOptions options;
    options.method = method;
    StateImage one = *MergeStates(layout(), {&begin_, &other, &third}, nullptr, options);
    const StateImage two = *MergeStates(layout(), {&third, &begin_, &other}, nullptr, options);
    one.kv_blocks = two.kv_blocks;  // attention finds the inputs in the order given
    ExpectSame(one, two, 1e-6);
  }
}

// What a session that reads on from one base does when it is put on another, and back.
TEST_P(StateAlgebraTest, OnAnotherBaseAndBackIsTheState) {
  MergeOptions ordered, half;
  ordered.method = MergeMethod::kOrdered;
  half.weights = {1, 0.5};
  const StateImage skill = Read(100, 230), persona = Read(60, 90);
  const StateImage base = *MergeStates(layout(), {&begin_, &skill}, nullptr, half);
  const StateImage other = *MergeStates(layout(), {&begin_, &persona}, nullptr, half);
  std::vector<int32_t> tokens(tokens_.begin(), tokens_.begin() + base.header.token_count);
  for (int64_t count : {1, 40}) {
    const SequencePtr sequence = *engine_->Restore(base, tokens);
    EXPECT_TRUE(testing::Read(*engine_, sequence, {tokens_.begin(), tokens_.begin() + count}).ok());
    const StateImage end = *engine_->Capture(sequence);
    const StateImage own = *SpanState(layout(), &base, end);
    const StateImage swapped = *MergeStates(layout(), {&other, &own}, nullptr, ordered);
    EXPECT_EQ(Check(swapped), absl::OkStatus());
    // Its T is that of the new base and of what was read: the definition, term by term.
    ExpectRecurrent(swapped, {{&swapped, 0}, {&other, 1}}, 0, &own);
    const StateImage again = *SpanState(layout(), &other, swapped);
    const StateImage back = *MergeStates(layout(), {&base, &again}, nullptr, ordered);
    ExpectSame(back, end, KeyTolerance());
    ExpectSameWindows(back, end);
  }
}

TEST_P(StateAlgebraTest, MergesOfMergesKeepOrderAndTime) {
  const StateImage a = Read(0, 30), b = Read(50, 95), c = Read(100, 130), d = Read(200, 290);
  MergeOptions ordered;
  ordered.method = MergeMethod::kOrdered;
  const StateImage ab = *MergeStates(layout(), {&a, &b}, nullptr, ordered);
  const StateImage cd = *MergeStates(layout(), {&c, &d}, nullptr, ordered);
  const StateImage nested = *MergeStates(layout(), {&ab, &cd}, nullptr, ordered);
  const StateImage flat = *MergeStates(layout(), {&a, &b, &c, &d}, nullptr, ordered);
  ExpectSame(nested, flat, KeyTolerance());
}

INSTANTIATE_TEST_SUITE_P(Golden, StateAlgebraTest, ::testing::ValuesIn(testing::GoldenCases()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace anabranch
