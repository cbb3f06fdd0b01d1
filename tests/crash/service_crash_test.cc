// A crash at each of the named points that only a server passes: inside an import, and between the
// commits of the background re-encoder. Whatever is visible afterwards is whole, and the same
// import begins again and completes.
//
// ANABRANCH_CRASH_POINT_HITS: crashes at each point (2). ANABRANCH_CRASH_SEED: repeats a run.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "clients/cpp/bundle_file.h"
#include "statestore/base/crash_point.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr char kModel[] = "mamba2";
constexpr int kAppends = 150;  // more states than an import stores in two groups

int FromEnv(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoi(text);
}

// A server in this process with its clients.
struct Place {
  explicit Place(const std::string& library) {
    auto started = Server::Start(TestConfig(GoldenModel(kModel), library));
    EXPECT_TRUE(started.ok()) << started.status();
    if (!started.ok()) return;
    server = *std::move(started);
    raw = std::make_unique<TestClient>(server->address());
    client = std::make_unique<Client>(ClientOptions{.address = server->address()});
  }

  std::unique_ptr<Server> server;
  std::unique_ptr<TestClient> raw;
  std::unique_ptr<Client> client;
};

// A library with one session whose lineage has many states, and its bundle.
class ServiceCrashTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir();
    Place origin(dir_->path() + "/origin");
    origin.raw->MustCreate("ada");
    for (int i = 0; i < kAppends; ++i) {
      ASSERT_TRUE(origin.raw->AppendTokens("ada", SomeTokens(8, i)).has_done);
    }
    v1::CommitRequest commit;
    commit.set_session_id("ada");
    v1::CommitResponse committed;
    ASSERT_TRUE(origin.raw->Commit(commit, &committed).ok());
    v1::ExportRequest request;
    request.set_id("ada");
    request.set_lineage(true);
    ASSERT_TRUE(ExportToFile(*origin.client, request, Bundle()).ok());
    fingerprint_ = origin.raw->Fingerprint("ada");
  }
  static void TearDownTestSuite() { delete dir_; }

  static std::string Bundle() { return dir_->path() + "/ada.bundle"; }
  static std::string Library() { return dir_->path() + "/library"; }

  void SetUp() override {
    seed_ = FromEnv("ANABRANCH_CRASH_SEED", 1);
    hits_ = FromEnv("ANABRANCH_CRASH_POINT_HITS", 2);
    random_.seed(seed_);
  }

  // False (and a failure) if the driver did not get there.
  static bool CrashAt(CrashPoint point, int passes, bool import) {
    const std::string name = kCrashPointNames[static_cast<int>(point)];
    const pid_t pid = fork();
    if (pid == 0) {
      execl(ANABRANCH_SERVICE_CRASH_DRIVER, "service_crash_driver", name.c_str(),
            std::to_string(passes).c_str(), GoldenModel(kModel).c_str(), Library().c_str(),
            import ? Bundle().c_str() : nullptr, nullptr);
      _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the driver ended with " << WEXITSTATUS(status) << " without reaching " << name;
    return WIFSIGNALED(status);
  }

  // Every state that anyone can see can be resumed. How many there are.
  static int VerifyWhole(Place& place) {
    const auto states = place.client->ListStates();
    EXPECT_TRUE(states.ok()) << states.status();
    if (!states.ok()) return 0;
    for (const v1::State& state : *states) {
      v1::CreateSessionRequest create;
      create.set_state_id(state.id());
      create.set_ref("-");
      v1::CreateSessionResponse created;
      const grpc::Status status = place.raw->Create(create, &created);
      EXPECT_TRUE(status.ok()) << state.id() << ": " << status.error_message();
      EXPECT_EQ(created.usage().tokens_reused(), state.token_count()) << state.id();
      v1::CloseSessionRequest close;
      close.set_session_id(created.session().id());
      v1::CloseSessionResponse closed;
      EXPECT_TRUE(
          place.raw->sessions().CloseSession(TestClient::Context().get(), close, &closed).ok());
    }
    return static_cast<int>(states->size());
  }

  static TempDir* dir_;
  static std::vector<float> fingerprint_;
  int seed_ = 0, hits_ = 0;
  std::mt19937 random_;
};
TempDir* ServiceCrashTest::dir_ = nullptr;
std::vector<float> ServiceCrashTest::fingerprint_;

TEST_F(ServiceCrashTest, AnImportThatWasCutOffIsWholeInPartsAndCompletesAgain) {
  constexpr int kFirst = static_cast<int>(CrashPoint::kImportChunkStaged);
  constexpr int kLast = static_cast<int>(CrashPoint::kImportFinished);
  for (int i = kFirst; i <= kLast; ++i) {
    const CrashPoint point = static_cast<CrashPoint>(i);
    SCOPED_TRACE(testing::Message()
                 << kCrashPointNames[static_cast<int>(point)] << " ANABRANCH_CRASH_SEED=" << seed_);
    for (int hit = 0; hit < hits_; ++hit) {
      fs::remove_all(Library());
      const int most = point == CrashPoint::kImportGroupStored ? 2 : 1;
      ASSERT_TRUE(CrashAt(point, 1 + static_cast<int>(random_() % most), true));
      Place place(Library());
      ASSERT_NE(place.server, nullptr);
      const int before = VerifyWhole(place);
      const auto again = ImportFromFile(*place.client, {}, Bundle());
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(again->states_completed(), 0);
      EXPECT_EQ(again->states_unchanged() > 0, before > 0);
      EXPECT_GT(VerifyWhole(place), 0);
      v1::CreateSessionRequest request;
      request.set_session_id("twin");
      request.set_ref_name("ada");
      v1::CreateSessionResponse response;
      ASSERT_TRUE(place.raw->Create(request, &response).ok());
      EXPECT_EQ(place.raw->Fingerprint("twin"), fingerprint_);
    }
  }
  std::printf("%d points, %d crashes each, seed %d\n", kLast - kFirst + 1, hits_, seed_);
}

TEST_F(ServiceCrashTest, ReencodingThatWasCutOffLeavesEachStateInOneFormOrTheOther) {
  SCOPED_TRACE(testing::Message() << "ANABRANCH_CRASH_SEED=" << seed_);
  int64_t near = 0, exact = 0;
  for (int hit = 0; hit < hits_; ++hit) {
    fs::remove_all(Library());
    fs::copy(dir_->path() + "/origin", Library(), fs::copy_options::recursive);
    ASSERT_TRUE(CrashAt(CrashPoint::kReencodingStep, 1 + static_cast<int>(random_() % 5), false));
    Place place(Library());
    ASSERT_NE(place.server, nullptr);
    ASSERT_GT(VerifyWhole(place), 0);
    const auto states = place.client->ListStates();
    ASSERT_TRUE(states.ok());
    for (const v1::State& state : *states) {
      near += state.codec() == v1::STATE_CODEC_NEAR;
      exact += state.codec() == v1::STATE_CODEC_EXACT;
    }
  }
  EXPECT_GT(near, 0);
  EXPECT_GT(exact, 0);
  std::printf("1 point, %d crashes, seed %d\n", hits_, seed_);
}

}  // namespace
}  // namespace anabranch
