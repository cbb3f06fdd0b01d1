// Client of an Anabranch server.
//
//   anabranch::Client client({.address = "127.0.0.1:50051"});
//
//   anabranch::v1::CreateSessionRequest create;
//   create.set_session_id("notes");
//   auto session = client.CreateSession(create);            // absl::StatusOr<...>
//
//   anabranch::v1::AppendRequest append;  // and its session_id and content
//   auto read = client.Append(append, [](const anabranch::v1::AppendProgress& p) { ... });
//
//   anabranch::v1::GenerateRequest generate;
//   generate.set_session_id("notes");
//   auto done = client.Generate(generate, [](const anabranch::v1::GenerateDelta& delta) {
//     Show(delta.text());
//   });
//   if (!done.ok()) { use done.status(), anabranch::ErrorReason(done.status()) }
// Messages are those of proto/anabranch/v1, whose comments are the manual.
//
// Thread-safe. Every call has a deadline. Calls that change something get a random request_id
// unless the caller set one. A call is repeated, after a short wait, only when the server was
// UNAVAILABLE and repeating cannot apply it twice:
//   * unary calls: always, because they only read or carry a request id;
//   * Append of one content, and Generate before its first delta: if expected_token_count is set,
//     so that a server that already read part of it refuses with ABORTED;
//   * Append from a source: never;
//   * Delegate: before its first event.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "anabranch/v1/admin.pb.h"
#include "anabranch/v1/resources.pb.h"
#include "anabranch/v1/sessions.pb.h"
#include "anabranch/v1/states.pb.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/error_info.h"
#include "clients/cpp/position_log.h"
#include "clients/cpp/transfer_callbacks.h"

namespace anabranch {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  // Deadline of calls that do not run the model.
  absl::Duration timeout = absl::Seconds(30);
  // Deadline of CreateSession, Append, Generate, Delegate, Score, Commit, Fork, Merge, Search and
  // what else computes with states.
  absl::Duration model_timeout = absl::Hours(1);
  // Tries of one call, the first included.
  int max_attempts = 4;
};

// The next piece to read; nullopt at the end. An error cancels the append and is its result.
using ContentSource = std::function<absl::StatusOr<std::optional<v1::Content>>()>;
// Called for each progress message, from another thread than Append's, one at a time.
using ProgressCallback = std::function<void(const v1::AppendProgress&)>;
// Called for each delta, from Generate's thread.
using DeltaCallback = std::function<void(const v1::GenerateDelta&)>;
// Called for each message but the last, from Delegate's thread.
using DelegateCallback = std::function<void(const v1::DelegateResponse&)>;

// What EditSession did: the ref of the old line's end, then the two calls.
struct EditResult {
  v1::Ref before;
  v1::RewindResponse rewind;
  v1::AppendDone append;
};

class Client {
 public:
  // Does not connect yet: the first call does, and reports UNAVAILABLE if no server answers.
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const ClientOptions& options() const { return options_; }

  // --- Sessions ---
  absl::StatusOr<v1::CreateSessionResponse> CreateSession(v1::CreateSessionRequest request,
                                                          Cancellation* cancel = nullptr);
  absl::StatusOr<v1::Session> GetSession(const std::string& id);
  // All sessions whose ids start with `prefix`, through as many pages as it takes.
  absl::StatusOr<std::vector<v1::Session>> ListSessions(const std::string& prefix = "");
  absl::Status CloseSession(v1::CloseSessionRequest request);
  absl::StatusOr<v1::Session> UpdateSession(v1::UpdateSessionRequest request);

