// States that move between servers, backups of a served library, and damage that is found and
// repaired: over real servers, through the client and the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/time/clock.h"
#include "clients/cpp/bundle_file.h"
#include "nlohmann/json.hpp"
#include "statestore/key_schema.h"
#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"
#include "tests/statestore/closed_library.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kTenant[] = "default";

// A server with its clients; the library outlives it.
struct Place {
  Place(const std::string& model, const std::string& directory, const std::string& backups = "") {
    ServerConfig config = TestConfig(model, directory);
    config.backup_root = backups;
    auto started = Server::Start(config);
    EXPECT_TRUE(started.ok()) << started.status();
    if (!started.ok()) return;
    server = *std::move(started);
    raw = std::make_unique<TestClient>(server->address());
    client = std::make_unique<Client>(ClientOptions{.address = server->address()});
  }

  int Run(std::vector<std::string> args) {
    CliRun run = RunCli(*server, std::move(args));
    out = std::move(run.out);
    err = std::move(run.err);
    return run.code;
  }
  // A session that reads the tokens, 100 at a time with a state after each, committed to its ref.
  std::string Read(const std::string& id, int parts, int32_t vocab) {
    raw->MustCreate(id);
    for (int i = 0; i < parts; ++i) {
      EXPECT_TRUE(raw->AppendTokens(id, SomeTokens(100, i, vocab)).has_done);
    }
    v1::CommitRequest commit;
    commit.set_session_id(id);
    v1::CommitResponse committed;
    EXPECT_TRUE(raw->Commit(commit, &committed).ok());
    return committed.state().id();
  }
  void CreateFrom(const std::string& id, const std::string& ref) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    request.set_ref_name(ref);
    v1::CreateSessionResponse response;
    const grpc::Status status = raw->Create(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.usage().tokens_replayed() + response.usage().tokens_read(), 0);
  }
  std::vector<int32_t> Continue(const std::string& id) {
    v1::GenerateRequest request;
    request.set_session_id(id);
    request.set_max_tokens(32);
    request.mutable_sampling()->set_seed(7);
    request.set_ignore_eos(true);
    EXPECT_TRUE(raw->Generate(request).has_done);
    return raw->SessionTokens(id);
  }
  std::vector<v1::State> States() { return client->ListStates().value(); }

  std::unique_ptr<Server> server;
  std::unique_ptr<TestClient> raw;
  std::unique_ptr<Client> client;
  std::string out, err;
};

class MovementTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  static v1::ExportRequest Lineage(const std::string& ref) {
    v1::ExportRequest request;
    request.set_id(ref);
    request.set_lineage(true);
    return request;
  }
  static std::string Bytes(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return content.str();
  }

  TempDir dir_;
};

// Recurrent alone, and with keys and values in blocks that relatives share.
class MovementOfModelsTest : public MovementTest,
                             public testing::WithParamInterface<const char*> {};

