// What the library keeps and gives back: states, refs, sessions, logs, answers, listings.
#include "statestore/state_store.h"

#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StateStoreTest : public LibraryTest {};

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kAborted = absl::StatusCode::kAborted;

PutState PutWithBlobs(std::vector<int32_t> span, std::vector<std::string> hashes,
                      std::vector<std::string> blobs) {
  PutState put = Put(MakeState(std::move(span)));
  put.record.blob_hashes = std::move(hashes);
  put.blobs = std::move(blobs);
  return put;
}

std::vector<std::string> Ids(const Page<StateRecord>& page) {
  std::vector<std::string> ids;
  for (const StateRecord& record : page.items) ids.push_back(record.id);
  return ids;
}

TEST_F(StateStoreTest, StateSurvivesReopenWithEveryField) {
  StateRecord root = MakeState({1, 2, 3});
  root.labels = {{"topic", "rivers"}, {"empty", ""}};
  root.created = absl::FromUnixNanos(1700000000123456789);
  root.expires = absl::FromUnixSeconds(1800000000);
  root.pinned = true;
  const std::string payload(100000, 'p');
  ASSERT_EQ(Commit(Put(root, payload)), absl::OkStatus());
  Reopen();
  const absl::StatusOr<StateRecord> got = store_->GetState(kTenant, root.id);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->id, root.id);
  EXPECT_EQ(got->tenant, kTenant);
  EXPECT_EQ(got->fingerprint, root.fingerprint);
  EXPECT_EQ(got->numerics_profile, root.numerics_profile);
  EXPECT_EQ(got->span_tokens, root.span_tokens);
  EXPECT_EQ(got->token_count, 3);
  EXPECT_EQ(got->header, "header");
  EXPECT_EQ(got->labels, root.labels);
  EXPECT_EQ(got->created, root.created);
  EXPECT_EQ(got->expires, root.expires);
  EXPECT_TRUE(got->pinned);
  EXPECT_EQ(got->payload_bytes, payload.size());
  EXPECT_EQ(store_->GetPayload(kTenant, root.id).value(), payload);
}

TEST_F(StateStoreTest, OtherTenantsSeeNothing) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root), SetRef{kTenant, "main", root.id, {}}, NewSession("chat")),
            absl::OkStatus());
  EXPECT_THAT(store_->GetState("acm", root.id).status(), FailsWith(kNotFound, root.id));
  EXPECT_THAT(store_->GetPayload("other", root.id).status(), FailsWith(kNotFound, root.id));
  EXPECT_THAT(store_->GetRef("other", "main").status(), FailsWith(kNotFound, "main"));
  EXPECT_THAT(store_->GetSession("other", "chat").status(), FailsWith(kNotFound, "chat"));
  EXPECT_THAT(store_->ListStates("acm", {}, {})->items, IsEmpty());
  EXPECT_THAT(store_->ListRefs("acm", "", {})->items, IsEmpty());
  EXPECT_FALSE(
      store_->FindPrefix("other", "model-a", "cpu-float32", {1}, PrefixKind::kAny)->has_value());
  EXPECT_THAT(store_->GetState(std::string("acme\0", 5), root.id).status(),
              FailsWith(kInvalid, "tenant"));
}

TEST_F(StateStoreTest, PuttingAStateAgainChangesNothing) {
  StateRecord root = MakeState({1, 2});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  const StateRecord first = store_->GetState(kTenant, root.id).value();
  root.labels = {{"later", "yes"}};
  EXPECT_EQ(Commit(Put(root, "another payload")), absl::OkStatus());
  EXPECT_EQ(store_->GetState(kTenant, root.id)->etag, first.etag);
  EXPECT_THAT(store_->GetState(kTenant, root.id)->labels, IsEmpty());
  EXPECT_EQ(store_->GetPayload(kTenant, root.id).value(), "payload");
}

TEST_F(StateStoreTest, MutationIsAppliedWholeOrNotAtAll) {
  const StateRecord root = MakeState({1});
  const StateRecord orphan = MakeState({9}, &root);
  EXPECT_THAT(Commit(SetRef{kTenant, "a", root.id, {}}), FailsWith(kNotFound, root.id));
  EXPECT_THAT(
      Commit(Put(root), SetRef{kTenant, "a", root.id, {}}, SetRef{kTenant, "b", orphan.id, {}}),
      FailsWith(kNotFound, orphan.id));
  EXPECT_THAT(store_->GetState(kTenant, root.id).status(), FailsWith(kNotFound, root.id));
  EXPECT_THAT(store_->GetRef(kTenant, "a").status(), FailsWith(kNotFound, "a"));
  EXPECT_THAT(Commit(Put(orphan)), FailsWith(kNotFound, root.id));
}

