// Expiry, quotas and eviction: what goes, what stays because something needs it, and books that are
// right whatever happened.
#include <atomic>
#include <fstream>
#include <thread>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

class RetentionTest : public LibraryTest {
 protected:
  SweepReport Sweep(absl::Time now, EvictionBudget budget = {}) {
    SweepOptions options;
    options.now = now;
    options.budget = budget;
    const absl::StatusOr<SweepReport> report = store_->Sweep(options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(SweepReport());
  }
  static PutState Expiring(StateRecord record, absl::Time when) {
    record.expires = when;
    return Put(std::move(record));
  }
  absl::Status Pin(const std::string& id, bool pinned) {
    UpdateState update;
    update.tenant = kTenant;
    update.id = id;
    update.pinned = pinned;
    return Commit(update);
  }
  bool Exists(const StateRecord& state) { return store_->GetState(kTenant, state.id).ok(); }
  bool IsArchived(const StateRecord& state) {
    const auto record = store_->GetState(kTenant, state.id);
    return record.ok() && record->codec == StateCodec::kArchive;
  }

  const absl::Time now_ = absl::Now();
  const absl::Time soon_ = now_ + absl::Hours(1), later_ = now_ + absl::Hours(2);
};

TEST_F(RetentionTest, AnExpiredStateGoesAndOthersStay) {
  const StateRecord expiring = MakeState({1}), lasting = MakeState({2}), next = MakeState({3});
  ASSERT_EQ(Commit(Expiring(expiring, soon_), Put(lasting), Expiring(next, later_)),
            absl::OkStatus());
  EXPECT_EQ(Sweep(now_).expired, 0);
  const SweepReport report = Sweep(soon_ + absl::Seconds(1));
  EXPECT_EQ(report.expired, 1);
  EXPECT_GT(report.freed_bytes, 0);
  EXPECT_FALSE(Exists(expiring));
  EXPECT_THAT(store_->GetPayload(kTenant, expiring.id).status(), FailsWith(kNotFound, "state"));
  EXPECT_TRUE(Exists(lasting));
  EXPECT_TRUE(Exists(next));
  Reopen();
  EXPECT_EQ(Sweep(later_ + absl::Seconds(1)).expired, 1);
  EXPECT_TRUE(Exists(lasting));
}

TEST_F(RetentionTest, PinnedNamedAndHeldStatesOutliveTheirTimeUntilTheyAreLetGo) {
  const StateRecord pinned = MakeState({1}), named = MakeState({2}), head = MakeState({3});
  ASSERT_EQ(Commit(Expiring(pinned, soon_), Expiring(named, soon_), Expiring(head, soon_),
                   SetRef{kTenant, "main", named.id, {}}, NewSession("chat", &head)),
            absl::OkStatus());
  ASSERT_EQ(Pin(pinned.id, true), absl::OkStatus());
  absl::Time now = later_;
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Sweep(now).expired, 0);
    for (const StateRecord& state : {pinned, named, head}) {
      EXPECT_EQ(*store_->GetPayload(kTenant, state.id), "payload");
    }
    now += absl::Hours(24);
  }
  ASSERT_EQ(Pin(pinned.id, false), absl::OkStatus());
  ASSERT_EQ(Commit(DeleteRef{kTenant, "main"}, DeleteSession{kTenant, "chat"}), absl::OkStatus());
  EXPECT_EQ(Sweep(now).expired, 3);
}

TEST_F(RetentionTest, OfAStateThatOthersGoOnFromTheContentGoesAndTheTokensStay) {
  const StateRecord root = MakeState({1, 2, 3});
  const StateRecord child = MakeState({4}, &root), other = MakeState({5}, &root);
  ASSERT_EQ(Commit(Expiring(root, soon_), Put(child), Put(other)), absl::OkStatus());
  const SweepReport report = Sweep(later_);
  EXPECT_EQ(report.expired, 0);
  EXPECT_EQ(report.expired_archived, 1);
  EXPECT_TRUE(IsArchived(root));
  EXPECT_THAT(*store_->GetTokens(kTenant, child.id), testing::ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(store_->ListStates(kTenant, {}, {})->items.size(), 3u);  // it stays listed
  // Once nothing goes on from it, it goes as well.
  ASSERT_EQ(Commit(DeleteState{kTenant, child.id}, DeleteState{kTenant, other.id}),
            absl::OkStatus());
  EXPECT_TRUE(Exists(root));
  EXPECT_EQ(Sweep(later_ + absl::Hours(25)).expired, 1);
  EXPECT_FALSE(Exists(root));
}

TEST_F(RetentionTest, WhatAComputedStateWasMadeOfStaysWhole) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  StateRecord merge = MakeState({1, 2});
  merge.operation = StateOperation::kMerge;
  merge.parents = {a.id, b.id};
  merge.id = StateId(merge);
  ASSERT_EQ(Commit(Expiring(a, soon_), Expiring(b, soon_), Put(merge)), absl::OkStatus());
  EXPECT_EQ(Sweep(later_).expired_archived, 0);
  EXPECT_EQ(*store_->GetPayload(kTenant, a.id), "payload");
}