TEST_P(MovementOfModelsTest, ALineageThatMovedGoesOnWithTheSameTokens) {
  Place here(GoldenModel(GetParam()), Path("here")), there(GoldenModel(GetParam()), Path("there"));
  const std::string id = here.Read("ada", 6, 257);
  const auto saved = ExportToFile(*here.client, Lineage("ada"), Path("ada.bundle"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->state_id(), id);
  EXPECT_EQ(saved->whole_state_count(), 6);
  EXPECT_EQ(saved->size_bytes(), static_cast<int64_t>(fs::file_size(Path("ada.bundle"))));

  const auto moved = ImportFromFile(*there.client, {}, Path("ada.bundle"));
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->state().id(), id);
  EXPECT_EQ(moved->states_added(), 6);
  EXPECT_THAT(moved->refs_set(), ElementsAre("ada"));
  there.CreateFrom("twin", "ada");
  EXPECT_EQ(there.raw->Fingerprint("twin"), here.raw->Fingerprint("ada"));
  EXPECT_EQ(there.Continue("twin"), here.Continue("ada"));
  // Every position that came along is gone back to without reading again.
  v1::RewindResponse rewound;
  ASSERT_TRUE(there.raw->Rewind("twin", 300, false, &rewound).ok());
  EXPECT_EQ(rewound.tokens_to_replay(), 0);

  // Once more: nothing changes. And what goes the other way is the same file.
  const auto again = ImportFromFile(*there.client, {}, Path("ada.bundle"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->states_unchanged(), 6);
  EXPECT_EQ(again->states_added() + again->states_completed(), 0);
  ASSERT_TRUE(ExportToFile(*there.client, Lineage("ada"), Path("back.bundle")).ok());
  EXPECT_EQ(Bytes(Path("back.bundle")), Bytes(Path("ada.bundle")));
}

TEST_P(MovementOfModelsTest, AStateAloneMovesWithItsTokensAndIsCompletedByItsLineage) {
  Place here(GoldenModel(GetParam()), Path("here")), there(GoldenModel(GetParam()), Path("there"));
  here.Read("ada", 4, 257);
  v1::ExportRequest alone;
  alone.set_id("ada");
  alone.set_skip_refs(true);
  ASSERT_TRUE(ExportToFile(*here.client, alone, Path("alone.bundle")).ok());
  v1::ImportStart start;
  start.set_ref("moved/ada");
  const auto moved = ImportFromFile(*there.client, start, Path("alone.bundle"));
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->bundle().whole_state_count(), 1);
  EXPECT_EQ(moved->ref().state_id(), moved->state().id());
  there.CreateFrom("twin", "moved/ada");
  EXPECT_EQ(there.raw->SessionTokens("twin"), here.raw->SessionTokens("ada"));
  EXPECT_EQ(there.raw->Fingerprint("twin"), here.raw->Fingerprint("ada"));
  // Going back costs reading, and gives the same.
  v1::RewindResponse rewound;
  ASSERT_TRUE(there.raw->Rewind("twin", 200, false, &rewound).ok());
  EXPECT_EQ(rewound.tokens_to_replay(), 200);
  ASSERT_TRUE(here.raw->Rewind("ada", 200, false, &rewound).ok());
  EXPECT_EQ(there.raw->Fingerprint("twin"), here.raw->Fingerprint("ada"));

  ASSERT_TRUE(ExportToFile(*here.client, Lineage(moved->state().id()), Path("all.bundle")).ok());
  const auto all = ImportFromFile(*there.client, {}, Path("all.bundle"));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->states_added(), 0);
  EXPECT_GE(all->states_completed(), 2);  // one may have been read again by the rewind
}

INSTANTIATE_TEST_SUITE_P(Models, MovementOfModelsTest, testing::Values("mamba2", "falcon_h1"));

