// What canonical states promise, for every model of tests/golden and every property: logits and
// states have the same bits however a sequence is split, saved and restored, whatever else is in
// the batch, and on however many threads. A new architecture is covered by its golden folder.
#include <cstring>
#include <iostream>
#include <map>
#include <numeric>
#include <random>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "runtime/single_sequence.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/golden_models.h"
#include "tests/runtime/many_slots.h"

namespace anabranch {
namespace {

using testing::GoldenCase;
using testing::Logits;
using testing::ManySlots;
using testing::OutcomePtr;
using testing::Read;
using testing::StartGenerate;
using testing::StartRead;

constexpr int64_t kTokens = 300;  // crosses a KV page
constexpr int kPages = 2;

using Ids = std::vector<int32_t>;

bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Ids Part(const Ids& ids, size_t begin, size_t end) {
  return {ids.begin() + static_cast<int64_t>(begin), ids.begin() + static_cast<int64_t>(end)};
}

// One golden model, loaded once, and ways to read with it. It runs on one thread: with more,
// threads of a tiny model on a busy machine mostly wait for each other.
class Subject {
 public:
  explicit Subject(const GoldenCase& golden) : golden_(golden), model_(Load(1)) {}

  std::shared_ptr<Model> Load(int threads) const {
    LoadOptions options;
    options.dtype = golden_.dtype;
    options.num_threads = threads;
    auto model = Model::Load(testing::GoldenModelDir(golden_.model), options);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  Model& model() { return *model_; }
  int64_t vocab() const { return model_->description().vocab; }
  Ids Tokens(int64_t count, uint32_t seed) const {
    std::mt19937 random(seed);
    Ids tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab());
    return tokens;
  }

  // Logits after every token, and the state.
  struct Run {
    std::vector<float> logits;
    std::string state;
  };
  // One sequence, read in parts of the given sizes (the last one repeats).
  Run ReadInParts(const Ids& tokens, absl::Span<const int64_t> parts) {
    return ReadInParts(*model_, tokens, parts);
  }
  static Run ReadInParts(Model& model, const Ids& tokens, absl::Span<const int64_t> parts) {
    auto sequence = SingleSequence::Create(model, kTokens);
    Run run;
    for (size_t next = 0; sequence->position() < static_cast<int64_t>(tokens.size()); ++next) {
      const int64_t left = static_cast<int64_t>(tokens.size()) - sequence->position();
      const int64_t count = std::min(left, parts[std::min(next, parts.size() - 1)]);
      const auto part = sequence->Read(absl::MakeSpan(tokens).subspan(sequence->position(), count));
      EXPECT_TRUE(part.ok()) << part.status();
      run.logits.insert(run.logits.end(), part->begin(), part->end());
    }
    size_t offset = 0;
    const std::vector<uint8_t> all = *sequence->state_bytes();
    for (const StateEntry& entry : model.state_layout().entries) {
      const size_t bytes = entry.bytes() * (entry.paged() ? kPages : 1);
      const auto part = absl::MakeSpan(all).subspan(offset, bytes);
      run.state.append(part.begin(), part.end());
      offset += (bytes + 63) / 64 * 64;
    }
    return run;
  }
  absl::Span<const float> LogitsAt(const Run& run, int64_t begin, int64_t end) const {
    return absl::MakeSpan(run.logits).subspan(begin * vocab(), (end - begin) * vocab());
  }

