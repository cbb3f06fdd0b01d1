// A state is a function of model and tokens alone: logits and states have the same bits however a
// sequence is split, whatever else is in the batch, and on however many threads.
#include "runtime/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "runtime/single_sequence.h"
#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> RandomTokens(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 257);
  return tokens;
}

bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// State of several slots, and of one run of KV pages for each.
class ManySlots {
 public:
  ManySlots(const StateLayout& layout, int slots, int pages_each)
      : layout_(layout), slots_(slots), pages_each_(pages_each) {
    for (const StateEntry& entry : layout.entries) {
      const int copies = entry.paged() ? slots * pages_each : slots;
      memory_.emplace_back(entry.bytes() * copies / sizeof(double) + 1, 0.0);
      arrays_.base.push_back(memory_.back().data());
      arrays_.stride.push_back(entry.num_elements());
    }
  }
  const StateArrays& arrays() const { return arrays_; }
  // Interleaved, so that a sequence's pages are never neighbours.
  int32_t Page(int slot, int index) const { return index * slots_ + slot; }

  // One slot's state in the order of SingleSequence, without the padding between entries.
  std::string Bytes(int slot) const {
    std::string out;
    for (size_t i = 0; i < layout_.entries.size(); ++i) {
      const StateEntry& entry = layout_.entries[i];
      const char* base = static_cast<const char*>(arrays_.base[i]);
      for (int page = 0; page < (entry.paged() ? pages_each_ : 1); ++page) {
        const int index = entry.paged() ? Page(slot, page) : slot;
        out.append(base + index * entry.bytes(), entry.bytes());
      }
    }
    return out;
  }

 private:
  const StateLayout& layout_;
  int slots_, pages_each_;
  std::vector<std::vector<double>> memory_;
  StateArrays arrays_;
};

std::string Bytes(const SingleSequence& sequence, const StateLayout& layout, int pages) {
  std::string out;
  size_t offset = 0;
  for (const StateEntry& entry : layout.entries) {
    const size_t bytes = entry.bytes() * (entry.paged() ? pages : 1);
    const auto part = sequence.state_bytes().subspan(offset, bytes);
    out.append(part.begin(), part.end());
    offset += (bytes + 63) / 64 * 64;
  }
  return out;
}

class GoldenModel : public ::testing::TestWithParam<testing::GoldenCase> {
 protected:
  static constexpr int64_t kTokens = 300;  // crosses a KV page
  static constexpr int kPages = 2;

  void SetUp() override { model_ = Load(2); }
  std::unique_ptr<Model> Load(int threads) {
    auto model =
        Model::Load(testing::GoldenModelDir(GetParam().model), {GetParam().dtype, threads});
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  // Logits and state of one sequence, read in parts of the given sizes (the last one repeats).
  std::pair<std::vector<float>, std::string> ReadInParts(Model& model,
                                                         const std::vector<int32_t>& tokens,
                                                         absl::Span<const int64_t> parts) {
    auto sequence = SingleSequence::Create(model, kTokens);
    std::vector<float> logits;
    size_t next = 0;
    while (sequence->position() < static_cast<int64_t>(tokens.size())) {
      const int64_t left = static_cast<int64_t>(tokens.size()) - sequence->position();
      const int64_t count = std::min(left, parts[std::min(next++, parts.size() - 1)]);
      const auto part = sequence->Read(absl::MakeSpan(tokens).subspan(sequence->position(), count));
      EXPECT_TRUE(part.ok()) << part.status();
      logits.insert(logits.end(), part->begin(), part->end());
    }
    return {logits, Bytes(*sequence, model.state_layout(), kPages)};
  }

  std::unique_ptr<Model> model_;
};

TEST_P(GoldenModel, SplitsDoNotChangeABit) {
  const std::vector<int32_t> tokens = RandomTokens(kTokens, 1);
  const auto whole = ReadInParts(*model_, tokens, {kTokens});
  std::mt19937 random(2);
  std::vector<int64_t> mixed;
  for (int i = 0; i < 100; ++i) mixed.push_back(1 + random() % (i % 2 == 0 ? 3 : 40));
  for (const std::vector<int64_t>& parts : {std::vector<int64_t>{1}, {7}, {256}, {299, 1}, mixed}) {
    const auto split = ReadInParts(*model_, tokens, parts);
    EXPECT_TRUE(SameBits(split.first, whole.first)) << "parts of " << parts[0];
    EXPECT_TRUE(split.second == whole.second) << "parts of " << parts[0];
  }
}

TEST_P(GoldenModel, ThreadsDoNotChangeABit) {
  const std::vector<int32_t> tokens = RandomTokens(kTokens, 3);
  const auto serial = ReadInParts(*Load(1), tokens, {64});
  const auto parallel = ReadInParts(*model_, tokens, {64});
  EXPECT_TRUE(SameBits(serial.first, parallel.first));
  EXPECT_TRUE(serial.second == parallel.second);
}

TEST_P(GoldenModel, CompanyInTheBatchDoesNotChangeABit) {
  constexpr int kSequences = 5;
  const int64_t vocab = model_->description().vocab;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::pair<std::vector<float>, std::string>> alone;
  for (int s = 0; s < kSequences; ++s) {
    tokens.push_back(RandomTokens(kTokens - 20 * s, 10 + s));
    alone.push_back(ReadInParts(*model_, tokens[s], {kTokens}));
  }
  ManySlots state(model_->state_layout(), kSequences, kPages);
  std::vector<int64_t> position(kSequences, 0);
  std::mt19937 random(4);
  while (true) {
    std::vector<int32_t> order(kSequences), batch_tokens, row_start = {0}, slots, pages,
                                                          page_start = {0}, logit_rows;
    std::vector<int64_t> positions, logit_positions;
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t s : order) {
      const int64_t left = static_cast<int64_t>(tokens[s].size()) - position[s];
      if (left == 0 || random() % 4 == 0) continue;
      const int64_t rows = std::min<int64_t>(left, random() % 2 == 0 ? 1 : 1 + random() % 60);
      slots.push_back(s);
      positions.push_back(position[s]);
      for (int64_t r = 0; r < rows; ++r) {
        if (random() % 3 == 0) {
          logit_rows.push_back(static_cast<int32_t>(batch_tokens.size()));
          logit_positions.push_back(s * 1000 + position[s] + r);
        }
        batch_tokens.push_back(tokens[s][position[s] + r]);
      }
      position[s] += rows;
      row_start.push_back(static_cast<int32_t>(batch_tokens.size()));
      if (model_->state_layout().has_kv()) {
        for (int p = 0; p < kPages; ++p) pages.push_back(state.Page(s, p));
      }
      page_start.push_back(static_cast<int32_t>(pages.size()));
    }
    if (slots.empty()) {
      bool done = true;
      for (int s = 0; s < kSequences; ++s) {
        done = done && position[s] == static_cast<int64_t>(tokens[s].size());
      }
      if (done) break;
      continue;
    }
    std::vector<float> logits(logit_rows.size() * vocab);
    const absl::Status status =
        model_->Forward({batch_tokens, row_start, slots, positions, pages, page_start, logit_rows},
                        state.arrays(), absl::MakeSpan(logits));
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < logit_positions.size(); ++i) {
      const int64_t s = logit_positions[i] / 1000, at = logit_positions[i] % 1000;
      ASSERT_TRUE(SameBits(absl::MakeSpan(logits).subspan(i * vocab, vocab),
                           absl::MakeSpan(alone[s].first).subspan(at * vocab, vocab)))
          << "sequence " << s << ", position " << at;
    }
  }
  for (int s = 0; s < kSequences; ++s) EXPECT_TRUE(state.Bytes(s) == alone[s].second) << s;
}