TEST_F(MovementTest, BrokenTransfersGoOnWhereTheyWere) {
  Place here(RecallModel(), Path("here")), there(RecallModel(), Path("there"));
  here.Read("ada", 1, 100);
  ASSERT_TRUE(ExportToFile(*here.client, Lineage("ada"), Path("whole.bundle")).ok());
  const std::string whole = Bytes(Path("whole.bundle"));
  ASSERT_GT(whole.size(), 4u << 20);

  // An export whose receiver fails after two chunks, then one that goes on.
  v1::ExportRequest request = Lineage("ada");
  std::string got, bundle_id;
  const auto receive = [&](size_t limit) {
    return [&, limit](const v1::BundleInfo& bundle, int64_t offset, const std::string& data) {
      EXPECT_EQ(offset, static_cast<int64_t>(got.size()));
      bundle_id = bundle.bundle_id();
      if (got.size() >= limit) return absl::InternalError("the receiver's disk is full");
      got += data;
      return absl::OkStatus();
    };
  };
  EXPECT_THAT(here.client->Export(request, receive(2 << 20)).status().message(),
              HasSubstr("disk is full"));
  ASSERT_EQ(got.size(), 2u << 20);
  request.set_offset(static_cast<int64_t>(got.size()));
  request.set_bundle_id(bundle_id);
  ASSERT_TRUE(here.client->Export(request, receive(whole.size())).ok());
  EXPECT_EQ(got, whole);

  // An import whose source fails after three chunks, then one through another server process.
  v1::ImportStart start;
  start.set_transfer_id("test");
  start.set_size_bytes(static_cast<int64_t>(whole.size()));
  std::vector<int64_t> asked;
  std::atomic<int64_t> arrived = 0;
  const auto send = [&](int64_t limit) {
    return [&, limit](int64_t offset, size_t count) -> absl::StatusOr<std::string> {
      asked.push_back(offset);
      if (offset >= limit) {
        while (arrived == 0) absl::SleepFor(absl::Milliseconds(1));
        return absl::InternalError("the sender is gone");
      }
      return whole.substr(offset, count);
    };
  };
  EXPECT_THAT(there.client
                  ->Import(start, send(3 << 20),
                           [&](const v1::ImportProgress& each) { arrived = each.received_bytes(); })
                  .status()
                  .message(),
              HasSubstr("sender is gone"));
  EXPECT_THAT(there.States(), IsEmpty());
  there.server.reset();
  Place again(RecallModel(), Path("there"));
  asked.clear();
  const auto moved = again.client->Import(start, send(1 << 30));
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_GT(asked.front(), 0) << "it began anew";
  EXPECT_LE(asked.front(), 3 << 20);
  again.CreateFrom("twin", "ada");
  EXPECT_EQ(again.Continue("twin"), here.Continue("ada"));
  EXPECT_TRUE(fs::is_empty(Path("there") + "/imports"));
}

