// One pass over the library names everything that is damaged, by the right name, and nothing else.
#include <rocksdb/db.h>

#include <fstream>
#include <map>
#include <random>

#include "statestore/key_schema.h"
#include "statestore/prefix_index.h"
#include "statestore/stopped_library.h"
#include "tests/statestore/closed_library.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

struct WholeScrub {
  std::vector<DamagedPart> damaged;
  int64_t states = 0, blobs = 0, records = 0;
  int steps = 0;
};

template <typename Next>
WholeScrub ScrubAll(Next next) {
  WholeScrub all;
  std::string from;
  do {
    const absl::StatusOr<ScrubStep> step = next(from);
    EXPECT_TRUE(step.ok()) << step.status();
    if (!step.ok()) return all;
    all.damaged.insert(all.damaged.end(), step->damaged.begin(), step->damaged.end());
    all.states += step->states_checked;
    all.blobs += step->blobs_checked;
    all.records += step->records_checked;
    ++all.steps;
    from = step->next;
  } while (!from.empty());
  return all;
}

class ScrubTest : public LibraryTest {
 protected:
  WholeScrub Scrub(uint64_t step_bytes = 1 << 20) {
    return ScrubAll([&](const std::string& from) { return store_->Scrub(from, step_bytes); });
  }
  // As a repair does.
  void DropAllStale() {
    for (const DamagedPart& part : Scrub().damaged) {
      Mutation mutation;
      mutation.operations.assign(part.stale.begin(), part.stale.end());
      EXPECT_FALSE(mutation.operations.empty()) << part.problem;
      EXPECT_EQ(store_->CommitAndWait(std::move(mutation)), absl::OkStatus());
    }
  }
  // Under the library's feet; it is closed meanwhile.
  template <typename Edit>
  void WithRocks(Edit edit) {
    Close();
    rocksdb::ColumnFamilyOptions family;  // as the library's own
    family.compression = rocksdb::kNoCompression;
    family.enable_blob_files = true;
    family.min_blob_size = 4096;
    WithClosedLibrary(options_.directory + "/rocksdb", edit, family);
    Reopen();
  }
  void Flip(Family family, const std::string& key) {
    WithRocks([&](rocksdb::DB& db, const auto& handles) {
      EditStoredValue(db, handles[static_cast<int>(family)], key,
                      [](std::string& value) { value[value.size() / 2] ^= 1; });
    });
  }
  void Remove(Family family, const std::string& key) {
    WithRocks([&](rocksdb::DB& db, const auto& handles) {
      ASSERT_TRUE(db.Delete({}, handles[static_cast<int>(family)], key).ok());
    });
  }
};

TEST_F(ScrubTest, AWholeLibraryHasNoFindingsHoweverSmallTheSteps) {
  const StateRecord root = MakeState({1, 2});
  PutState put = Put(MakeState({3}, &root));
  put.record.blob_hashes = {"h1", "h2"};
  put.blobs = {"one", "two"};
  ASSERT_TRUE(Commit(Put(root), put, SetRef{kTenant, "main", put.record.id, {}},
                     NewSession("chat", &root), AppendLog{kTenant, "chat", 2, {5}},
                     PutAnswer{kTenant, "request", "answer"})
                  .ok());
  for (const uint64_t bytes : {1, 1 << 20}) {
    const WholeScrub all = Scrub(bytes);
    EXPECT_THAT(all.damaged, IsEmpty());
    EXPECT_EQ(all.states, 2);
    EXPECT_EQ(all.blobs, 2);
    EXPECT_GT(all.records, 4);
  }
  EXPECT_THAT(store_->Scrub("nonsense", 1).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "from"));
  Close();
  const auto stopped = StoppedLibrary::Open(options_.directory);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(ScrubAll([&](const std::string& from) { return (*stopped)->Next(from, 1); }).states, 2);
}