TEST_P(GoldenModel, EarlierTokensMatter) {
  std::vector<int32_t> tokens = RandomTokens(40, 5);
  const auto first = ReadInParts(*model_, tokens, {40});
  tokens[10] = (tokens[10] + 1) % 257;
  const auto second = ReadInParts(*model_, tokens, {40});
  const int64_t vocab = model_->description().vocab;
  const auto logits = [&](const auto& run, int64_t begin, int64_t end) {
    return absl::MakeSpan(run.first).subspan(begin * vocab, (end - begin) * vocab);
  };
  EXPECT_TRUE(SameBits(logits(first, 0, 10), logits(second, 0, 10)));
  for (int64_t at = 10; at < 40; ++at) {
    EXPECT_FALSE(SameBits(logits(first, at, at + 1), logits(second, at, at + 1))) << at;
  }
  EXPECT_FALSE(first.second == second.second);
}

TEST_P(GoldenModel, RefusesBatchesThatDoNotFitTogether) {
  const int64_t vocab = model_->description().vocab;
  ManySlots state(model_->state_layout(), 1, 1);
  std::vector<int32_t> tokens = {1, 2}, row_start = {0, 2}, slots = {0}, page_start = {0, 1},
                       pages = {0}, rows = {1};
  std::vector<int64_t> positions = {0};
  std::vector<float> logits(vocab);
  const auto run = [&] {
    return model_->Forward({tokens, row_start, slots, positions, pages, page_start, rows},
                           state.arrays(), absl::MakeSpan(logits));
  };
  EXPECT_TRUE(run().ok()) << run();
  const auto refused = [&] { return run().code() == absl::StatusCode::kInvalidArgument; };
  const auto with = [&](auto& field, auto value) {
    const auto saved = field;
    field = value;
    const bool result = refused();
    field = saved;
    return result;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_TRUE(with(tokens, Ids{1, 257}));
  EXPECT_TRUE(with(tokens, Ids{-1, 2}));
  EXPECT_TRUE(with(tokens, Ids{1}));
  EXPECT_TRUE(with(row_start, Ids{0, 3}));
  EXPECT_TRUE(with(row_start, Ids{0}));
  EXPECT_TRUE(with(slots, Ids{-1}));
  EXPECT_TRUE(with(slots, Ids{}));
  EXPECT_TRUE(with(positions, std::vector<int64_t>{-1}));
  EXPECT_TRUE(with(rows, Ids{2}));
  EXPECT_TRUE(with(rows, Ids{0, 1}));
  EXPECT_TRUE(with(logits, std::vector<float>(vocab - 1)));
  if (model_->state_layout().has_kv()) {
    EXPECT_TRUE(with(positions, std::vector<int64_t>{255}));
    EXPECT_TRUE(with(pages, Ids{-1}));
    EXPECT_TRUE(with(page_start, Ids{0, 2}));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel, ::testing::ValuesIn(testing::GoldenCases()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace anabranch