TEST_F(MovementTest, AChangedBundleIsNotGluedToTheOldOne) {
  Place here(RecallModel(), Path("here"));
  here.Read("ada", 1, 100);
  v1::ExportRequest request = Lineage("ada");
  std::string first_id;
  ASSERT_FALSE(here.client
                   ->Export(request,
                            [&](const v1::BundleInfo& bundle, int64_t, const std::string& data) {
                              first_id = bundle.bundle_id();
                              std::ofstream(Path("ada.bundle.part"), std::ios::binary) << data;
                              std::ofstream(Path("ada.bundle.part.id")) << first_id;
                              return absl::InternalError("broken");
                            })
                   .ok());
  v1::SetRefRequest rename;
  rename.set_name("ada/named");
  rename.set_state_id("ada");
  ASSERT_TRUE(here.client->SetRef(rename).ok());
  request.set_offset(1);
  request.set_bundle_id(first_id);
  const auto changed = here.client->Export(
      request, [](const v1::BundleInfo&, int64_t, const std::string&) { return absl::OkStatus(); });
  EXPECT_EQ(ErrorReason(changed.status()), "BUNDLE_CHANGED");
  const auto saved = ExportToFile(*here.client, Lineage("ada"), Path("ada.bundle"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_NE(saved->bundle_id(), first_id);
  EXPECT_EQ(saved->ref_count(), 2);
  EXPECT_FALSE(fs::exists(Path("ada.bundle.part")));
}

TEST_F(MovementTest, WhatDoesNotBelongHereIsRefusedWithTheReasonAndLeavesNothing) {
  Place here(GoldenModel("mamba2"), Path("here")), there(GoldenModel("mamba"), Path("there"));
  Place same(GoldenModel("mamba2"), Path("same"));
  here.Read("ada", 2, 257);
  ASSERT_TRUE(ExportToFile(*here.client, Lineage("ada"), Path("ada.bundle")).ok());
  const auto refused = ImportFromFile(*there.client, {}, Path("ada.bundle"));
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_EQ(ErrorReason(refused.status()), "MODEL_MISMATCH");
  const auto models = {here.client->GetStatus()->model(), there.client->GetStatus()->model()};
  for (const v1::ModelInfo& model : models) {
    EXPECT_THAT(refused.status().message(), HasSubstr(model.fingerprint()));
  }

  const std::string whole = Bytes(Path("ada.bundle"));
  for (const size_t at : {size_t{20}, whole.size() / 2, whole.size() - 5}) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    std::ofstream(Path("damaged.bundle"), std::ios::binary) << damaged;
    const auto result = ImportFromFile(*same.client, {}, Path("damaged.bundle"));
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
    EXPECT_EQ(ErrorReason(result.status()), "BAD_BUNDLE");
    EXPECT_THAT(result.status().message(), HasSubstr("of the bundle"));
  }
  std::ofstream(Path("short.bundle"), std::ios::binary) << whole.substr(0, whole.size() / 2);
  EXPECT_FALSE(ImportFromFile(*same.client, {}, Path("short.bundle")).ok());
  EXPECT_THAT(same.States(), IsEmpty());
  // A ref that is somewhere else by now.
  same.Read("ada", 1, 100);
  v1::ImportStart start;
  start.set_ref("ada");
  start.set_expected_ref_state_id("-");
  EXPECT_EQ(ErrorReason(ImportFromFile(*same.client, start, Path("ada.bundle")).status()),
            "REF_MISMATCH");
  const auto kept = ImportFromFile(*same.client, {}, Path("ada.bundle"));
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_THAT(kept->refs_kept(), ElementsAre("ada"));
}

TEST_F(MovementTest, ABackupOfAServedLibraryIsRestoredElsewhereAndGoesOn) {
  std::string continued;
  {
    Place here(GoldenModel("mamba2"), Path("here"), Path("backups"));
    here.Read("ada", 3, 257);
    ASSERT_EQ(here.Run({"admin", "backup", "daily", "--keep", "3"}), 0) << here.err;
    EXPECT_THAT(here.out, HasSubstr("read back"));
    ASSERT_TRUE(here.raw->AppendTokens("ada", SomeTokens(50, 9)).has_done);
    ASSERT_EQ(here.Run({"admin", "backup", "daily", "--json"}), 0) << here.err;
    ASSERT_EQ(here.Run({"admin", "backups", "daily"}), 0) << here.err;
    EXPECT_THAT(here.out, HasSubstr("complete"));
    const auto listed = here.client->ListBackups("daily");
    ASSERT_THAT(*listed, SizeIs(2));
    EXPECT_GT((*listed)[0].commit_sequence(), (*listed)[1].commit_sequence());
    EXPECT_EQ(here.Run({"admin", "backup", "../elsewhere"}), 1);
    EXPECT_THAT(here.err, HasSubstr("--backup-root"));
    // The running server's library is not for the offline commands.
    EXPECT_NE(RunAnabranchd({"library", "verify", Path("here")}).exit_status, 0);
  }
  const std::string backups = Path("backups") + "/daily";
  CommandResult result = RunAnabranchd({"library", "list", backups});
  EXPECT_THAT(result.output, HasSubstr("backup 2"));
  result = RunAnabranchd({"library", "verify", backups});
  EXPECT_EQ(result.exit_status, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("all whole"));
  result = RunAnabranchd({"library", "restore", backups, Path("there"), "--backup", "1"});
  ASSERT_EQ(result.exit_status, 0) << result.output;
  EXPECT_NE(RunAnabranchd({"library", "restore", backups, Path("there")}).exit_status, 0);
  result = RunAnabranchd({"library", "verify", Path("there")});
  EXPECT_EQ(result.exit_status, 0) << result.output;
  result = RunAnabranchd({"library", "backup", Path("there"), Path("cold"), "--keep", "2"});
  EXPECT_EQ(result.exit_status, 0) << result.output;
  Place there(GoldenModel("mamba2"), Path("there"));
  EXPECT_THAT(there.raw->SessionTokens("ada"), SizeIs(300));
  Place here(GoldenModel("mamba2"), Path("here"));
  v1::RewindResponse rewound;
  ASSERT_TRUE(here.raw->Rewind("ada", 300, false, &rewound).ok());
  EXPECT_EQ(there.Continue("ada"), here.Continue("ada"));
  EXPECT_EQ(there.Run({"admin", "backup"}), 1);
  EXPECT_THAT(there.err, HasSubstr("--backup-root"));
}

class DamageTest : public MovementTest {
 protected:
  // Flips a bit of a stored value; no server has the library open.
  void Flip(Family family, const std::string& key) {
    WithClosedLibrary(Path("here/rocksdb"), [&](rocksdb::DB& db, const auto& handles) {
      EditStoredValue(db, handles[static_cast<int>(family)], key, [](std::string& value) {
        value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 4);
      });
    });
  }
};

