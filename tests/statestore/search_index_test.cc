// The search index by itself: what is put is found by words and by embedding, each tenant its own.
#include "statestore/search_index.h"

#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class SearchIndexTest : public testing::Test {
 protected:
  SearchIndexTest() { Open(); }
  void Open() {
    index_.reset();
    auto index = SearchIndex::Open(directory_.path() + "/search");
    ASSERT_TRUE(index.ok()) << index.status();
    index_ = *std::move(index);
  }
  static IndexedState State(int token, const std::string& text, std::vector<float> embedding = {},
                            const std::string& tenant = kTenant) {
    IndexedState state;
    state.record = MakeState({token});
    state.record.tenant = tenant;
    state.record.etag = token;
    state.record.created = absl::FromUnixSeconds(token);
    state.text = text;
    state.embedding = std::move(embedding);
    return state;
  }
  void Put(std::vector<IndexedState> states, uint64_t watermark = 1) {
    ASSERT_EQ(index_->Apply(states, {}, watermark), absl::OkStatus());
  }
  static IndexFilter In(const std::string& tenant = kTenant) {
    IndexFilter filter;
    filter.tenant = tenant;
    filter.state.fingerprint = "model-a";
    return filter;
  }
  std::vector<std::string> Words(const std::string& query, const IndexFilter& filter = In()) {
    std::vector<std::string> ids;
    const auto hits = index_->FindWords(query, filter, 10);
    EXPECT_TRUE(hits.ok()) << hits.status();
    for (const IndexHit& hit : *hits) ids.push_back(hit.id);
    return ids;
  }
  std::vector<std::string> Nearest(const std::vector<float>& query, size_t limit = 10,
                                   const IndexFilter& filter = In()) {
    std::vector<std::string> ids;
    for (const IndexHit& hit : index_->FindNearest(query, filter, limit)) ids.push_back(hit.id);
    return ids;
  }
  static std::string Id(const IndexedState& state) { return state.record.id; }

  TemporaryDirectory directory_;
  std::unique_ptr<SearchIndex> index_;
};

TEST_F(SearchIndexTest, TenantsSeeNothingOfEachOther) {
  const IndexedState mine = State(1, "the grey heron", {1, 0});
  const IndexedState theirs = State(2, "the grey heron", {1, 0}, "other");
  Put({mine, theirs});
  EXPECT_THAT(Words("heron"), ElementsAre(Id(mine)));
  EXPECT_THAT(Words("heron", In("other")), ElementsAre(Id(theirs)));
  EXPECT_THAT(Words("heron", In("nobody")), IsEmpty());
  EXPECT_THAT(Nearest({1, 0}), ElementsAre(Id(mine)));
  EXPECT_EQ(index_->Count(In()), 1);
  EXPECT_THAT(*index_->Snippet({kTenant, Id(theirs)}, "heron", 8), IsEmpty());
  const double before = (*index_->FindWords("heron", In(), 1))[0].score;
  std::vector<IndexedState> more;
  for (int i = 10; i < 30; ++i) more.push_back(State(i, "swans and geese", {}, "other"));
  Put(more);
  EXPECT_EQ((*index_->FindWords("heron", In(), 1))[0].score, before)
      << "how rare a word is elsewhere shows nothing";
}

TEST_F(SearchIndexTest, StatesWithAWordAreCounted) {
  Put({State(1, "a heron, a heron"), State(2, "two Herons"), State(3, "a swan"),
       State(4, "a heron", {}, "other")});
  const auto count = [&](const std::string& word, int64_t at_most = 10) {
    const auto counted = index_->CountWith(kTenant, word, at_most);
    EXPECT_TRUE(counted.ok()) << counted.status();
    return counted.value_or(-1);
  };
  EXPECT_EQ(count("heron"), 2) << "each state once, in any inflection, of this tenant alone";
  EXPECT_EQ(count("heron", 1), 1);
  EXPECT_EQ(count("goose"), 0);
  EXPECT_EQ(count("\" AND NOT swan"), 1) << "no syntax";
  EXPECT_EQ(count("?"), 0);
  EXPECT_EQ(*index_->CountWith("nobody", "heron", 10), 0);
}

