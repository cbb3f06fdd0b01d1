// Damaged libraries: flipped bytes, lost files, old copies. Damage is reported with the name of
// what is damaged, or the library does not open; nothing wrong is ever returned.
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <fstream>

#include "statestore/high_water_mark.h"
#include "statestore/key_schema.h"
#include "tests/statestore/closed_library.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

class DamageTest : public LibraryTest {
 protected:
  std::string database() const { return options_.directory + "/rocksdb"; }
  std::string mark() const { return options_.directory + "/high-water-mark"; }

  // Changes a stored value under the library's feet. The library is closed meanwhile.
  template <typename Edit>
  void EditValue(Family family, const std::string& key, Edit edit) {
    Close();
    WithClosedLibrary(database(), [&](rocksdb::DB& db, const auto& handles) {
      EditStoredValue(db, handles[static_cast<int>(family)], key, edit);
    });
    Reopen();
  }
  void FlipByte(const fs::path& path, std::streamoff offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(offset);
    file.put(byte);
  }
  // The newest write-ahead log.
  fs::path Wal() const {
    fs::path newest;
    for (const auto& file : fs::directory_iterator(database())) {
      if (file.path().extension() == ".log" && file.path() > newest) newest = file.path();
    }
    return newest;
  }
  fs::path Manifest() const {
    std::string name = Contents(database() + "/CURRENT");
    name.pop_back();
    return fs::path(database()) / name;
  }
  static std::string Contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void CommitSessions(int from, int to) {
    for (int i = from; i < to; ++i) {
      ASSERT_EQ(Commit(NewSession("s" + std::to_string(i))), absl::OkStatus());
    }
  }
  absl::Status OpenStatus() { return OpenStateStore(options_).status(); }
};

void FlipMiddle(std::string& value) { value[value.size() / 2] ^= 1; }

TEST_F(DamageTest, EveryFlippedByteOfARecordIsFound) {
  const StateRecord root = MakeState({1, 2});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  for (size_t i = 0; i < 120; i += 30) {
    const auto flip = [i](std::string& value) { value[i % value.size()] ^= 0x10; };
    EditValue(Family::kStates, NamedKey(kTenant, root.id), flip);
    EXPECT_THAT(store_->GetState(kTenant, root.id).status(), FailsWith(kDataLoss, root.id));
    EXPECT_THAT(store_->GetPayload(kTenant, root.id).status(), FailsWith(kDataLoss, root.id));
    EditValue(Family::kStates, NamedKey(kTenant, root.id), flip);
  }
  EXPECT_TRUE(store_->GetState(kTenant, root.id).ok());
}

TEST_F(DamageTest, DamagedPayloadIsNamedAndReplacedByPuttingTheStateAgain) {
  const StateRecord root = MakeState({1}), other = MakeState({2});
  ASSERT_EQ(Commit(Put(root), Put(other), SetRef{kTenant, "main", root.id, {}}), absl::OkStatus());
  EditValue(Family::kPayloads, NamedKey(kTenant, root.id), FlipMiddle);
  EXPECT_THAT(store_->GetPayload(kTenant, root.id).status(),
              FailsWith(kDataLoss, "payload of state " + root.id));
  EXPECT_EQ(store_->GetPayload(kTenant, other.id).value(), "payload");
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  EXPECT_EQ(store_->GetPayload(kTenant, root.id).value(), "payload");
  EditValue(Family::kPayloads, NamedKey(kTenant, root.id),
            [](std::string& value) { value += "x"; });
  EXPECT_THAT(store_->GetPayload(kTenant, root.id).status(), FailsWith(kDataLoss, "8 bytes"));
}

TEST_F(DamageTest, DamagedRecordIsReplacedByPuttingTheStateAgain) {
  const StateRecord root = MakeState({1});
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  EditValue(Family::kStates, NamedKey(kTenant, root.id), FlipMiddle);
  EXPECT_THAT(store_->ListStates(kTenant, {}, {}).status(), FailsWith(kDataLoss, root.id));
  ASSERT_EQ(Commit(Put(root)), absl::OkStatus());
  EXPECT_EQ(store_->ListStates(kTenant, {}, {})->items.size(), 1u);
}

