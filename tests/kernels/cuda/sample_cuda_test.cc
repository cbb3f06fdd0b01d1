// Sampling on the device against the rules of runtime/sampler.h, written down naively. A draw may
// differ only where the target lies within rounding of the border between two tokens.
#include <algorithm>

#include "kernels/cuda/cuda_kernels.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels::cuda {
namespace {

using namespace kernels::testing;  // NOLINT: the helpers of this folder

struct Candidate {
  float logit;
  int32_t token;
  double weight;
};

// What may be drawn, in the order that the draw goes through.
std::vector<Candidate> Candidates(const Floats& logits, int32_t valid, const RowSampling& rule) {
  float best = -std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < valid; ++i) {
    if (std::isfinite(logits[i])) best = std::max(best, logits[i]);
  }
  std::vector<Candidate> out;
  for (int32_t i = 0; i < valid; ++i) {
    const float weight =
        std::isfinite(logits[i]) ? std::exp((logits[i] - best) / rule.temperature) : 0;
    if (weight > 0) out.push_back({logits[i], i, weight});
  }
  const auto by_logit = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  const bool by_count = rule.top_k > 0 && static_cast<size_t>(rule.top_k) < out.size();
  if (by_count || rule.top_p < 1) std::sort(out.begin(), out.end(), by_logit);
  if (by_count) out.resize(static_cast<size_t>(rule.top_k));
  double sum = 0, prefix = 0;
  for (const Candidate& c : out) sum += c.weight;
  for (size_t i = 0; rule.top_p < 1 && i < out.size(); ++i) {
    prefix += out[i].weight;
    if (prefix >= rule.top_p * sum) out.resize(i + 1);
  }
  out.erase(std::remove_if(out.begin(), out.end(),
                           [&](const Candidate& c) { return c.weight < rule.min_p; }),
            out.end());
  return out;
}

struct Sampled {
  std::vector<int32_t> token;
  Floats logprob;
  std::vector<int32_t> finite;
};

class SampleCudaTest : public CudaKernelTest {
 protected:
  Sampled Run(const std::vector<Floats>& rows, int32_t valid, const std::vector<RowSampling>& rules,
              DType dtype = DType::kFloat32) {
    Memory memory(Memory::Where::kDevice);
    Floats logits;
    for (const Floats& row : rows) {
      logits.insert(logits.end(), row.begin(), row.end());
      logits.push_back(1e9f);  // between rows: never looked at
    }
    SampleParams p;
    p.rows = static_cast<int64_t>(rows.size());
    p.vocab = static_cast<int32_t>(rows[0].size()), p.valid_vocab = valid;
    p.logits = memory.PutActs(logits, dtype), p.logits_stride = p.vocab + 1;
    if (!rules.empty()) {
      auto* on_device =
          static_cast<RowSampling*>(memory.Allocate(rules.size() * sizeof(RowSampling)));
      memory.Write(on_device, rules.data(), rules.size() * sizeof(RowSampling));
      p.rules = on_device;
    }
    p.token = memory.Put(std::vector<int32_t>(rows.size(), -9));
    p.logprob = memory.Put(Floats(rows.size(), kPoison));
    p.finite = memory.Put(std::vector<int32_t>(rows.size(), -9));
    const absl::Status s = Sample(p, launch_);
    EXPECT_TRUE(s.ok()) << s;
    return {memory.Get(p.token, rows.size()), memory.Get(p.logprob, rows.size()),
            memory.Get(p.finite, rows.size())};
  }

  // The token is the one whose share of [0, 1) holds the number, give or take rounding.
  void ExpectDrawn(const Floats& logits, int32_t valid, const RowSampling& rule, int32_t token) {
    const std::vector<Candidate> candidates = Candidates(logits, valid, rule);
    double sum = 0, before = 0;
    for (const Candidate& c : candidates) sum += c.weight;
    for (const Candidate& c : candidates) {
      if (c.token == token) {
        EXPECT_GE(rule.uniform * sum, before - 1e-5 * sum);
        EXPECT_LE(rule.uniform * sum, before + c.weight + 1e-5 * sum);
        return;
      }
      before += c.weight;
    }
    ADD_FAILURE() << "token " << token << " is no candidate";
  }
};

