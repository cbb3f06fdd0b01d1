#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

namespace anabranch {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

int32_t Sample(const std::vector<float>& logits, const SamplingParams& params, int64_t position = 0,
               const std::vector<int32_t>& seen = {}) {
  return SampleToken(logits, static_cast<int32_t>(logits.size()), params, seen, position).token;
}

std::map<int32_t, int> Histogram(const std::vector<float>& logits, const SamplingParams& params,
                                 int draws) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[Sample(logits, params, i)];
  return counts;
}

SamplingParams Warm(float temperature = 1) {
  SamplingParams params;
  params.temperature = temperature;
  params.seed = 7;
  return params;
}

// Logits of the probabilities 0.4, 0.3, 0.2, 0.1 in a mixed order, shifted by a constant.
const std::vector<float> kFour = {5 + std::log(0.2f), 5 + std::log(0.4f), 5 + std::log(0.1f),
                                  5 + std::log(0.3f)};

TEST(SamplerTest, GreedyTakesTheBestAndTheLowestIdOfTies) {
  EXPECT_EQ(Sample({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(Sample(std::vector<float>(100, -2.f), {}), 0);
}

TEST(SamplerTest, PaddingRowsAreNeverChosen) {
  const std::vector<float> logits = {0, 1, 9, 9};
  EXPECT_EQ(SampleToken(logits, 2, {}, {}, 0).token, 1);
  for (int i = 0; i < 100; ++i) EXPECT_LT(SampleToken(logits, 2, Warm(), {}, i).token, 2);
  EXPECT_EQ(SampleToken(logits, 99, {}, {}, 0).token, 2);
}

TEST(SamplerTest, LogitsThatAreNotFiniteAreNeverChosen) {
  std::vector<float> logits(40, kNan);
  logits[3] = kInf;
  logits[17] = -5;
  logits[39] = -6;
  logits[20] = -kInf;
  EXPECT_EQ(Sample(logits, {}), 17);
  for (int i = 0; i < 100; ++i) {
    const SampledToken sampled = SampleToken(logits, 40, Warm(), {}, i);
    EXPECT_TRUE(sampled.token == 17 || sampled.token == 39);
    EXPECT_TRUE(std::isfinite(sampled.logprob));
  }
}

TEST(SamplerTest, WithoutAnyFiniteLogitTokenZeroComesWithoutProbability) {
  const std::vector<float> logits(5, kNan);
  for (const SamplingParams& params : {SamplingParams{}, Warm()}) {
    const SampledToken sampled = SampleToken(logits, 5, params, {}, 0);
    EXPECT_EQ(sampled.token, 0);
    EXPECT_EQ(sampled.logprob, -kInf);
  }
  EXPECT_EQ(SampleToken({}, 0, Warm(), {}, 0).token, 0);
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  const auto counts = Histogram(kFour, Warm(), 20'000);
  const double expected[] = {4000, 8000, 2000, 6000};
  double chi_square = 0;
  for (int32_t token = 0; token < 4; ++token) {
    const double off = counts.at(token) - expected[token];
    chi_square += off * off / expected[token];
  }
  EXPECT_LT(chi_square, 16.3);  // 3 degrees of freedom: exceeded once in a thousand seeds
}

TEST(SamplerTest, TemperatureSharpensAndFlattens) {
  const int cold = Histogram(kFour, Warm(0.25f), 4000)[1];
  const int warm = Histogram(kFour, Warm(4), 4000)[1];
  EXPECT_NEAR(cold, 4000 * 0.0256 / (0.0256 + 0.0081 + 0.0016 + 0.0001), 150);
  EXPECT_NEAR(warm, 4000 * 0.795 / (0.795 + 0.740 + 0.669 + 0.562), 150);
  EXPECT_EQ(Histogram(kFour, Warm(1e-30f), 50).size(), 1u);
}

TEST(SamplerTest, TheSameSeedAndPositionDrawTheSameToken) {
  std::set<int32_t> by_position, by_seed;
  for (int i = 0; i < 50; ++i) {
    SamplingParams params = Warm();
    EXPECT_EQ(Sample(kFour, params, i), Sample(kFour, params, i));
    by_position.insert(Sample(kFour, params, i));
    params.seed = static_cast<uint64_t>(i);
    by_seed.insert(Sample(kFour, params, 0));
  }
  EXPECT_GT(by_position.size(), 2u);
  EXPECT_GT(by_seed.size(), 2u);
}

std::set<int32_t> Drawn(const std::vector<float>& logits, const SamplingParams& params) {
  std::set<int32_t> tokens;
  for (const auto& [token, count] : Histogram(logits, params, 3000)) tokens.insert(token);
  return tokens;
}

TEST(SamplerTest, TopKKeepsTheBest) {
  SamplingParams params = Warm();
  params.top_k = 2;
  EXPECT_EQ(Drawn(kFour, params), (std::set<int32_t>{1, 3}));
  params.top_k = 1;
  EXPECT_EQ(Drawn({2, 2, 2}, params), (std::set<int32_t>{0}));
  params.top_k = 1000;
  EXPECT_EQ(Drawn(kFour, params).size(), 4u);
}

TEST(SamplerTest, TopPKeepsTheSmallestPrefixThatReachesIt) {
  SamplingParams params = Warm();
  const std::pair<float, std::set<int32_t>> cases[] = {
      {0.01f, {1}},       {0.39f, {1}},       {0.41f, {1, 3}},      {0.69f, {1, 3}},
      {0.71f, {0, 1, 3}}, {0.89f, {0, 1, 3}}, {0.91f, {0, 1, 2, 3}}};
  for (const auto& [top_p, kept] : cases) {
    params.top_p = top_p;
    EXPECT_EQ(Drawn(kFour, params), kept) << top_p;
  }
  params.top_k = 2;  // top-p is of what top-k left: 4/7 and 3/7
  params.top_p = 0.5f;
  EXPECT_EQ(Drawn(kFour, params), (std::set<int32_t>{1}));
}

TEST(SamplerTest, TopPOfAFlatDistributionKeepsItsShare) {
  SamplingParams params = Warm();
  params.top_p = 0.5f;
  const std::vector<float> logits(3000, 1.f);
  int32_t highest = 0;
  for (int i = 0; i < 300; ++i) highest = std::max(highest, Sample(logits, params, i));
  EXPECT_LT(highest, 1500);  // ties: the lowest ids are kept
  EXPECT_GT(highest, 1400);  // but all of them
}

TEST(SamplerTest, MinPIsRelativeToTheBest) {
  SamplingParams params = Warm();
  params.min_p = 0.6f;
  EXPECT_EQ(Drawn(kFour, params), (std::set<int32_t>{1, 3}));
  params.min_p = 0.45f;
  EXPECT_EQ(Drawn(kFour, params), (std::set<int32_t>{0, 1, 3}));
}

TEST(SamplerTest, RepetitionPenaltyPunishesSeenTokensOnce) {
  SamplingParams params;
  params.repetition_penalty = 2;
  EXPECT_EQ(Sample({4, 3, 1}, params, 0, {0, 0, 0}), 1);   // 4 becomes 2
  EXPECT_EQ(Sample({4, 1, 1}, params, 0, {0, 0, 0}), 0);   // 2, not 0.5
  EXPECT_EQ(Sample({-2, -3}, params, 0, {0, -7, 99}), 1);  // -2 becomes -4
}

TEST(SamplerTest, LogprobsAreTheModelsOwn) {
  SamplingParams params = Warm(3);
  params.top_k = 1;
  params.repetition_penalty = 1.5f;
  params.top_logprobs = 3;
  const SampledToken sampled = SampleToken(kFour, 4, params, std::vector<int32_t>{2}, 0);
  EXPECT_EQ(sampled.token, 1);
  EXPECT_NEAR(sampled.logprob, std::log(0.4), 1e-5);
  ASSERT_EQ(sampled.top.size(), 3u);
  EXPECT_EQ(sampled.top[0].token, 1);
  EXPECT_EQ(sampled.top[1].token, 3);
  EXPECT_EQ(sampled.top[2].token, 0);
  EXPECT_NEAR(sampled.top[2].logprob, std::log(0.2), 1e-5);
}

TEST(SamplerTest, LogprobsAreRightForLargeVocabulariesAndLogits) {
  std::vector<float> logits(130'003);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 1000 + 10 * std::sin(static_cast<float>(i));
    sum += std::exp(double{logits[i]} - 1000);
  }
  for (const int32_t token : {0, 1, 1023, 1024, 130'002}) {
    EXPECT_NEAR(TokenLogprobOf(logits, token), logits[token] - 1000 - std::log(sum), 2e-4);
  }
  EXPECT_EQ(TokenLogprobOf(logits, -1), -kInf);
  EXPECT_EQ(TokenLogprobOf(logits, 130'003), -kInf);
  // Far below zero, where the zeros behind the end of the last vector would be the largest.
  EXPECT_NEAR(TokenLogprobOf(std::vector<float>(19, -500.f), 18), -std::log(19.0), 1e-4);
}

TEST(SamplerTest, ParamsOutOfRangeNameTheirField) {
  const auto error_of = [](auto change) {
    SamplingParams params;
    change(params);
    const absl::Status status = ValidateSamplingParams(params);
    return status.ok() ? std::string("accepted") : std::string(status.message());
  };
  using P = SamplingParams;
  EXPECT_TRUE(ValidateSamplingParams({}).ok());
  for (const float bad : {-0.1f, 10.5f, kNan, kInf}) {
    EXPECT_EQ(error_of([&](P& p) { p.temperature = bad; }).find("temperature"), 0u) << bad;
  }
  for (const float bad : {0.f, -1.f, 1.1f, kNan}) {
    EXPECT_EQ(error_of([&](P& p) { p.top_p = bad; }).find("top_p"), 0u) << bad;
  }
  for (const float bad : {-0.1f, 1.f, kNan}) {
    EXPECT_EQ(error_of([&](P& p) { p.min_p = bad; }).find("min_p"), 0u) << bad;
  }
  for (const float bad : {0.5f, kNan, kInf}) {
    EXPECT_EQ(error_of([&](P& p) { p.repetition_penalty = bad; }).find("repetition_penalty"), 0u);
  }
  EXPECT_EQ(error_of([](P& p) { p.top_k = -1; }).find("top_k"), 0u);
  EXPECT_EQ(error_of([](P& p) { p.top_logprobs = 21; }).find("top_logprobs"), 0u);
}

}  // namespace
}  // namespace anabranch