TEST_F(RetentionTest, ATimeThatIsMovedCountsAndOneThatIsTakenBackDoesNot) {
  const StateRecord moved = MakeState({1}), kept = MakeState({2});
  ASSERT_EQ(Commit(Expiring(moved, soon_), Expiring(kept, soon_)), absl::OkStatus());
  UpdateState update;
  update.tenant = kTenant;
  update.id = moved.id;
  update.expires = later_;
  ASSERT_EQ(Commit(update), absl::OkStatus());
  update.id = kept.id;
  update.expires = absl::InfiniteFuture();
  ASSERT_EQ(Commit(update), absl::OkStatus());
  EXPECT_EQ(Sweep(soon_ + absl::Minutes(1)).expired, 0);
  EXPECT_EQ(Sweep(later_ + absl::Minutes(1)).expired, 1);
  EXPECT_FALSE(Exists(moved));
  EXPECT_TRUE(Exists(kept));
}

TEST_F(RetentionTest, DefaultExpiryAppliesToStatesWithoutATimeAndOnlyWhenTheyAreNew) {
  const StateRecord old = MakeState({1}), young = MakeState({2}), own = MakeState({3});
  ASSERT_EQ(Commit(Put(old)), absl::OkStatus());
  options_.default_expiry = absl::Hours(24);
  Reopen();
  ASSERT_EQ(Commit(Put(old), Put(young), Expiring(own, now_ + absl::Hours(48))), absl::OkStatus());
  EXPECT_EQ(store_->GetState(kTenant, old.id)->expires, absl::InfiniteFuture());
  EXPECT_LT(store_->GetState(kTenant, young.id)->expires, now_ + absl::Hours(25));
  EXPECT_EQ(Sweep(now_ + absl::Hours(30)).expired, 1);
  EXPECT_FALSE(Exists(young));
  EXPECT_EQ(Sweep(now_ + absl::Hours(60)).expired, 1);
  EXPECT_TRUE(Exists(old));
}

TEST_F(RetentionTest, QuotasOfStatesSessionsAndBytesAreRefusedByName) {
  options_.quotas = {.states = 2, .sessions = 1, .bytes = 100};
  Reopen();
  ASSERT_EQ(Commit(Put(MakeState({1})), NewSession("a")), absl::OkStatus());
  EXPECT_THAT(Commit(NewSession("b")),
              FailsWith(kExhausted, "the quota of sessions is used up: tenant acme has 1 of 1"));
  EXPECT_EQ(Commit(NewSession("a")), absl::OkStatus());  // not a new one
  const absl::Status large = Commit(Put(MakeState({2}), std::string(90, 'x')));
  EXPECT_THAT(large, FailsWith(kExhausted, "quota of bytes"));
  EXPECT_EQ(*large.GetPayload(kQuotaPayload), absl::Cord("bytes 17 100"));
  ASSERT_EQ(Commit(Put(MakeState({3}))), absl::OkStatus());
  EXPECT_THAT(Commit(Put(MakeState({4}))), FailsWith(kExhausted, "quota of states"));
  EXPECT_EQ(Commit(Put(MakeState({3}))), absl::OkStatus());  // there already
  // A swap in one mutation needs no room, and deleting makes some.
  EXPECT_EQ(Commit(DeleteState{kTenant, MakeState({3}).id}, Put(MakeState({4}))), absl::OkStatus());
  EXPECT_EQ(Commit(DeleteState{kTenant, MakeState({4}).id}), absl::OkStatus());
  EXPECT_EQ(Commit(Put(MakeState({5}))), absl::OkStatus());
}

TEST_F(RetentionTest, NoRaceGetsPastAQuota) {
  options_.quotas.states = 40;
  options_.group_commit_window = absl::Milliseconds(2);
  Reopen();
  std::atomic<int> taken{0}, refused{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 20; ++i) {
        const absl::Status status = Commit(Put(MakeState({thread * 1000 + i})));
        taken += status.ok();
        refused += absl::IsResourceExhausted(status);
        wrong += !status.ok() && !absl::IsResourceExhausted(status);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken, 40);
  EXPECT_EQ(refused, 120);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store_->GetUse(kTenant).states, 40);
}