TEST_F(StateStoreTest, UpdateChangesWhatIsNamedAndChecksTheEtag) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  const uint64_t etag = store_->GetState(kTenant, root.id)->etag;
  UpdateState update{kTenant, root.id, etag, Labels{{"k", "v"}}, {}, {}};
  ASSERT_EQ(Commit(update), absl::OkStatus());
  EXPECT_THAT(Commit(update), FailsWith(kAborted, root.id));
  ASSERT_EQ(Commit(UpdateState{kTenant, root.id, {}, {}, {}, true}), absl::OkStatus());
  const StateRecord updated = store_->GetState(kTenant, root.id).value();
  EXPECT_EQ(updated.labels, (Labels{{"k", "v"}}));
  EXPECT_TRUE(updated.pinned);
  EXPECT_NE(updated.etag, etag);
}

TEST_F(StateStoreTest, DeleteIsRefusedWhileSomethingNeedsTheState) {
  const StateRecord root = MakeState({1});
  const StateRecord child = MakeState({2}, &root);
  ASSERT_EQ(Commit(Put(root), Put(child), SetRef{kTenant, "keep", root.id, {}},
                   NewSession("talk", &root)),
            absl::OkStatus());
  const DeleteState remove{kTenant, root.id};
  EXPECT_THAT(Commit(remove), FailsWith(kPrecondition, "ref keep"));
  ASSERT_EQ(Commit(DeleteRef{kTenant, "keep"}), absl::OkStatus());
  EXPECT_THAT(Commit(remove), FailsWith(kPrecondition, "session talk"));
  ASSERT_EQ(Commit(DeleteSession{kTenant, "talk"}), absl::OkStatus());
  EXPECT_THAT(Commit(remove), FailsWith(kPrecondition, child.id));
  ASSERT_EQ(Commit(DeleteState{kTenant, child.id}, remove), absl::OkStatus());
  EXPECT_THAT(store_->GetState(kTenant, root.id).status(), FailsWith(kNotFound, root.id));
  EXPECT_THAT(Commit(remove), FailsWith(kNotFound, root.id));
  EXPECT_THAT(store_->ListStates(kTenant, {}, {})->items, IsEmpty());
  EXPECT_FALSE(
      store_->FindPrefix(kTenant, "model-a", "cpu-float32", {1, 2}, PrefixKind::kAny)->has_value());
}

TEST_F(StateStoreTest, MovedRefReleasesTheStateItLeft) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  ASSERT_EQ(Commit(Put(a), Put(b), SetRef{kTenant, "main", a.id, {}}), absl::OkStatus());
  ASSERT_EQ(Commit(SetRef{kTenant, "main", b.id, a.id}), absl::OkStatus());
  EXPECT_EQ(Commit(DeleteState{kTenant, a.id}), absl::OkStatus());
  EXPECT_THAT(Commit(DeleteState{kTenant, b.id}), FailsWith(kPrecondition, "main"));
}

TEST_F(StateStoreTest, BlobsLiveAsLongAsAStateNeedsThem) {
  const PutState first = PutWithBlobs({1}, {"h1", "h2"}, {"blob one", "blob two"});
  const PutState second = PutWithBlobs({2}, {"h2", "h3"}, {"", "blob three"});
  EXPECT_THAT(Commit(second), FailsWith(kNotFound, "h2"));
  ASSERT_EQ(Commit(first), absl::OkStatus());
  ASSERT_EQ(Commit(second), absl::OkStatus());
  EXPECT_EQ(store_->GetBlob(kTenant, "h2").value(), "blob two");
  EXPECT_FALSE(store_->HasBlob("other", "h2").value());
  ASSERT_EQ(Commit(DeleteState{kTenant, first.record.id}), absl::OkStatus());
  EXPECT_FALSE(store_->HasBlob(kTenant, "h1").value());
  EXPECT_THAT(store_->GetBlob(kTenant, "h1").status(), FailsWith(kNotFound, "h1"));
  EXPECT_EQ(store_->GetBlob(kTenant, "h2").value(), "blob two");
  ASSERT_EQ(Commit(DeleteState{kTenant, second.record.id}), absl::OkStatus());
  EXPECT_FALSE(store_->HasBlob(kTenant, "h2").value());
}