TEST_F(DamageTest, DamagedBlobRefSessionAndLogAreNamed) {
  PutState put = Put(MakeState({1}));
  put.record.blob_hashes = {"h1"};
  put.blobs = {std::string(10000, 'b')};
  ASSERT_EQ(Commit(put, SetRef{kTenant, "main", put.record.id, {}}, NewSession("chat"),
                   AppendLog{kTenant, "chat", 0, {1, 2}}),
            absl::OkStatus());
  EditValue(Family::kBlobs, NamedKey(kTenant, "h1"), FlipMiddle);
  EXPECT_THAT(store_->GetBlob(kTenant, "h1").status(), FailsWith(kDataLoss, "blob h1"));
  ASSERT_EQ(Commit(put), absl::OkStatus());
  EXPECT_EQ(store_->GetBlob(kTenant, "h1").value(), put.blobs[0]);
  EditValue(Family::kRefs, NamedKey(kTenant, "main"), FlipMiddle);
  EXPECT_THAT(store_->GetRef(kTenant, "main").status(), FailsWith(kDataLoss, "ref main"));
  EditValue(Family::kLog, LogChunkKey(kTenant, "chat", 0), FlipMiddle);
  EXPECT_THAT(store_->GetLog(kTenant, "chat").status(), FailsWith(kDataLoss, "session chat"));
  EditValue(Family::kSessions, NamedKey(kTenant, "chat"), FlipMiddle);
  EXPECT_THAT(store_->GetSession(kTenant, "chat").status(), FailsWith(kDataLoss, "session chat"));
}

TEST_F(DamageTest, ValueUnderAnotherKeyIsFound) {
  const StateRecord a = MakeState({1}), b = MakeState({2});
  ASSERT_EQ(Commit(Put(a), Put(b), SetRef{kTenant, "a", a.id, {}}, SetRef{kTenant, "b", b.id, {}}),
            absl::OkStatus());
  std::string of_a;
  EditValue(Family::kRefs, NamedKey(kTenant, "a"), [&](std::string& value) { of_a = value; });
  EditValue(Family::kRefs, NamedKey(kTenant, "b"), [&](std::string& value) { value = of_a; });
  EXPECT_THAT(store_->GetRef(kTenant, "b").status(), FailsWith(kDataLoss, "ref b"));
}

// RocksDB opens cleanly after dropping what follows damage in its log: the mark must notice.
TEST_F(DamageTest, DamageInsideTheLogIsNoSilentRollback) {
  CommitSessions(0, 40);
  Close();
  const fs::path wal = Wal();
  const std::string pristine = directory_.path() + "/pristine";
  fs::copy(options_.directory, pristine, fs::copy_options::recursive);
  const auto size = static_cast<std::streamoff>(fs::file_size(wal));
  int refused = 0;
  for (std::streamoff offset = 100; offset < size; offset += size / 12) {
    SCOPED_TRACE(offset);
    FlipByte(wal, offset);
    EXPECT_EQ(OpenStatus().code(), kDataLoss) << OpenStatus();
    // What follows the damage is still there for a repair: undo the damage, and nothing is lost.
    FlipByte(wal, offset);
    EXPECT_EQ(OpenStatus(), absl::OkStatus());
    ++refused;
    fs::remove_all(options_.directory);
    fs::copy(pristine, options_.directory, fs::copy_options::recursive);
  }
  EXPECT_GE(refused, 10);
  Reopen();
  EXPECT_EQ(store_->ListSessions(kTenant, "", {})->items.size(), 40u);
}

// A power loss in the middle of an append: a part of an entry, or sectors that were never written.
TEST_F(DamageTest, ATornEndOfTheListOfFilesIsNoReasonToRefuse) {
  CommitSessions(0, 20);
  Close();
  const fs::path manifest = Manifest();
  std::string list = Contents(manifest);
  const std::string entry = list.substr(0, 300);  // as good as any
  for (const std::string& tail :
       {entry.substr(0, 3), entry.substr(0, 40), std::string(700, '\0'),
        entry.substr(0, 20) + std::string(280, '\0'), std::string(512, '\0') + entry.substr(200)}) {
    std::ofstream(Manifest(), std::ios::app | std::ios::binary) << tail;
    ASSERT_EQ(OpenStatus(), absl::OkStatus()) << tail.size();
    Reopen();
    EXPECT_EQ(store_->GetSession(kTenant, "s19").status(), absl::OkStatus());
    Close();
  }
  // RocksDB alone had refused, and what it refused is there to be looked at.
  EXPECT_TRUE(fs::exists(options_.directory + "/torn-manifest"));
}