TEST_F(ScrubTest, OneFlippedByteInAThousandPayloadFilesIsFoundByName) {
  constexpr int kStates = 1000;
  std::vector<StateRecord> states;
  for (int i = 0; i < kStates; ++i) {
    states.push_back(MakeState({i, 7}));
    // Every payload says in its bytes whose it is.
    const std::string mark = "<" + states.back().id + ">";
    std::string payload;
    while (payload.size() < 5000) payload += mark;
    ASSERT_TRUE(Commit(Put(states.back(), payload)).ok());
  }
  // Everything goes from the log into tables and blob files.
  WithRocks([&](rocksdb::DB& db, const auto& handles) {
    rocksdb::FlushOptions flush;
    ASSERT_TRUE(db.Flush(flush, handles).ok());
  });
  Close();
  const std::string victim = states[617].id;
  int flipped = 0;
  for (const auto& file : fs::directory_iterator(options_.directory + "/rocksdb")) {
    std::fstream stream(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const size_t at = bytes.find("<" + victim + "><");
    if (file.path().extension() == ".log" || at == std::string::npos) continue;
    stream.clear();
    stream.seekp(static_cast<std::streamoff>(at + 20));
    stream.put(static_cast<char>(bytes[at + 20] ^ 4));
    ++flipped;
  }
  ASSERT_EQ(flipped, 1);
  Reopen();
  const WholeScrub all = Scrub(64 << 10);
  EXPECT_EQ(all.states, kStates);
  ASSERT_THAT(all.damaged, SizeIs(1));
  EXPECT_EQ(all.damaged[0].name, victim);
  EXPECT_THAT(all.damaged[0].states, ElementsAre(victim));
  EXPECT_THAT(all.damaged[0].problem, HasSubstr("payload of state " + victim));
  for (const StateRecord& state : states) {
    EXPECT_EQ(store_->GetPayload(kTenant, state.id).ok(), state.id != victim);
  }
}

// Every byte of a file of values, whatever it means: what is read is right or refused, and the
// scrub names the file, also where no read comes by.
TEST_F(ScrubTest, AFlippedByteAnywhereInAFileOfValuesIsFound) {
  std::vector<StateRecord> states;
  for (int i = 0; i < 3; ++i) {
    states.push_back(MakeState({i}));
    ASSERT_TRUE(Commit(Put(states.back(), std::string(5000, static_cast<char>('a' + i)))).ok());
  }
  ASSERT_TRUE(store_->CollectGarbage({}).ok());  // what is in memory goes into files
  Close();
  fs::path values;
  for (const auto& file : fs::directory_iterator(options_.directory + "/rocksdb")) {
    if (file.path().extension() == ".blob") values = file.path();
  }
  ASSERT_FALSE(values.empty());
  const auto flip = [&](size_t at) {
    std::fstream stream(values, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(stream.get() ^ 8);
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(byte);
  };
  int unseen_by_reads = 0;
  const size_t size = fs::file_size(values);
  for (size_t at = 0; at < size; at += at < 200 || at + 64 > size ? 7 : 997) {
    SCOPED_TRACE(testing::Message() << "byte " << at << " of " << size);
    flip(at);
    auto store = OpenStateStore(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    bool refused = false;
    for (int i = 0; i < 3; ++i) {
      const auto payload = (*store)->GetPayload(kTenant, states[i].id);
      if (payload.ok()) EXPECT_EQ(*payload, std::string(5000, static_cast<char>('a' + i)));
      refused = refused || !payload.ok();
    }
    if (!refused && ++unseen_by_reads == 1) {
      BackupRequest backup;
      backup.directory = options_.directory + ".backups";
      EXPECT_FALSE((*store)->Backup(backup).ok()) << "a damaged file was backed up as whole";
    }
    const WholeScrub all =
        ScrubAll([&](const std::string& from) { return (*store)->Scrub(from, 1 << 20); });
    ASSERT_FALSE(all.damaged.empty()) << "not reported";
    EXPECT_EQ(all.damaged.back().kind, "file");
    EXPECT_EQ(all.damaged.back().name, values.filename());
    store->reset();
    flip(at);
  }
  EXPECT_GT(unseen_by_reads, 0);  // or the scrub of whole files would not be needed
  Reopen();
  EXPECT_THAT(Scrub().damaged, IsEmpty());
}

TEST_F(ScrubTest, EveryKindOfDamageIsNamed) {
  const StateRecord root = MakeState({1, 2}), other = MakeState({9});
  PutState put = Put(MakeState({3}, &root));
  put.record.blob_hashes = {"h1"};
  put.blobs = {std::string(10000, 'b')};
  ASSERT_TRUE(Commit(Put(root), Put(other), put, SetRef{kTenant, "main", put.record.id, {}},
                     NewSession("chat"), AppendLog{kTenant, "chat", 0, {5}},
                     PutAnswer{kTenant, "request", "answer"})
                  .ok());
  Flip(Family::kStates, NamedKey(kTenant, other.id));
  Flip(Family::kPayloads, NamedKey(kTenant, root.id));
  Flip(Family::kBlobs, NamedKey(kTenant, "h1"));
  Flip(Family::kRefs, NamedKey(kTenant, "main"));
  Flip(Family::kLog, LogChunkKey(kTenant, "chat", 0));
  Flip(Family::kAnswers, NamedKey(kTenant, "request"));
  Remove(Family::kTimeline,
         TimelineKey(kTenant, absl::ToUnixNanos(store_->GetState(kTenant, put.record.id)->created),
                     put.record.id));
  std::map<std::string, std::vector<std::string>> found;
  for (const DamagedPart& part : Scrub().damaged) found[part.kind].push_back(part.name);
  EXPECT_THAT(found["state"], testing::UnorderedElementsAre(root.id, other.id));
  EXPECT_THAT(found["block"], ElementsAre("h1"));
  EXPECT_THAT(found["ref"], ElementsAre("main"));
  EXPECT_THAT(found["session"], ElementsAre("chat"));
  EXPECT_THAT(found["answer"], ElementsAre("request"));
  EXPECT_THAT(found["index"], ElementsAre(put.record.id));
  for (const DamagedPart& part : Scrub().damaged) {
    if (part.kind == "block") EXPECT_THAT(part.states, ElementsAre(put.record.id));
  }
  // Putting a state again heals payload, block and indexes.
  ASSERT_TRUE(Commit(Put(root), Put(other), put).ok());
  found.clear();
  for (const DamagedPart& part : Scrub().damaged) found[part.kind].push_back(part.name);
  EXPECT_THAT(found["state"], IsEmpty());
  EXPECT_THAT(found["block"], IsEmpty());
  // The time at which it was created was lost with the record, and has left its entry.
  EXPECT_THAT(found["index"], ElementsAre(other.id));
}

TEST_F(ScrubTest, DamagedAndMissingPartsOfPayloadsAreNamed) {
  options_.payload_part_bytes = 1000;
  Reopen();
  std::vector<StateRecord> states;
  for (int i = 0; i < 3; ++i) {
    states.push_back(MakeState({i}));
    ASSERT_TRUE(Commit(Put(states[i], std::string(4500, static_cast<char>('a' + i)))).ok());
  }
  Flip(Family::kPayloads, PayloadPartKey(kTenant, states[0].id, 2));
  Remove(Family::kPayloads, PayloadPartKey(kTenant, states[2].id, 4));
  std::map<std::string, std::string> found;
  for (const DamagedPart& part : Scrub().damaged) found[part.name] = part.problem;
  EXPECT_THAT(found, SizeIs(2));
  EXPECT_THAT(found[states[0].id], HasSubstr("part 3 of 5: the record's checksum does not match"));
  EXPECT_THAT(found[states[2].id], HasSubstr("part 5 of 5: it is missing"));
  ASSERT_TRUE(
      Commit(Put(states[0], std::string(4500, 'a')), DeleteState{kTenant, states[2].id}).ok());
  EXPECT_THAT(Scrub().damaged, IsEmpty());
}

TEST_F(ScrubTest, PayloadsThatNoRecordNamesAreToldWithTheirBytesAndCanBeDropped) {
  options_.payload_part_bytes = 1000;
  Reopen();
  std::vector<StateRecord> states;
  for (int i = 0; i < 5; ++i) {
    states.push_back(MakeState({i}));
    ASSERT_TRUE(Commit(Put(states[i], std::string(2500, static_cast<char>('a' + i)))).ok());
  }
  const std::string nobody = MakeState({7}).id;
  WithRocks([&](rocksdb::DB& db, const auto& handles) {
    auto* family = handles[static_cast<int>(Family::kPayloads)];
    for (const std::string& key :
         {PayloadPartKey(kTenant, nobody, 0), PayloadPartKey(kTenant, nobody, 1),
          PayloadPartKey(kTenant, states[2].id, 3)}) {
      ASSERT_TRUE(db.Put({}, family, key, std::string(700, 'x')).ok());
    }
  });
  for (const uint64_t step_bytes : {1, 1 << 20}) {
    std::map<std::string, std::string> found;
    for (const DamagedPart& part : Scrub(step_bytes).damaged) {
      EXPECT_EQ(part.kind, "payload");
      found[part.name] = part.problem;
    }
    EXPECT_THAT(found, SizeIs(2));
    EXPECT_THAT(found[nobody], HasSubstr("2 values of 1400 bytes"));
    EXPECT_THAT(found[states[2].id], HasSubstr("1 values of 700 bytes"));
  }
  DropAllStale();
  EXPECT_THAT(Scrub().damaged, IsEmpty());
  for (const StateRecord& state : states) {
    EXPECT_TRUE(store_->GetPayload(kTenant, state.id).ok());
  }
}

TEST_F(ScrubTest, EntriesThatLeadNowhereAreNamedAndCanBeDropped) {
  const StateRecord root = MakeState({1, 2}), gone = MakeState({3});
  ASSERT_TRUE(Commit(Put(root), SetRef{kTenant, "main", root.id, {}}).ok());
  const PrefixHasher hasher(std::string(192, 'k'));
  const std::string scope = hasher.Scope(gone.fingerprint, gone.numerics_profile);
  const std::pair<Family, std::string> planted[] = {
      {Family::kEdges, EdgeKey(kTenant, Edge::kChild, root.id, gone.id)},
      {Family::kEdges, EdgeKey(kTenant, Edge::kRef, root.id, "none")},
      {Family::kPrefixes, PrefixEntryKey(PrefixScopeKey(kTenant, scope), 1, scope, gone.id)},
      {Family::kLog, LogChunkKey(kTenant, "nobody", 0)},
      {Family::kTimeline, TimelineKey(kTenant, 5, root.id)}};
  WithRocks([&](rocksdb::DB& db, const auto& handles) {
    for (const auto& [family, key] : planted) {
      ASSERT_TRUE(db.Put({}, handles[static_cast<int>(family)], key, "").ok());
    }
  });
  std::vector<std::string> names;
  for (const DamagedPart& part : Scrub().damaged) {
    EXPECT_EQ(part.kind, "index");
    EXPECT_THAT(part.problem, HasSubstr("leads nowhere"));
    names.push_back(part.name);
  }
  EXPECT_THAT(names,
              testing::UnorderedElementsAre(root.id, root.id, "prefixes", "nobody", root.id));
  DropAllStale();
  EXPECT_THAT(Scrub().damaged, IsEmpty());
  EXPECT_TRUE(store_->GetRef(kTenant, "main").ok());
}

TEST_F(ScrubTest, AStateWhoseRecordIsGoneIsNamedByTheIndexes) {
  const StateRecord root = MakeState({1});
  ASSERT_TRUE(Commit(Put(root)).ok());
  Remove(Family::kStates, NamedKey(kTenant, root.id));
  const WholeScrub all = Scrub();
  bool named = false;
  for (const DamagedPart& part : all.damaged) {
    named = named || (part.kind == "state" && part.name == root.id);
  }
  EXPECT_TRUE(named);
}

}  // namespace
}  // namespace anabranch