TEST_F(StateStoreTest, RefMovesOnlyFromTheExpectedState) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  ASSERT_EQ(Commit(Put(a), Put(b)), absl::OkStatus());
  EXPECT_THAT(Commit(SetRef{kTenant, "main", a.id, b.id}), FailsWith(kAborted, "no state"));
  ASSERT_EQ(Commit(SetRef{kTenant, "main", a.id, ""}), absl::OkStatus());
  const RefRecord before = store_->GetRef(kTenant, "main").value();
  EXPECT_THAT(Commit(SetRef{kTenant, "main", b.id, ""}), FailsWith(kAborted, a.id));
  ASSERT_EQ(Commit(SetRef{kTenant, "main", b.id, a.id}), absl::OkStatus());
  const RefRecord after = store_->GetRef(kTenant, "main").value();
  EXPECT_EQ(after.state_id, b.id);
  EXPECT_NE(after.etag, before.etag);
  EXPECT_THAT(Commit(DeleteRef{kTenant, "none"}), FailsWith(kNotFound, "none"));
}

TEST_F(StateStoreTest, LogGrowsOnlyAtItsEnd) {
  ASSERT_EQ(Commit(NewSession("chat")), absl::OkStatus());
  ASSERT_EQ(Commit(AppendLog{kTenant, "chat", 0, {10, 11}}), absl::OkStatus());
  ASSERT_EQ(Commit(AppendLog{kTenant, "chat", 2, {12, 13, 14}}), absl::OkStatus());
  EXPECT_THAT(Commit(AppendLog{kTenant, "chat", 2, {9}}), FailsWith(kPrecondition, "ends at 5"));
  EXPECT_THAT(Commit(AppendLog{kTenant, "chat", 6, {9}}), FailsWith(kPrecondition, "ends at 5"));
  EXPECT_THAT(Commit(AppendLog{kTenant, "none", 0, {9}}), FailsWith(kNotFound, "none"));
  Reopen();
  EXPECT_THAT(store_->GetLog(kTenant, "chat")->tokens, ElementsAre(10, 11, 12, 13, 14));
  EXPECT_EQ(store_->GetLog(kTenant, "chat")->position, 0);
}

TEST_F(StateStoreTest, TrimKeepsWhatFollowsEvenInsideAChunk) {
  ASSERT_EQ(Commit(NewSession("chat"), AppendLog{kTenant, "chat", 0, {10, 11}},
                   AppendLog{kTenant, "chat", 2, {12, 13, 14}}),
            absl::OkStatus());
  ASSERT_EQ(Commit(TrimLog{kTenant, "chat", 3}), absl::OkStatus());
  EXPECT_EQ(store_->GetLog(kTenant, "chat")->position, 3);
  EXPECT_THAT(store_->GetLog(kTenant, "chat")->tokens, ElementsAre(13, 14));
  ASSERT_EQ(Commit(TrimLog{kTenant, "chat", 1}), absl::OkStatus());
  EXPECT_EQ(store_->GetLog(kTenant, "chat")->position, 3);
  ASSERT_EQ(Commit(TrimLog{kTenant, "chat", 5}), absl::OkStatus());
  EXPECT_THAT(store_->GetLog(kTenant, "chat")->tokens, IsEmpty());
  ASSERT_EQ(Commit(AppendLog{kTenant, "chat", 5, {15}}), absl::OkStatus());
  EXPECT_THAT(store_->GetLog(kTenant, "chat")->tokens, ElementsAre(15));
  EXPECT_THAT(Commit(TrimLog{kTenant, "chat", 7}), FailsWith(kPrecondition, "ends at 6"));
}

TEST_F(StateStoreTest, TrimReachesTheHeadStateWhenItsTokensWereNeverLogged) {
  const StateRecord root = MakeState({1, 2, 3, 4});
  ASSERT_EQ(Commit(NewSession("chat")), absl::OkStatus());
  ASSERT_EQ(Commit(Put(root), NewSession("chat", &root), TrimLog{kTenant, "chat", 4}),
            absl::OkStatus());
  ASSERT_EQ(Commit(AppendLog{kTenant, "chat", 4, {5}}), absl::OkStatus());
  EXPECT_EQ(store_->GetLog(kTenant, "chat")->position, 4);
}