  // Reads request.content. Returns when all of it is durable.
  absl::StatusOr<v1::AppendDone> Append(v1::AppendRequest request,
                                        const ProgressCallback& on_progress = nullptr,
                                        Cancellation* cancel = nullptr);
  // Reads request.content, if set, then everything that `source` gives.
  absl::StatusOr<v1::AppendDone> AppendFrom(v1::AppendRequest request, const ContentSource& source,
                                            const ProgressCallback& on_progress = nullptr,
                                            Cancellation* cancel = nullptr);
  // Returns when all tokens are durable. If the request id was acknowledged before, there are no
  // deltas: the result holds the whole text.
  absl::StatusOr<v1::GenerateDone> Generate(v1::GenerateRequest request,
                                            const DeltaCallback& on_delta = nullptr,
                                            Cancellation* cancel = nullptr);
  // Returns when everything kept is durable: the results of all branches, in order, and `done`. If
  // the request id was acknowledged before, there are no deltas.
  absl::StatusOr<v1::DelegateResponse> Delegate(v1::DelegateRequest request,
                                                const DelegateCallback& on_event = nullptr,
                                                Cancellation* cancel = nullptr);
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          Cancellation* cancel = nullptr);
  absl::StatusOr<v1::CommitResponse> Commit(v1::CommitRequest request,
                                            Cancellation* cancel = nullptr);
  absl::StatusOr<v1::ForkResponse> Fork(v1::ForkRequest request, Cancellation* cancel = nullptr);
  // Changes which auxiliary states are merged into a session's core, without reading anything.
  absl::StatusOr<v1::SetAuxResponse> SetAux(v1::SetAuxRequest request,
                                            Cancellation* cancel = nullptr);
  absl::StatusOr<v1::RewindResponse> Rewind(v1::RewindRequest request);
  // Writes another history: marks the session's end, so that what was said stays reachable, goes
  // back to `token_count` and reads `content` there. After an error the steps before it stand.
  absl::StatusOr<EditResult> EditSession(const std::string& id, int64_t token_count,
                                         const v1::Content& content);

  // --- States ---
  absl::StatusOr<v1::State> GetState(const std::string& id_or_ref);
  // Oldest first, through as many pages as it takes; `limit` 0 means all.
  absl::StatusOr<std::vector<v1::State>> ListStates(v1::ListStatesRequest request = {},
                                                    int64_t limit = 0);
  absl::StatusOr<v1::State> UpdateState(v1::UpdateStateRequest request);
  absl::Status DeleteState(v1::DeleteStateRequest request);
  // Keeps a state in another codec; to a more exact one, or from the archive, its tokens are read
  // again.
  absl::StatusOr<v1::RecodeStateResponse> RecodeState(v1::RecodeStateRequest request,
                                                      Cancellation* cancel = nullptr);
  // A state and its ancestors, newest first; `limit` 0 means all.
  absl::StatusOr<std::vector<v1::State>> GetLineage(const std::string& id_or_ref,
                                                    int64_t limit = 0);
  // All positions with a state, through as many pages as it takes.
  absl::StatusOr<PositionLog> GetLog(v1::GetLogRequest request);
  // States with all their parents.
  absl::StatusOr<v1::GetGraphResponse> GetGraph(const v1::GetGraphRequest& request);
  // How large the tensors of a state are.
  absl::StatusOr<v1::StateStats> GetStateStats(const std::string& id_or_ref);
  // One page, as the request says.
  absl::StatusOr<v1::GetTokensResponse> GetTokens(const v1::GetTokensRequest& request);

  absl::StatusOr<v1::MergeResponse> Merge(v1::MergeRequest request, Cancellation* cancel = nullptr);
  // States of one lineage taken apart, and how far two lie apart.
  absl::StatusOr<v1::ComputedState> ExtractSpan(v1::SpanRequest request);
  absl::StatusOr<v1::ComputedState> Forget(v1::SpanRequest request);
  absl::StatusOr<v1::ComputedState> Decay(v1::DecayRequest request);
  absl::StatusOr<v1::DiffResponse> Diff(const v1::DiffRequest& request);

  // The states that know about something, best first.
  absl::StatusOr<v1::SearchResponse> Search(const v1::SearchRequest& request,
                                            Cancellation* cancel = nullptr);

  // A state, alone or with its lineage, as a bundle; bundle_file.h writes it to a file. An export
  // that breaks off goes on by itself while attempts are left.
  absl::StatusOr<v1::BundleInfo> Export(v1::ExportRequest request, const ChunkSink& sink,
                                        Cancellation* cancel = nullptr);
  // Takes a bundle in. Begun again with the same start.transfer_id it goes on where it was.
  absl::StatusOr<v1::ImportResult> Import(const v1::ImportStart& start, const ChunkSource& source,
                                          const ImportCallback& on_progress = nullptr,
                                          Cancellation* cancel = nullptr);

  // --- Refs ---
  absl::StatusOr<v1::Ref> GetRef(const std::string& name);
  absl::StatusOr<std::vector<v1::Ref>> ListRefs(const std::string& prefix = "");
  absl::StatusOr<v1::Ref> SetRef(v1::SetRefRequest request);
  absl::Status DeleteRef(v1::DeleteRefRequest request);

  // --- Admin ---
  absl::StatusOr<v1::ServerStatus> GetStatus();
  // Returns when the backup is durable and was read back.
  absl::StatusOr<v1::Backup> CreateBackup(const v1::CreateBackupRequest& request,
                                          const BackupCallback& on_progress = nullptr,
                                          Cancellation* cancel = nullptr);
  // The newest first, also those that are not complete.
  absl::StatusOr<std::vector<v1::Backup>> ListBackups(const std::string& directory = "");
  // Reads the whole library, or one state. What is damaged comes to the callback.
  absl::StatusOr<v1::ScrubStatus> Verify(const v1::VerifyRequest& request,
                                         const VerifyCallback& on_progress = nullptr,
                                         Cancellation* cancel = nullptr);
  // Gives the disk back what deleted states took. Cancelling keeps what was done.
  absl::StatusOr<v1::GarbageReport> CollectGarbage(const v1::CollectGarbageRequest& request,
                                                   const GarbageCallback& on_progress = nullptr,
                                                   Cancellation* cancel = nullptr);

 private:
  struct Stubs;
  ClientOptions options_;
  std::unique_ptr<Stubs> stubs_;
};

}  // namespace anabranch