TEST_F(SampleCudaTest, GreedyTakesTheLowerOfEqualsAndNothingThatIsNotFinite) {
  Random random(1);
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<Floats> rows(5, random.Normals(3000));
  rows[0][7] = rows[0][2000] = 50;
  rows[1][0] = infinity, rows[1][1] = kPoison, rows[1][1500] = 60;
  rows[2].assign(3000, kPoison);
  rows[3][2990] = 70, rows[3][11] = 40;  // the largest is beyond the valid ones
  rows[4].assign(3000, -infinity);
  const Sampled got = Run(rows, 2980, {});
  EXPECT_EQ(got.token, (std::vector<int32_t>{7, 1500, 0, 11, 0}));
  rows[3][2999] = infinity;  // beyond the valid ones, too
  EXPECT_EQ(Run(rows, 2980, {}).finite, (std::vector<int32_t>{1, 0, 0, 0, 0}));
  for (size_t row : {0, 1}) {
    double best = -1e30, sum = 0;
    for (float v : rows[row]) {
      if (std::isfinite(v)) best = std::max<double>(best, v);
    }
    for (float v : rows[row]) {
      if (std::isfinite(v)) sum += std::exp(v - best);
    }
    const double want = rows[row][static_cast<size_t>(got.token[row])] - best - std::log(sum);
    EXPECT_NEAR(got.logprob[row], want, 1e-5 * (1 + std::abs(best)));
  }
  EXPECT_EQ(got.logprob[2], -infinity);
}

TEST_F(SampleCudaTest, DrawsByEveryRule) {
  Random random(2);
  for (int32_t vocab : {1, 3, 1000, 50'280}) {
    if (SmallShapes() && vocab > 1000) continue;
    for (float spread : {1.0f, 6.0f}) {
      std::vector<Floats> rows;
      std::vector<RowSampling> rules;
      for (int32_t top_k : {0, 1, 40, 2000}) {
        for (float top_p : {1.0f, 0.95f, 0.3f}) {
          for (float min_p : {0.0f, 0.05f}) {
            for (double uniform : {0.0, 0.5, 0.999999, static_cast<double>(random.Uniform(0, 1))}) {
              rules.push_back({random.Uniform(0.3f, 1.5f), top_k, top_p, min_p, uniform});
              rows.push_back(random.Normals(vocab, spread));
              if (vocab > 3) rows.back()[2] = kPoison;
            }
          }
        }
      }
      const Sampled got = Run(rows, std::max(1, vocab - 5), rules);
      const Sampled again = Run(rows, std::max(1, vocab - 5), rules);
      EXPECT_EQ(got.token, again.token);
      for (size_t i = 0; i < rows.size(); ++i) {
        SCOPED_TRACE(::testing::Message() << "vocab " << vocab << ", top_k " << rules[i].top_k
                                          << ", top_p " << rules[i].top_p << ", min_p "
                                          << rules[i].min_p << ", u " << rules[i].uniform);
        const int32_t valid = std::max(1, vocab - 5);
        if (got.token[i] == -1) {  // only where the 4,096 best are not enough
          RowSampling without = rules[i];
          without.min_p = 0;
          EXPECT_GT(Candidates(rows[i], valid, without).size(), size_t{kMaxCandidates} * 3 / 4);
          continue;
        }
        ExpectDrawn(rows[i], valid, rules[i], got.token[i]);
      }
    }
  }
}

TEST_F(SampleCudaTest, EqualLogitsAreRankedByIdAndTooManyGoToTheHost) {
  const std::vector<Floats> rows(3, Floats(20'000, 1.5f));
  const Sampled got = Run(rows, 20'000, {{1, 10, 1, 0, 0.55}, {1, 0, 1, 0, 0.25}, {0, 5, 1, 0, 0}});
  EXPECT_EQ(got.token, (std::vector<int32_t>{-1, 5000, 0}));
  const std::vector<Floats> few(1, Floats(3000, 1.5f));
  EXPECT_EQ(Run(few, 3000, {{1, 10, 1, 0, 0.55}}).token, std::vector<int32_t>{5});
}

}  // namespace
}  // namespace anabranch::kernels::cuda