  // Engines may share the model here, because only one of them steps at a time.
  std::unique_ptr<Engine> MakeEngine(EngineOptions options = {}) const {
    options.slots.num_slots = 16;
    options.slots.num_kv_pages = 64;
    options.slots.poison_released = true;
    auto engine = Engine::Create(model_, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  static SequencePtr SequenceOf(Engine& engine, const Ids& tokens) {
    SequencePtr sequence = *engine.NewSequence();
    EXPECT_TRUE(Read(engine, sequence, tokens).ok());
    return sequence;
  }

 private:
  const GoldenCase golden_;
  const std::shared_ptr<Model> model_;
};

// As a library keeps it: only bytes survive.
SequencePtr Restored(Engine& engine, StateImage image, const Ids& tokens) {
  const auto header = ParseStateHeader(SerializeStateHeader(image.header));
  EXPECT_TRUE(header.ok()) << header.status();
  image.header = *header;
  auto restored = engine.Restore(image, tokens);
  EXPECT_TRUE(restored.ok()) << restored.status();
  return *restored;
}

// State and last logits, bit for bit.
bool SameImage(const StateImage& a, const StateImage& b) {
  return a.header.token_count == b.header.token_count && a.payload == b.payload &&
         a.kv_blocks == b.kv_blocks && a.header.inner_sum == b.header.inner_sum;
}

void AnyChunksGiveTheSame(Subject& subject) {
  const Ids tokens = subject.Tokens(kTokens, 1);
  const auto whole = subject.ReadInParts(tokens, {kTokens});
  std::mt19937 random(2);
  std::vector<int64_t> mixed;
  for (int i = 0; i < 100; ++i) mixed.push_back(1 + random() % (i % 2 == 0 ? 3 : 40));
  for (const std::vector<int64_t>& parts :
       {std::vector<int64_t>{7}, {64}, {256}, {299, 1}, {3, 1, 2, 90}, mixed}) {
    const auto split = subject.ReadInParts(tokens, parts);
    EXPECT_TRUE(SameBits(split.logits, whole.logits)) << "parts of " << parts[0];
    EXPECT_TRUE(split.state == whole.state) << "parts of " << parts[0];
  }
}

void StepsGiveWhatOnePassGives(Subject& subject) {
  const Ids tokens = subject.Tokens(kTokens, 3);
  const auto whole = subject.ReadInParts(tokens, {kTokens});
  const auto steps = subject.ReadInParts(tokens, {1});
  EXPECT_TRUE(SameBits(steps.logits, whole.logits));
  EXPECT_TRUE(steps.state == whole.state);
}

void ThreadsDoNotMatter(Subject& subject) {
  const Ids tokens = subject.Tokens(96, 4);
  const auto serial = subject.ReadInParts(tokens, {96});
  const auto parallel = Subject::ReadInParts(*subject.Load(2), tokens, {96});
  EXPECT_TRUE(SameBits(serial.logits, parallel.logits));
  EXPECT_TRUE(serial.state == parallel.state);
}

void LaterTokensDoNotMatter(Subject& subject) {
  Ids tokens = subject.Tokens(40, 5);
  const auto first = subject.ReadInParts(tokens, {40});
  tokens[10] = static_cast<int32_t>((tokens[10] + 1) % subject.vocab());
  const auto second = subject.ReadInParts(tokens, {40});
  EXPECT_TRUE(SameBits(subject.LogitsAt(first, 0, 10), subject.LogitsAt(second, 0, 10)));
  for (int64_t at = 10; at < 40; ++at) {  // and earlier ones do
    EXPECT_FALSE(
        SameBits(subject.LogitsAt(first, at, at + 1), subject.LogitsAt(second, at, at + 1)))
        << at;
  }
  EXPECT_FALSE(first.state == second.state);
}

// Saved and restored at every position of a short text, and around a KV page and at random ones of
// a long one.
void SavedAnywhereContinuesTheSame(Subject& subject) {
  const auto engine = subject.MakeEngine();
  const auto check = [&](const Ids& tokens, size_t cut, const StateImage& expected) {
    const Ids head = Part(tokens, 0, cut);
    const auto image = engine->Capture(Subject::SequenceOf(*engine, head));
    ASSERT_TRUE(image.ok()) << image.status();
    const SequencePtr restored = Restored(*engine, *image, head);
    ASSERT_TRUE(Read(*engine, restored, Part(tokens, cut, tokens.size())).ok());
    EXPECT_TRUE(SameImage(*engine->Capture(restored), expected)) << "cut at " << cut;
  };
  const Ids some = subject.Tokens(24, 6), many = subject.Tokens(330, 7);
  const StateImage short_end = *engine->Capture(Subject::SequenceOf(*engine, some));
  for (size_t cut = 1; cut < some.size(); ++cut) check(some, cut, short_end);
  const StateImage long_end = *engine->Capture(Subject::SequenceOf(*engine, many));
  std::mt19937 random(8);
  std::vector<size_t> cuts = {255, 256, 257};
  for (int i = 0; i < 7; ++i) cuts.push_back(1 + random() % (many.size() - 1));
  for (size_t cut : cuts) check(many, cut, long_end);
}

void ACheckpointIsTheStateOfAReadEndingThere(Subject& subject) {
  const auto engine = subject.MakeEngine();
  const Ids tokens = subject.Tokens(kTokens, 9);
  std::map<int64_t, StateImage> images;
  ReadWork work;
  work.sequence = *engine->NewSequence();
  work.tokens = tokens;
  work.checkpoint_every = 48;
  work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
    ASSERT_TRUE(image.ok()) << image.status();
    images[position] = *std::move(image);
  };
  ASSERT_TRUE(StartRead(*engine, std::move(work))->Wait().ok());
  EXPECT_EQ(images.size(), 6);
  for (const auto& [position, image] : images) {
    const SequencePtr ended = Subject::SequenceOf(*engine, Part(tokens, 0, position));
    EXPECT_TRUE(SameImage(image, *engine->Capture(ended))) << position;
  }
}

// The batches of a few sequences, in which each reads a random number of tokens, in random order.
class RandomBatches {
 public:
  RandomBatches(Subject& subject, const std::vector<Ids>& tokens)
      : subject_(subject),
        tokens_(tokens),
        state_(subject.model().state_layout(), static_cast<int>(tokens.size()), kPages),
        position_(tokens.size(), 0) {}