TEST_F(StateStoreTest, SessionIsReplacedAndItsNameMayBeGuarded) {
  const StateRecord root = MakeState({1, 2});
  PutSession create = NewSession("chat");
  create.must_not_exist = true;
  ASSERT_EQ(Commit(create), absl::OkStatus());
  EXPECT_THAT(Commit(create), FailsWith(absl::StatusCode::kAlreadyExists, "chat"));
  PutSession move = NewSession("chat", &root);
  EXPECT_THAT(Commit(move), FailsWith(kNotFound, root.id));
  move.record.labels = {{"a", "b"}};
  ASSERT_EQ(Commit(Put(root), move), absl::OkStatus());
  const SessionRecord session = store_->GetSession(kTenant, "chat").value();
  EXPECT_EQ(session.head_state, root.id);
  EXPECT_EQ(session.head_position, 2);
  EXPECT_EQ(session.labels, move.record.labels);
  move.record.head_position = 3;
  EXPECT_THAT(Commit(move), FailsWith(kInvalid, "head_position"));
}

TEST_F(StateStoreTest, DeletedSessionTakesItsLogAlong) {
  ASSERT_EQ(Commit(NewSession("chat"), AppendLog{kTenant, "chat", 0, {1, 2}}), absl::OkStatus());
  ASSERT_EQ(Commit(DeleteSession{kTenant, "chat"}), absl::OkStatus());
  EXPECT_THAT(store_->GetLog(kTenant, "chat").status(), FailsWith(kNotFound, "chat"));
  EXPECT_THAT(Commit(DeleteSession{kTenant, "chat"}), FailsWith(kNotFound, "chat"));
  ASSERT_EQ(Commit(NewSession("chat")), absl::OkStatus());
  EXPECT_THAT(store_->GetLog(kTenant, "chat")->tokens, IsEmpty());
}

TEST_F(StateStoreTest, AnswerIsRememberedAndARacingRepeatChangesNothing) {
  ASSERT_EQ(Commit(NewSession("a"), PutAnswer{kTenant, "req-1", "done"}), absl::OkStatus());
  EXPECT_THAT(Commit(NewSession("b"), PutAnswer{kTenant, "req-1", "again"}),
              FailsWith(absl::StatusCode::kAlreadyExists, "req-1"));
  Reopen();
  EXPECT_EQ(store_->GetAnswer(kTenant, "req-1").value(), "done");
  EXPECT_THAT(store_->GetSession(kTenant, "b").status(), FailsWith(kNotFound, "b"));
  EXPECT_THAT(store_->GetAnswer("other", "req-1").status(), FailsWith(kNotFound, "request id"));
}

TEST_F(StateStoreTest, TokensAndLineageOfAChain) {
  const StateRecord a = MakeState({1, 2}), b = MakeState({3}, &a), c = MakeState({4, 5}, &b);
  ASSERT_EQ(Commit(Put(a), Put(b), Put(c)), absl::OkStatus());
  EXPECT_THAT(store_->GetTokens(kTenant, c.id).value(), ElementsAre(1, 2, 3, 4, 5));
  const Page<StateRecord> first = store_->GetLineage(kTenant, c.id, {2, ""}).value();
  EXPECT_THAT(Ids(first), ElementsAre(c.id, b.id));
  const Page<StateRecord> second = store_->GetLineage(kTenant, c.id, {2, first.next}).value();
  EXPECT_THAT(Ids(second), ElementsAre(a.id));
  EXPECT_EQ(second.next, "");
}

TEST_F(StateStoreTest, MergedStateKeepsItsOwnTokensAndIsNoPrefix) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  StateRecord merge = MakeState({1, 2});
  merge.operation = StateOperation::kMerge;
  merge.parents = {a.id, b.id};
  merge.id = StateId(merge);
  const StateRecord below = MakeState({7}, &merge);
  ASSERT_EQ(Commit(Put(a), Put(b), Put(merge), Put(below)), absl::OkStatus());
  EXPECT_THAT(store_->GetTokens(kTenant, below.id).value(), ElementsAre(1, 2, 7));
  const auto found =
      store_->FindPrefix(kTenant, "model-a", "cpu-float32", {1, 2, 7}, PrefixKind::kAny);
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->id, a.id);
  EXPECT_THAT(Commit(DeleteState{kTenant, b.id}), FailsWith(kPrecondition, merge.id));
  StateRecord wrong = merge;
  wrong.token_count = 3;
  EXPECT_THAT(Commit(Put(wrong)), FailsWith(absl::StatusCode::kInvalidArgument, "token_count"));
}