class DamageOfModelsTest : public DamageTest, public testing::WithParamInterface<const char*> {};

TEST_P(DamageOfModelsTest, DamageIsNamedByOnePassAndReadAgainFromTokens) {
  std::vector<std::string> ids;
  std::vector<float> before;
  std::string block;
  {
    Place here(GoldenModel(GetParam()), Path("here"));
    here.Read("ada", 5, 257);
    here.Read("ben", 1, 200);
    const auto lineage = here.client->GetLineage("ada");
    ASSERT_TRUE(lineage.ok()) << lineage.status();
    for (const v1::State& state : *lineage) ids.push_back(state.id());
    before = here.raw->Fingerprint("ada");
    ASSERT_THAT(ids, SizeIs(5));
    ASSERT_EQ(here.Run({"admin", "verify"}), 0) << here.err << here.out;
    EXPECT_THAT(here.out, HasSubstr("damaged"));
  }
  // The newest and the one before: repairing one needs a base before both.
  Flip(Family::kPayloads, NamedKey(kTenant, ids[0]));
  Flip(Family::kPayloads, NamedKey(kTenant, ids[1]));
  const CommandResult offline = RunAnabranchd({"library", "verify", Path("here")});
  EXPECT_EQ(offline.exit_status, 2);
  EXPECT_THAT(offline.output, HasSubstr(ids[0]));

  Place here(GoldenModel(GetParam()), Path("here"));
  EXPECT_EQ(here.Run({"admin", "verify"}), 1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool named = here.out.find("DAMAGED state " + ids[i]) != std::string::npos;
    EXPECT_EQ(named, i < 2) << here.out;
  }
  EXPECT_THAT(here.err, HasSubstr("--repair"));
  // Only they are lost.
  EXPECT_EQ(here.Run({"state", "show", "ben", "--plot"}), 0) << here.err;
  v1::CreateSessionRequest from;
  from.set_state_id(ids[0]);
  v1::CreateSessionResponse response;
  const grpc::Status lost = here.raw->Create(from, &response);
  EXPECT_EQ(lost.error_code(), grpc::StatusCode::DATA_LOSS) << lost.error_message();
  EXPECT_THAT(lost.error_message(), HasSubstr(ids[0]));

  EXPECT_EQ(here.Run({"admin", "verify", ids[0]}), 1) << here.out;
  ASSERT_EQ(here.Run({"admin", "verify", "--repair"}), 0) << here.err << here.out;
  EXPECT_THAT(here.out, HasSubstr("REPAIRED"));
  ASSERT_EQ(here.Run({"admin", "verify"}), 0) << here.err << here.out;
  EXPECT_EQ(here.raw->Fingerprint("ada"), before);
  const v1::ServerStatus status = *here.client->GetStatus();
  EXPECT_EQ(status.last_scrub().findings(), 0);
  EXPECT_TRUE(status.last_scrub().has_end_time());
  ASSERT_EQ(here.Run({"status"}), 0);
  EXPECT_THAT(here.out, HasSubstr("0 damaged"));
}

INSTANTIATE_TEST_SUITE_P(Models, DamageOfModelsTest, testing::Values("mamba2", "falcon_h1"));