  bool done() const {
    for (size_t s = 0; s < tokens_.size(); ++s) {
      if (position_[s] < static_cast<int64_t>(tokens_[s].size())) return false;
    }
    return true;
  }
  std::string State(int sequence) const { return state_.Bytes(sequence); }

  // Runs one batch and calls `row` with sequence, position and logits of some of its rows.
  template <class Row>
  void Step(const Row& row) {
    Batch batch;
    std::vector<int32_t> order(tokens_.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    for (int32_t s : order) Add(s, batch);
    if (batch.slots.empty()) return;
    std::vector<float> logits(batch.logit_rows.size() * subject_.vocab());
    const absl::Status status =
        subject_.model().Forward({batch.tokens, batch.row_start, batch.slots, batch.positions,
                                  batch.pages, batch.page_start, batch.logit_rows},
                                 state_.arrays(), absl::MakeSpan(logits));
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < batch.asked.size(); ++i) {
      row(batch.asked[i].first, batch.asked[i].second,
          absl::MakeSpan(logits).subspan(i * subject_.vocab(), subject_.vocab()));
    }
  }

 private:
  struct Batch {
    Ids tokens, row_start = {0}, slots, pages, page_start = {0}, logit_rows;
    std::vector<int64_t> positions;
    std::vector<std::pair<int32_t, int64_t>> asked;
  };

  void Add(int32_t s, Batch& batch) {
    const int64_t left = static_cast<int64_t>(tokens_[s].size()) - position_[s];
    if (left == 0 || random_() % 4 == 0) return;
    const int64_t rows = std::min<int64_t>(left, random_() % 2 == 0 ? 1 : 1 + random_() % 60);
    batch.slots.push_back(s);
    batch.positions.push_back(position_[s]);
    for (int64_t r = 0; r < rows; ++r, ++position_[s]) {
      if (random_() % 3 == 0) {
        batch.logit_rows.push_back(static_cast<int32_t>(batch.tokens.size()));
        batch.asked.emplace_back(s, position_[s]);
      }
      batch.tokens.push_back(tokens_[s][position_[s]]);
    }
    batch.row_start.push_back(static_cast<int32_t>(batch.tokens.size()));
    for (int p = 0; p < kPages && subject_.model().state_layout().has_kv(); ++p) {
      batch.pages.push_back(state_.Page(s, p));
    }
    batch.page_start.push_back(static_cast<int32_t>(batch.pages.size()));
  }