TEST_F(StateStoreTest, DeepestPrefixIsFoundHoweverItWasSplit) {
  const StateRecord a = MakeState({1, 2}), ab = MakeState({3, 4}, &a);
  const StateRecord other = MakeState({1, 2, 3, 9});
  StateRecord foreign = MakeState({1, 2, 3, 4, 5});
  foreign.fingerprint = "model-b";
  foreign.id = StateId(foreign);
  ASSERT_EQ(Commit(Put(a), Put(ab), Put(other), Put(foreign)), absl::OkStatus());
  Reopen();
  const auto find = [&](std::vector<int32_t> tokens) -> std::string {
    const auto found =
        store_->FindPrefix(kTenant, "model-a", "cpu-float32", tokens, PrefixKind::kAny).value();
    return found.has_value() ? found->id : "none";
  };
  EXPECT_EQ(find({1, 2, 3, 4, 5}), ab.id);
  EXPECT_EQ(find({1, 2, 3, 4}), ab.id);
  EXPECT_EQ(find({1, 2, 3}), a.id);
  EXPECT_EQ(find({1, 2, 3, 9, 9}), other.id);
  EXPECT_EQ(find({1}), "none");
  EXPECT_EQ(find({}), "none");
  EXPECT_EQ(find({2, 1, 3, 4}), "none");
  ASSERT_EQ(Commit(Put(MakeState({}))), absl::OkStatus());
  EXPECT_EQ(find({8}), MakeState({}).id);
}

TEST_F(StateStoreTest, ListsOldestFirstInPages) {
  std::vector<StateRecord> states;
  Mutation mutation;
  for (int i = 0; i < 7; ++i) {
    states.push_back(MakeState({i}));
    states.back().created = absl::FromUnixSeconds(1000 - i);
    states.back().labels = {{"parity", i % 2 == 0 ? "even" : "odd"}};
    mutation.operations.push_back(Put(states.back()));
  }
  ASSERT_EQ(store_->CommitAndWait(mutation), absl::OkStatus());
  std::vector<std::string> listed;
  PageRequest page{3, ""};
  do {
    const Page<StateRecord> result = store_->ListStates(kTenant, {}, page).value();
    for (const std::string& id : Ids(result)) listed.push_back(id);
    page.token = result.next;
  } while (!page.token.empty());
  ASSERT_EQ(listed.size(), 7u);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(listed[i], states[6 - i].id);

  StateFilter filter;
  filter.labels = {{"parity", "odd"}};
  filter.created_after = absl::FromUnixSeconds(996);
  filter.created_before = absl::FromUnixSeconds(1000);
  EXPECT_THAT(Ids(store_->ListStates(kTenant, filter, {}).value()),
              ElementsAre(states[3].id, states[1].id));
  filter.fingerprint = "model-b";
  EXPECT_THAT(store_->ListStates(kTenant, filter, {})->items, IsEmpty());
}

TEST_F(StateStoreTest, ListsDescendantsOnly) {
  const StateRecord a = MakeState({1}), b = MakeState({2}, &a), c = MakeState({3}, &b);
  const StateRecord x = MakeState({5});
  ASSERT_EQ(Commit(Put(a), Put(b), Put(c), Put(x)), absl::OkStatus());
  StateFilter filter;
  filter.descendant_of = a.id;
  EXPECT_THAT(Ids(store_->ListStates(kTenant, filter, {}).value()),
              ::testing::UnorderedElementsAre(b.id, c.id));
  filter.descendant_of = MakeState({77}).id;
  EXPECT_THAT(store_->ListStates(kTenant, filter, {}).status(), FailsWith(kNotFound, "st-"));
}

TEST_F(StateStoreTest, RefsAndSessionsAreListedByPrefix) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  for (const char* name : {"b/one", "a", "b/two", "bc", "b"}) {
    ASSERT_EQ(Commit(SetRef{kTenant, name, root.id, {}}, NewSession(name)), absl::OkStatus());
  }
  const Page<RefRecord> first = store_->ListRefs(kTenant, "b", {2, ""}).value();
  ASSERT_EQ(first.items.size(), 2u);
  EXPECT_EQ(first.items[0].name, "b");
  EXPECT_EQ(first.items[1].name, "b/one");
  const Page<RefRecord> second = store_->ListRefs(kTenant, "b", {2, first.next}).value();
  ASSERT_EQ(second.items.size(), 2u);
  EXPECT_EQ(second.items[1].name, "bc");
  EXPECT_EQ(second.next, "");
  EXPECT_EQ(store_->ListSessions(kTenant, "b/", {})->items.size(), 2u);
}

