// One turn of a conversation, as `ask` and `chat` take it: open the session, append the user's
// message, generate the reply, commit.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cli/session_flags.h"
#include "clients/cpp/client.h"

namespace anabranch::cli {

// The session that the flags name. If there is none, one is opened from the ref of that name, or
// empty if there is no such ref either, and `usage` becomes what that cost. Its tokens_reused stays
// 0: the call that then uses the session reports what was reused.
absl::StatusOr<v1::Session> OpenSession(Client& client, const SessionFlags& flags,
                                        v1::Usage& usage);

struct TurnResult {
  v1::GenerateDone reply;
  // With state and ref of the turn's end.
  v1::CommitResponse commit;
  // Of all calls of the turn; tokens_reused is what the context held when the turn began.
  v1::Usage usage;
};

struct TurnOptions {
  // Sampling, limits and stop strings; session and reply are set by RunTurn.
  v1::GenerateRequest generate;
  ProgressCallback on_progress;
  DeltaCallback on_delta;
  Cancellation* cancel = nullptr;
};

// Opens the session if needed and runs one turn. Refused with ABORTED if another client changes the
// session between the steps.
absl::StatusOr<TurnResult> RunTurn(Client& client, const SessionFlags& flags,
                                   absl::string_view text, const TurnOptions& options);

// Captures a state at the head and moves the session's ref to it.
absl::StatusOr<v1::CommitResponse> CommitSession(Client& client, const std::string& name,
                                                 Cancellation* cancel = nullptr);

}  // namespace anabranch::cli