TEST_F(DamageTest, DamageInsideTheListOfFilesIsRefusedAndNotTouched) {
  CommitSessions(0, 20);
  Reopen();
  CommitSessions(20, 30);
  Close();
  FlipByte(Manifest(), 40);
  const std::string damaged = Contents(Manifest());
  EXPECT_EQ(OpenStatus().code(), kDataLoss);
  EXPECT_EQ(Contents(Manifest()), damaged);
}

TEST_F(DamageTest, TruncatedLogIsRefusedWithBothNumbers) {
  CommitSessions(0, 20);
  Close();
  fs::resize_file(Wal(), fs::file_size(Wal()) / 2);
  EXPECT_THAT(OpenStatus(), FailsWith(kDataLoss, "acknowledged commits up to 20"));
}

TEST_F(DamageTest, OlderCopyOfTheDatabaseIsRefusedUnlessAccepted) {
  CommitSessions(0, 3);
  Close();
  const std::string copy = directory_.path() + "/copy";
  fs::copy(database(), copy, fs::copy_options::recursive);
  Reopen();
  CommitSessions(3, 8);
  Close();
  fs::remove_all(database());
  fs::copy(copy, database(), fs::copy_options::recursive);
  const absl::Status status = OpenStatus();
  EXPECT_THAT(status, FailsWith(kDataLoss, "commits up to 8"));
  EXPECT_THAT(status, FailsWith(kDataLoss, "up to 3 were recovered"));
  options_.accept_data_loss = true;
  Reopen();
  EXPECT_EQ(store_->ListSessions(kTenant, "", {})->items.size(), 3u);
  options_.accept_data_loss = false;
  Reopen();
}

TEST_F(DamageTest, LostDatabaseIsNotMistakenForANewLibrary) {
  CommitSessions(0, 3);
  Close();
  fs::remove_all(database());
  EXPECT_THAT(OpenStatus(), FailsWith(kDataLoss, options_.directory));
}

TEST_F(DamageTest, LostOrDamagedMarkIsRefusedUnlessAccepted) {
  CommitSessions(0, 3);
  Close();
  fs::remove(mark());
  EXPECT_THAT(OpenStatus(), FailsWith(kDataLoss, "high-water-mark"));
  options_.accept_data_loss = true;
  Reopen();
  options_.accept_data_loss = false;
  CommitSessions(3, 6);
  Close();
  FlipByte(mark(), 20);
  FlipByte(mark(), 4096 + 20);
  EXPECT_THAT(OpenStatus(), FailsWith(kDataLoss, "damaged"));
}

TEST_F(DamageTest, OneDamagedSlotOfTheMarkIsSurvived) {
  CommitSessions(0, 4);
  for (std::streamoff slot : {0, 4096}) {
    Close();
    FlipByte(mark(), slot + 20);
    Reopen();
    ASSERT_NE(store_, nullptr);
    ASSERT_EQ(Commit(NewSession("again")), absl::OkStatus());
    ASSERT_EQ(Commit(NewSession("again")), absl::OkStatus());
  }
}

TEST_F(DamageTest, ShortMarkFilesOfAnyLengthAreRefused) {
  CommitSessions(0, 3);
  Close();
  const std::string kept = directory_.path() + "/mark";
  fs::copy_file(mark(), kept);
  for (uintmax_t size : {0, 1, 31, 32, 100}) {
    fs::copy_file(kept, mark(), fs::copy_options::overwrite_existing);
    fs::resize_file(mark(), size);
    const absl::Status status = OpenStatus();
    // Slot 0 alone may hold the older mark.
    EXPECT_TRUE(status.code() == kDataLoss || size >= 32) << size << ": " << status;
  }
}

TEST_F(DamageTest, NewerFormatIsRefusedAndNotTouched) {
  CommitSessions(0, 2);
  Close();
  ASSERT_TRUE(HighWaterMark::Create(*rocksdb::Env::Default(), mark(), {4, 2}).ok());
  const auto before = fs::last_write_time(database() + "/CURRENT");
  const fs::path wal = Wal();
  EXPECT_THAT(OpenStatus(), FailsWith(absl::StatusCode::kFailedPrecondition, "format version 4"));
  EXPECT_EQ(fs::last_write_time(database() + "/CURRENT"), before);
  EXPECT_EQ(Wal(), wal);
}

}  // namespace
}  // namespace anabranch
