// Garbage collection: disk space comes back, entries that lead nowhere go, everything else stays.
#include <rocksdb/db.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "statestore/disk_use.h"
#include "statestore/key_schema.h"
#include "tests/statestore/closed_library.h"
#include "tests/statestore/library_fixture.h"
#include "tests/statestore/payload_keys.h"

namespace anabranch {
namespace {

class GarbageTest : public LibraryTest {
 protected:
  void SetUp() override {
    options_.payload_part_bytes = 16 << 10;
    LibraryTest::SetUp();
  }
  GarbageReport Collect(GarbageOptions options = {}) {
    const absl::StatusOr<GarbageReport> report = store_->CollectGarbage(options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(GarbageReport());
  }
  // States of 50,000 bytes, four parts, that do not compress.
  void PutMany(int count) {
    for (int i = 0; i < count; ++i) {
      states_.push_back(MakeState({i}));
      ASSERT_EQ(Commit(Put(states_.back(), PayloadOf(i))), absl::OkStatus());
    }
  }
  static std::string PayloadOf(int i) {
    std::string payload = absl::StrCat("payload ", i, ":");
    while (payload.size() < 50000) payload += absl::StrCat(payload.size() * 7919 % 10007, ",");
    return payload;
  }
  void DeleteEverySecond() {
    for (size_t i = 0; i < states_.size(); i += 2) {
      ASSERT_EQ(Commit(DeleteState{kTenant, states_[i].id}), absl::OkStatus());
    }
  }
  void ExpectTheOthersWhole() {
    for (size_t i = 1; i < states_.size(); i += 2) {
      EXPECT_EQ(*store_->GetPayload(kTenant, states_[i].id), PayloadOf(static_cast<int>(i)));
    }
  }
  // Adds keys under the library's feet.
  void PlantAll(Family family, const std::vector<std::string>& keys, const std::string& value) {
    Close();
    WithClosedLibrary(options_.directory + "/rocksdb", [&](rocksdb::DB& db, const auto& handles) {
      for (const std::string& key : keys) {
        ASSERT_TRUE(db.Put({}, handles[static_cast<int>(family)], key, value).ok());
      }
    });
    Reopen();
  }
  void Plant(Family family, const std::string& key, const std::string& value) {
    PlantAll(family, {key}, value);
  }

  std::vector<StateRecord> states_;
};

// Until it is collected, an entry of a state that is gone does not stand in the way of the others.
TEST_F(GarbageTest, AListingPassesByEntriesThatLeadNowhere) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  ASSERT_EQ(Commit(Put(a), Put(b)), absl::OkStatus());
  Plant(Family::kTimeline, TimelineKey(kTenant, 5, MakeState({3}).id), "");
  for (const int round : {0, 1}) {
    const auto listed = store_->ListStates(kTenant, {}, {1, ""});
    ASSERT_TRUE(listed.ok()) << listed.status();
    ASSERT_EQ(listed->items.size(), 1u);
    const auto rest = store_->ListStates(kTenant, {}, {1, listed->next});
    ASSERT_TRUE(rest.ok()) << rest.status();
    EXPECT_EQ(rest->items.size(), 1u);
    EXPECT_EQ(rest->next, "");
    EXPECT_EQ(Collect().stale_keys, 1 - round);
  }
}

TEST_F(GarbageTest, DeletedStatesGiveTheirDiskSpaceBack) {
  PutMany(200);
  Collect();  // all in files
  const auto full = static_cast<int64_t>(BytesUnder(options_.directory + "/rocksdb"));
  DeleteEverySecond();
  const GarbageReport report = Collect();
  const auto half = static_cast<int64_t>(BytesUnder(options_.directory + "/rocksdb"));
  EXPECT_GE(report.dead_bytes_before, 100 * 50000 * 9 / 10);
  EXPECT_LE(report.dead_bytes_after, 100 * 50000 / 3);
  EXPECT_LT(half, full - 100 * 50000 * 2 / 3);
  EXPECT_EQ(report.stale_keys, 0);
  ExpectTheOthersWhole();
  Reopen();
  ExpectTheOthersWhole();
}

TEST_F(GarbageTest, ADryRunSaysWhatThereIsAndChangesNothing) {
  PutMany(20);
  Collect();
  DeleteEverySecond();
  Plant(Family::kEdges, EdgeKey(kTenant, Edge::kChild, states_[1].id, states_[0].id), "");
  const GarbageReport report = Collect({.dry_run = true});
  EXPECT_TRUE(report.dry_run);
  EXPECT_EQ(report.stale_keys, 1);
  EXPECT_GT(report.dead_bytes_before, 9 * 50000);
  // Everything is still there to be collected. (Bytes on disk say nothing: RocksDB writes a log of
  // its own and removes old files when it likes.)
  const GarbageReport real = Collect();
  EXPECT_EQ(real.stale_keys, 1);
  EXPECT_EQ(real.dead_bytes_before, report.dead_bytes_before);
}

TEST_F(GarbageTest, EntriesThatLeadNowhereGoAndWithThemTheirBlobs) {
  const StateRecord state = MakeState({1});
  const std::string gone = MakeState({2}).id;
  PutState put = Put(state);
  put.record.blob_hashes = {"mine"};
  put.blobs = {"blob"};
  ASSERT_EQ(Commit(put, SetRef{kTenant, "main", state.id, {}}, NewSession("chat", &state),
                   AppendLog{kTenant, "chat", 1, {5, 6}}),
            absl::OkStatus());
  EXPECT_EQ(Collect().stale_keys, 0);
  const std::string orphan = EdgeKey(kTenant, Edge::kBlob, "orphan", gone);
  Plant(Family::kEdges, EdgeKey(kTenant, Edge::kChild, state.id, gone), "");
  Plant(Family::kEdges, EdgeKey(kTenant, Edge::kRef, state.id, "none"), "");
  Plant(Family::kEdges, EdgeKey(kTenant, Edge::kBlob, "mine", gone), "");
  Plant(Family::kEdges, orphan, "");
  Plant(Family::kBlobs, NamedKey(kTenant, "orphan"), "bytes");
  Plant(Family::kTimeline, TimelineKey(kTenant, 5, gone), "");
  Plant(Family::kLog, LogChunkKey(kTenant, "nobody", 0), "");
  const GarbageReport report = Collect();
  EXPECT_EQ(report.stale_keys, 6);
  EXPECT_EQ(report.orphaned_blobs, 1);
  EXPECT_FALSE(store_->GetBlob(kTenant, "orphan").ok());
  EXPECT_EQ(*store_->GetBlob(kTenant, "mine"), "blob");
  EXPECT_EQ(store_->GetLog(kTenant, "chat")->tokens.size(), 2u);
  EXPECT_EQ(Collect().stale_keys, 0);
  // Nothing holds the state any more but what is real.
  EXPECT_EQ(Commit(DeleteRef{kTenant, "main"}, DeleteSession{kTenant, "chat"},
                   DeleteState{kTenant, state.id}),
            absl::OkStatus());
}

// 50,000 bytes are four parts of 16 KiB and less.
TEST_F(GarbageTest, PayloadsAndPartsThatNoRecordNamesGoAndAllOthersStay) {
  PutMany(5);
  const StateRecord small = MakeState({100}), archived = MakeState({101});
  ASSERT_EQ(Commit(Put(small, "small"), Put(archived, PayloadOf(101))), absl::OkStatus());
  ASSERT_EQ(Commit(ArchiveState{kTenant, archived.id, {}}), absl::OkStatus());
  EXPECT_EQ(Collect().orphaned_payloads, 0);
  const std::string nobody = MakeState({7}).id;
  std::vector<std::string> planted = {
      NamedKey(kTenant, nobody),                  // whole, and in parts, without a record
      PayloadPartKey(kTenant, nobody, 0),         //
      PayloadPartKey(kTenant, nobody, 1),         //
      PayloadPartKey(kTenant, archived.id, 2),    // of what the record gave up
      PayloadPartKey(kTenant, small.id, 0),       // of another form of what is one value
      PayloadPartKey(kTenant, states_[3].id, 4),  // behind the last part
      NamedKey(kTenant, states_[4].id),           // one value of what is in parts
      NamedKey("aaa", nobody),                    // before and behind all that is there
      NamedKey("zzz", nobody)};
  PlantAll(Family::kPayloads, planted, std::string(100, 'x'));
  const GarbageReport found = Collect({.dry_run = true});
  EXPECT_EQ(found.orphaned_payloads, 9);
  EXPECT_EQ(found.orphaned_payload_bytes, 900);
  const GarbageReport gone = Collect();
  EXPECT_EQ(gone.orphaned_payloads, 9);
  EXPECT_EQ(gone.orphaned_payload_bytes, 900);
  EXPECT_EQ(gone.stale_keys, 0);
  EXPECT_EQ(Collect().orphaned_payloads, 0);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(*store_->GetPayload(kTenant, states_[i].id), PayloadOf(i));
  }
  EXPECT_EQ(*store_->GetPayload(kTenant, small.id), "small");
  Close();
  EXPECT_EQ(CheckPayloadKeys(options_), absl::OkStatus());
}

// The record may be damaged only for now: a copy of the file may bring it back.
TEST_F(GarbageTest, ThePayloadOfADamagedRecordStays) {
  PutMany(3);
  Plant(Family::kStates, NamedKey(kTenant, states_[1].id), "damaged");
  EXPECT_EQ(Collect().orphaned_payloads, 0);
  ASSERT_EQ(Commit(Put(states_[1], PayloadOf(1))), absl::OkStatus());
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[1].id), PayloadOf(1));
}