// What the books say after each kind of change, also after reopening, and after a commit that
// failed.
TEST_F(RetentionTest, BooksCountStatesBytesAndSharedBlobsOnce) {
  const auto with_blobs = [](StateRecord record, std::string own) {
    PutState put = Put(std::move(record));
    put.record.blob_hashes = {"shared", own};
    put.blobs = {std::string(1000, 's'), std::string(100, 'o')};
    return put;
  };
  const int64_t each = 7 + 6 + 4;  // payload, header, token
  const StateRecord a = MakeState({1}), b = MakeState({2}, &a), c = MakeState({3}, &b);
  ASSERT_EQ(Commit(with_blobs(a, "a")), absl::OkStatus());
  EXPECT_EQ(store_->GetUse(kTenant).bytes, each + 1100);
  PutState second = with_blobs(b, "b");
  second.blobs[0].clear();  // stored already
  ASSERT_EQ(Commit(second, with_blobs(c, "c"), SetRef{kTenant, "main", c.id, {}}),
            absl::OkStatus());
  EXPECT_EQ(store_->GetUse(kTenant).bytes, 3 * each + 1300);
  EXPECT_FALSE(Commit(Put(MakeState({9})), DeleteRef{kTenant, "none"}).ok());
  ASSERT_EQ(Commit(ThinState{kTenant, b.id}), absl::OkStatus());
  EXPECT_EQ(store_->GetUse(kTenant).bytes, 2 * each + 4 + 1200);
  const TenantUse use = store_->GetUse(kTenant);
  EXPECT_EQ(use.states, 3);
  EXPECT_EQ(use.refs, 1);
  EXPECT_EQ(store_->GetUse("other"), TenantUse());
  Reopen();
  EXPECT_EQ(store_->GetUse(kTenant), use);
  ASSERT_EQ(
      Commit(DeleteRef{kTenant, "main"}, DeleteState{kTenant, c.id}, DeleteState{kTenant, a.id}),
      absl::OkStatus());
  EXPECT_EQ(store_->GetUse(kTenant), TenantUse());
}

// A line of states of 1,000 bytes each: the budget leaves room for half of them.
class EvictionTest : public RetentionTest {
 protected:
  void SetUp() override {
    RetentionTest::SetUp();
    for (int i = 0; i < 20; ++i) {
      states_.push_back(MakeState(std::vector<int32_t>(10, i), i > 0 ? &states_.back() : nullptr));
      PutState put = Put(states_.back(), std::string(1000, 'p'));
      put.record.created = now_ - absl::Hours(100 - i);
      ASSERT_EQ(Commit(put), absl::OkStatus());
    }
  }
  SweepReport EvictHalf() { return Sweep(now_, {.high_bytes = 15000, .low_bytes = 11000}); }
  int Whole() {
    int whole = 0;
    for (const StateRecord& state : states_) whole += Exists(state) && !IsArchived(state);
    return whole;
  }

  std::vector<StateRecord> states_;
};

TEST_F(EvictionTest, ArchivesDownToTheLowMarkAndKeepsEveryToken) {
  EXPECT_EQ(Sweep(now_, {.high_bytes = 50000, .low_bytes = 1000}).evicted, 0);  // within budget
  const SweepReport report = EvictHalf();
  EXPECT_GE(report.evicted, 10);
  EXPECT_LE(report.evicted, 11);  // no more than needed
  EXPECT_EQ(report.deleted, 0);
  EXPECT_FALSE(report.budget_unreachable);
  EXPECT_LE(store_->GetUse(kTenant).bytes, 11000);
  EXPECT_EQ(Whole(), 20 - report.evicted);
  EXPECT_EQ(store_->GetUse(kTenant).archived, report.evicted);
  EXPECT_EQ(store_->GetTokens(kTenant, states_.back().id)->size(), 200u);
}