  Subject& subject_;
  const std::vector<Ids>& tokens_;
  ManySlots state_;
  std::vector<int64_t> position_;
  std::mt19937 random_{10};
};

void ABatchIsItsRows(Subject& subject) {
  std::vector<Ids> tokens;
  std::vector<Subject::Run> alone;
  for (int s = 0; s < 5; ++s) {
    tokens.push_back(subject.Tokens(kTokens - 20 * s, 11 + s));
    alone.push_back(subject.ReadInParts(tokens.back(), {kTokens}));
  }
  RandomBatches batches(subject, tokens);
  while (!batches.done() && !::testing::Test::HasFailure()) {
    batches.Step([&](int32_t s, int64_t at, absl::Span<const float> logits) {
      EXPECT_TRUE(SameBits(logits, subject.LogitsAt(alone[s], at, at + 1)))
          << "sequence " << s << ", position " << at;
    });
  }
  for (int s = 0; s < 5; ++s) EXPECT_TRUE(batches.State(s) == alone[s].state) << s;
}

void InterleavedWorkIsEachWorkAlone(Subject& subject) {
  EngineOptions options;
  options.max_prefill_rows = 48;
  options.max_prefill_rows_decoding = 24;
  const auto busy = subject.MakeEngine(options), quiet = subject.MakeEngine();
  std::vector<SequencePtr> sequences;
  std::vector<OutcomePtr> outcomes;
  for (int i = 0; i < 6; ++i) {
    sequences.push_back(*busy->NewSequence());
    outcomes.push_back(StartRead(*busy, sequences[i], subject.Tokens(5 + 31 * i, i)));
  }
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(outcomes[i]->Wait().ok()) << outcomes[i]->status;
    outcomes[i] = StartGenerate(*busy, sequences[i], 6 + i);
  }
  for (auto& outcome : outcomes) ASSERT_TRUE(outcome->Wait().ok()) << outcome->status;
  for (int i = 0; i < 6; ++i) {
    const SequencePtr alone = Subject::SequenceOf(*quiet, busy->Tokens(sequences[i]));
    EXPECT_EQ(Logits(*busy, sequences[i]), Logits(*quiet, alone)) << i;
  }
}

void ForksDivergeAndTheParentStays(Subject& subject) {
  const auto engine = subject.MakeEngine();
  const Ids prompt = subject.Tokens(270, 12);
  const auto after = [&](const Ids& more) {
    Ids all = prompt;
    all.insert(all.end(), more.begin(), more.end());
    return Logits(*engine, Subject::SequenceOf(*engine, all));
  };
  const SequencePtr parent = Subject::SequenceOf(*engine, prompt);
  const std::vector<float> before = Logits(*engine, parent);
  for (int32_t i = 0; i < 8; ++i) {
    const SequencePtr fork = *engine->Fork(parent);
    ASSERT_TRUE(Read(*engine, fork, {i, i + 1}).ok());
    EXPECT_EQ(Logits(*engine, fork), after({i, i + 1}));
  }
  EXPECT_EQ(Logits(*engine, parent), before);
  ASSERT_TRUE(Read(*engine, parent, {9}).ok());
  EXPECT_EQ(Logits(*engine, parent), after({9}));
}

struct Property {
  const char* name;
  void (*check)(Subject& subject);
};
constexpr Property kProperties[] = {
    {"chunks", AnyChunksGiveTheSame},
    {"steps", StepsGiveWhatOnePassGives},
    {"threads", ThreadsDoNotMatter},
    {"causal", LaterTokensDoNotMatter},
    {"restore", SavedAnywhereContinuesTheSame},
    {"checkpoint", ACheckpointIsTheStateOfAReadEndingThere},
    {"batch", ABatchIsItsRows},
    {"interleave", InterleavedWorkIsEachWorkAlone},
    {"fork", ForksDivergeAndTheParentStays},
};
void PrintTo(const Property& property, std::ostream* out) { *out << property.name; }

class Invariants : public ::testing::TestWithParam<std::tuple<GoldenCase, Property>> {
 protected:
  // Results of those that ran, by model and property.
  static inline std::map<std::string, std::map<std::string, bool>> results;

  static void TearDownTestSuite() {
    std::string table = absl::StrFormat("%-34s", "");
    for (const Property& property : kProperties)
      absl::StrAppendFormat(&table, "%11s", property.name);
    for (const auto& [model, row] : results) {
      absl::StrAppendFormat(&table, "\n%-34s", model);
      for (const Property& property : kProperties) {
        const auto found = row.find(property.name);
        const char* result = found == row.end() ? "-" : found->second ? "ok" : "FAILED";
        absl::StrAppendFormat(&table, "%11s", result);
      }
    }
    std::cout << table << std::endl;
  }
};

TEST_P(Invariants, Hold) {
  const auto& [golden, property] = GetParam();
  static std::pair<std::string, std::unique_ptr<Subject>>
      loaded;  // cases of a model are neighbours
  if (loaded.first != golden.name()) loaded = {golden.name(), std::make_unique<Subject>(golden)};
  property.check(*loaded.second);
  results[golden.name()][property.name] = !HasFailure();
}

INSTANTIATE_TEST_SUITE_P(Golden, Invariants,
                         ::testing::Combine(::testing::ValuesIn(testing::GoldenCases()),
                                            ::testing::ValuesIn(kProperties)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name() + "_" +
                                  std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace anabranch