TEST_F(SearchIndexTest, WhatWasPutIsThereAfterReopening) {
  const IndexedState state = State(7, "kept words", {0.6f, 0.8f});
  Put({state, State(8, "other", {1, 0})}, 42);
  Open();
  EXPECT_EQ(index_->watermark(), 42u);
  EXPECT_EQ(index_->Etag({kTenant, Id(state)}), 7u);
  EXPECT_THAT(Words("kept"), ElementsAre(Id(state)));
  EXPECT_THAT(Nearest({0.6f, 0.8f}, 1), ElementsAre(Id(state)));
  EXPECT_EQ(*index_->Text({kTenant, Id(state)}), "kept words");
  EXPECT_EQ(index_->States().size(), 2u);
}

TEST_F(SearchIndexTest, AStateThatIsPutAgainIsReplacedAndOneRemovedIsGone) {
  const IndexedState a = State(1, "first", {1, 0}), b = State(2, "first", {0, 1});
  Put({a, b});
  IndexedState changed = a;
  changed.text = "second";
  Put({changed});
  EXPECT_THAT(Words("first"), ElementsAre(Id(b)));
  EXPECT_THAT(Words("second"), ElementsAre(Id(a)));
  EXPECT_EQ(Nearest({1, 0}).size(), 2u);
  ASSERT_EQ(index_->Apply({}, {{kTenant, Id(a)}, {kTenant, "st-unknown"}}, 3), absl::OkStatus());
  EXPECT_THAT(Words("second"), IsEmpty());
  EXPECT_THAT(Nearest({1, 0}), ElementsAre(Id(b)));
  EXPECT_EQ(index_->Etag({kTenant, Id(a)}), std::nullopt);
}

TEST_F(SearchIndexTest, ASearchThatNobodyWaitsForEndsEarly) {
  std::vector<IndexedState> states;
  for (int i = 0; i < 3000; ++i)
    states.push_back(State(i + 1, "the grey heron stood in the reeds"));
  Put(std::move(states));
  IndexFilter filter = In();
  int asked = 0;
  filter.stop = [&asked] { return ++asked > 1; };
  EXPECT_TRUE(absl::IsCancelled(index_->FindWords("heron", filter, 5000).status()));
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(index_->FindWords("heron", In(), 5000)->size(), 3000u);  // the next one is not ended
}

TEST_F(SearchIndexTest, FiltersHoldForBothKinds) {
  IndexedState red = State(10, "a kite", {1, 0}), blue = State(20, "a kite", {1, 0.1f});
  red.record.labels = {{"colour", "red"}};
  blue.record.labels = {{"colour", "blue"}, {"size", "5"}};
  Put({red, blue});
  const auto expect = [&](const IndexFilter& filter, const std::vector<std::string>& ids) {
    EXPECT_THAT(Words("kite", filter), testing::UnorderedElementsAreArray(ids));
    EXPECT_THAT(Nearest({1, 0}, 10, filter), testing::UnorderedElementsAreArray(ids));
    EXPECT_EQ(index_->Count(filter), static_cast<int64_t>(ids.size()));
  };
  IndexFilter filter = In();
  expect(filter, {Id(red), Id(blue)});
  filter.state.labels = {{"colour", "blue"}};
  expect(filter, {Id(blue)});
  filter = In();
  filter.state.created_after = absl::FromUnixSeconds(20);
  expect(filter, {Id(blue)});
  filter.state.created_before = absl::FromUnixSeconds(20);
  expect(filter, {});
  filter = In();
  const absl::flat_hash_set<std::string> ids = {Id(red)};
  filter.ids = &ids;
  expect(filter, {Id(red)});
  filter = In();
  filter.not_id = Id(red);
  expect(filter, {Id(blue)});
}

TEST_F(SearchIndexTest, WhatAllEmbeddingsShareDoesNotCount) {
  // All point far along the first axis; what tells them apart is the second and the third.
  const IndexedState a = State(1, "", {0.98f, 0.199f, 0}), b = State(2, "", {0.98f, -0.199f, 0}),
                     c = State(3, "", {0.98f, 0, 0.199f});
  Put({a, b, c});
  const auto hits = index_->FindNearest(std::vector<float>{0.995f, 0.0999f, 0}, In(), 3);
  ASSERT_EQ(hits.size(), 3u);
  EXPECT_EQ(hits[0].id, Id(a));
  EXPECT_LT(hits[2].score, 0);
  EXPECT_THAT(Nearest({1, 0}), IsEmpty()) << "of another width";
}

}  // namespace
}  // namespace anabranch