TEST_F(EvictionTest, WhatIsPinnedLabelledNamedHeldOrForkedStays) {
  UpdateState label;
  label.tenant = kTenant;
  label.id = states_[1].id;
  label.labels = Labels{{"keep", "me"}};
  const StateRecord branch = MakeState({77}, &states_[4]);
  ASSERT_EQ(Pin(states_[0].id, true), absl::OkStatus());
  ASSERT_EQ(Commit(label, SetRef{kTenant, "main", states_[2].id, {}},
                   NewSession("chat", &states_[3]), Put(branch)),
            absl::OkStatus());
  const SweepReport report = Sweep(now_, {.high_bytes = 2000, .low_bytes = 1000});
  EXPECT_TRUE(report.budget_unreachable);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(IsArchived(states_[i])) << i;
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[0].id), std::string(1000, 'p'));
}

TEST_F(EvictionTest, RecentlyReadStatesStayLongest) {
  for (int i : {2, 5, 8}) ASSERT_TRUE(store_->GetPayload(kTenant, states_[i].id).ok());
  EvictHalf();
  for (int i : {2, 5, 8}) EXPECT_FALSE(IsArchived(states_[i])) << i;
  EXPECT_TRUE(IsArchived(states_[0]));
}

TEST_F(EvictionTest, WhatWasReadIsRememberedOverRestartsAndADamagedFileIsNoHarm) {
  for (int i : {2, 5, 8}) ASSERT_TRUE(store_->GetPayload(kTenant, states_[i].id).ok());
  Reopen();
  Reopen();  // nothing was read meanwhile
  EvictHalf();
  for (int i : {2, 5, 8}) EXPECT_FALSE(IsArchived(states_[i])) << i;
  EXPECT_TRUE(IsArchived(states_[0]));
  Close();
  std::ofstream(options_.directory + "/recent-uses", std::ios::trunc) << "torn";
  Reopen();
  Sweep(now_, {.high_bytes = 9000, .low_bytes = 5000});
  EXPECT_TRUE(IsArchived(states_[2]));
}

TEST_F(EvictionTest, OfEquallyOldStatesThoseThatSaveMoreTokensStay) {
  std::vector<StateRecord> cheap, dear;
  const auto put = [&](StateRecord record) {
    PutState operation = Put(record, std::string(1000, 'p'));
    operation.record.created = now_ - absl::Hours(200);
    EXPECT_EQ(Commit(operation), absl::OkStatus());
    return record;
  };
  for (int i = 0; i < 4; ++i) {
    cheap.push_back(put(MakeState({1000 + i})));
    dear.push_back(put(MakeState(std::vector<int32_t>(500, 2000 + i))));
  }
  const int64_t bytes = store_->GetUse(kTenant).bytes;
  Sweep(now_, {.high_bytes = bytes - 1, .low_bytes = bytes - 3500});
  for (const StateRecord& state : cheap) EXPECT_TRUE(IsArchived(state));
  for (const StateRecord& state : dear) EXPECT_FALSE(IsArchived(state));
}

TEST_F(EvictionTest, OnceNothingIsLeftToArchiveTheOldestArchivedEndsGo) {
  std::vector<StateRecord> lone;
  for (int i = 0; i < 10; ++i) {
    lone.push_back(MakeState(std::vector<int32_t>(100, 500 + i)));
    PutState put = Put(lone.back());
    put.record.created = now_ - absl::Hours(500 - i);
    ASSERT_EQ(Commit(put), absl::OkStatus());
  }
  ASSERT_EQ(Commit(NewSession("chat", &states_.back())), absl::OkStatus());
  EXPECT_EQ(Sweep(now_, {.high_bytes = 6000, .low_bytes = 5900}).deleted, 0);
  const SweepReport report = Sweep(now_, {.high_bytes = 4000, .low_bytes = 3000});
  EXPECT_GT(report.deleted, 0);
  EXPECT_FALSE(Exists(lone[0]));
  EXPECT_EQ(store_->GetTokens(kTenant, states_.back().id)->size(), 200u);
}

TEST_F(EvictionTest, AStateThatIsPutAgainIsWholeAgain) {
  EvictHalf();
  ASSERT_TRUE(IsArchived(states_[0]));
  ASSERT_EQ(Commit(Put(states_[0], std::string(1000, 'p'))), absl::OkStatus());
  EXPECT_FALSE(IsArchived(states_[0]));
  EXPECT_EQ(store_->GetPayload(kTenant, states_[0].id)->size(), 1000u);
}

TEST_F(EvictionTest, WritersGoOnDuringASweep) {
  std::atomic<bool> stop{false};
  std::atomic<int> commits{0}, failures{0};
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      failures += !Commit(NewSession(absl::StrCat("s", i % 10))).ok();
      ++commits;
    }
  });
  while (commits < 3) std::this_thread::yield();
  EvictHalf();
  stop = true;
  writer.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace anabranch