TEST_F(StateStoreTest, ForeignPageTokensAreRefused) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  ASSERT_EQ(Commit(Put(a), Put(b), SetRef{kTenant, "a", a.id, {}}, SetRef{kTenant, "b", b.id, {}}),
            absl::OkStatus());
  const std::string token = store_->ListRefs(kTenant, "", {1, ""})->next;
  ASSERT_NE(token, "");
  EXPECT_TRUE(store_->ListRefs(kTenant, "", {1, token}).ok());
  for (const std::string& bad :
       {token + "x", token.substr(1), std::string("%%%"), std::string("AAAAAAAAAAAAAAAA")}) {
    EXPECT_THAT(store_->ListRefs(kTenant, "", {1, bad}).status(),
                FailsWith(kInvalid, "page_token"));
  }
  EXPECT_THAT(store_->ListRefs("other", "", {1, token}).status(),
              FailsWith(kInvalid, "page_token"));
  EXPECT_THAT(store_->ListRefs(kTenant, "b", {1, token}).status(),
              FailsWith(kInvalid, "page_token"));
  EXPECT_THAT(store_->ListStates(kTenant, {}, {1, token}).status(),
              FailsWith(kInvalid, "page_token"));
  EXPECT_THAT(store_->ListStates(kTenant, {}, {-1, ""}).status(), FailsWith(kInvalid, "page_size"));
}

TEST_F(StateStoreTest, InvalidFieldsAreNamed) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  StateRecord bad = MakeState({1, -2});
  EXPECT_THAT(Commit(Put(bad)), FailsWith(kInvalid, "record.span_tokens[1]"));
  bad = MakeState({1});
  bad.id[5] = bad.id[5] == 'a' ? 'b' : 'a';
  EXPECT_THAT(Commit(Put(bad)), FailsWith(kInvalid, "record.id"));
  bad = MakeState({5}, &root);
  bad.token_count = 7;
  EXPECT_THAT(Commit(Put(bad)), FailsWith(kInvalid, "record.token_count"));
  bad = MakeState({5}, &root);
  bad.fingerprint = "model-b";
  bad.id = StateId(bad);
  EXPECT_THAT(Commit(Put(bad)), FailsWith(kPrecondition, "model-b"));
  PutState blobs = Put(MakeState({3}));
  blobs.record.blob_hashes = {"h"};
  EXPECT_THAT(Commit(blobs), FailsWith(kInvalid, "blobs"));
  EXPECT_THAT(Commit(SetRef{kTenant, "Upper", root.id, {}}), FailsWith(kInvalid, "name \"Upper\""));
  EXPECT_THAT(Commit(SetRef{kTenant, "ok", "st-12", {}}), FailsWith(kInvalid, "state_id"));
  EXPECT_THAT(Commit(NewSession("a//b")), FailsWith(kInvalid, "record.id"));
  EXPECT_THAT(Commit(PutAnswer{kTenant, "", "x"}), FailsWith(kInvalid, "request_id"));
  EXPECT_THAT(Commit(PutAnswer{kTenant, std::string(65, 'r'), "x"}),
              FailsWith(kInvalid, "request_id"));
  EXPECT_THAT(Commit(PutAnswer{"", "r", "x"}), FailsWith(kInvalid, "tenant"));
  EXPECT_THAT(Commit(AppendLog{kTenant, "s", -1, {1}}), FailsWith(kInvalid, "position"));
}

TEST_F(StateStoreTest, SecondOpenOfTheSameLibraryIsRefused) {
  EXPECT_THAT(OpenStateStore(options_).status(), FailsWith(kPrecondition, options_.directory));
  EXPECT_THAT(OpenStateStore(options_).status(), FailsWith(kPrecondition, "another anabranchd"));
}

TEST_F(StateStoreTest, StatsCount) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root), SetRef{kTenant, "main", root.id, {}}, NewSession("s")),
            absl::OkStatus());
  const StoreStats stats = store_->stats();
  EXPECT_EQ(stats.commit_seq, 1u);
  EXPECT_EQ(stats.states, 1);
  EXPECT_EQ(stats.refs, 1);
  EXPECT_EQ(stats.sessions, 1);
  EXPECT_GT(stats.disk_bytes, 0u);
  EXPECT_FALSE(stats.read_only);
}

}  // namespace
}  // namespace anabranch