TEST_F(DamageTest, WhatCannotBeReadAgainSaysSoAndABundleHealsIt) {
  std::string id;
  {
    Place here(GoldenModel("mamba2"), Path("here"));
    id = here.Read("ada", 2, 257);
    ASSERT_TRUE(ExportToFile(*here.client, Lineage("ada"), Path("ada.bundle")).ok());
  }
  Flip(Family::kStates, NamedKey(kTenant, id));
  Place here(GoldenModel("mamba2"), Path("here"));
  EXPECT_EQ(here.Run({"admin", "verify", "--repair"}), 1);
  EXPECT_THAT(here.out, HasSubstr("not repaired"));
  EXPECT_THAT(here.out, HasSubstr("import it from a bundle"));
  ASSERT_EQ(here.Run({"import", Path("ada.bundle")}), 0) << here.err;
  EXPECT_THAT(here.out, HasSubstr("1 completed"));
  EXPECT_EQ(here.Run({"admin", "verify"}), 0) << here.out << here.err;
}

TEST_F(DamageTest, WhatLeadsNowhereIsNamedAndGoesWithARepair) {
  {
    Place here(GoldenModel("mamba2"), Path("here"));
    here.Read("ada", 2, 257);
  }
  const std::string nobody = "st-" + std::string(40, '7');
  WithClosedLibrary(Path("here/rocksdb"), [&](rocksdb::DB& db, const auto& handles) {
    const auto put = [&](Family family, const std::string& key, const std::string& value) {
      ASSERT_TRUE(db.Put({}, handles[static_cast<int>(family)], key, value).ok());
    };
    put(Family::kPayloads, PayloadPartKey(kTenant, nobody, 0), std::string(3000, 'x'));
    put(Family::kPayloads, PayloadPartKey(kTenant, nobody, 1), std::string(1000, 'x'));
    put(Family::kEdges, EdgeKey(kTenant, Edge::kChild, nobody, nobody), "");
  });
  const CommandResult offline = RunAnabranchd({"library", "verify", Path("here")});
  EXPECT_EQ(offline.exit_status, 2);
  EXPECT_THAT(offline.output,
              HasSubstr("payload " + nobody + ": no record names 2 values of 4000 "));

  Place here(GoldenModel("mamba2"), Path("here"));
  EXPECT_EQ(here.Run({"admin", "verify"}), 1);
  EXPECT_THAT(here.out, HasSubstr("DAMAGED payload " + nobody));
  EXPECT_THAT(here.out, HasSubstr("DAMAGED index " + nobody));
  ASSERT_EQ(here.Run({"admin", "gc", "--dry-run"}), 0) << here.err;
  EXPECT_THAT(here.out, HasSubstr("2 payloads or parts, 3.9 KiB"));
  EXPECT_EQ(here.Run({"admin", "verify", "--repair"}), 0) << here.out;
  EXPECT_EQ(here.Run({"admin", "verify"}), 0) << here.out;
  EXPECT_EQ(here.client->GetLineage("ada")->size(), 2u);
}

TEST_F(MovementTest, TheCommandsSayWhatTheyDid) {
  Place here(GoldenModel("mamba2"), Path("here")), there(GoldenModel("mamba2"), Path("there"));
  const std::string id = here.Read("ada", 2, 257);
  ASSERT_EQ(here.Run({"export", "ada", "-o", Path("ada.bundle"), "--lineage"}), 0) << here.err;
  EXPECT_THAT(here.out, HasSubstr(id));
  EXPECT_THAT(here.out, HasSubstr("2, 2 of them with content"));
  ASSERT_EQ(there.Run({"import", Path("ada.bundle"), "--ref", "copies/ada", "--json"}), 0)
      << there.err;
  const auto result = nlohmann::json::parse(there.out);
  EXPECT_EQ(result["state"]["id"], id);
  EXPECT_EQ(result["ref"]["name"], "copies/ada");
  EXPECT_EQ(result["states_added"], 2);
  EXPECT_EQ(here.Run({"export", "nobody", "-o", Path("no")}), 1);
  EXPECT_THAT(here.err, HasSubstr("nobody"));
  EXPECT_EQ(here.Run({"import", Path("missing")}), 2);
  EXPECT_THAT(here.err, HasSubstr("cannot open"));
}

}  // namespace
}  // namespace anabranch