// What is found may be named by a commit that comes before it is dropped.
TEST_F(GarbageTest, APayloadThatACommitNamesMeanwhileStays) {
  PutMany(1);
  const StateRecord late = MakeState({7});
  PlantAll(Family::kPayloads, {NamedKey(kTenant, late.id), PayloadPartKey(kTenant, late.id, 1)},
           "left over");
  ASSERT_EQ(Collect({.dry_run = true}).orphaned_payloads, 2);
  const std::string payload = PayloadOf(7);
  ASSERT_EQ(Commit(Put(late, payload),
                   DropStaleKey{Family::kPayloads, PayloadPartKey(kTenant, late.id, 1), 9},
                   DropStaleKey{Family::kPayloads, NamedKey(kTenant, late.id), 9}),
            absl::OkStatus());
  EXPECT_EQ(*store_->GetPayload(kTenant, late.id), payload);
  EXPECT_EQ(Collect().orphaned_payloads, 0);
  Close();
  EXPECT_EQ(CheckPayloadKeys(options_), absl::OkStatus());
}

TEST_F(GarbageTest, ReadersAndWritersGoOnMeanwhileAndLoseNothing) {
  PutMany(100);
  DeleteEverySecond();
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0}, writes{0}, failures{0};
  std::thread reader([&] {
    for (size_t i = 1; !stop; i = (i + 2) % 100) {
      failures += !store_->GetPayload(kTenant, states_[i].id).ok();
      ++reads;
    }
  });
  std::thread writer([&] {
    for (int i = 1000; !stop; ++i) {
      const StateRecord state = MakeState({i});
      failures += !Commit(Put(state, PayloadOf(i))).ok();
      failures += !Commit(DeleteState{kTenant, state.id}).ok();
      ++writes;
    }
  });
  while (reads < 5 || writes < 2) std::this_thread::yield();
  const GarbageReport report = Collect({.full = true});
  EXPECT_EQ(report.stale_keys, 0);
  EXPECT_EQ(report.orphaned_payloads, 0);
  stop = true;
  reader.join();
  writer.join();
  EXPECT_EQ(failures, 0);
  ExpectTheOthersWhole();
}

TEST_F(GarbageTest, ItCanBeStoppedAtAnyStep) {
  PutMany(20);
  DeleteEverySecond();
  int steps = 0;
  Collect({.keep_going = [&] { return ++steps > 0; }});
  ASSERT_GT(steps, 5);
  for (int last = 1; last < 6; ++last) {
    GarbageOptions options;
    int step = 0;
    options.keep_going = [&] { return ++step < last; };
    EXPECT_THAT(store_->CollectGarbage(options).status(),
                FailsWith(absl::StatusCode::kCancelled, "stopped"));
    ExpectTheOthersWhole();
  }
}

}  // namespace
}  // namespace anabranch
