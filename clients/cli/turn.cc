#include "clients/cli/turn.h"

#include "clients/cli/format.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

absl::StatusOr<v1::CreateSessionResponse> CreateFromRefOrEmpty(Client& client,
                                                               const SessionFlags& flags) {
  v1::CreateSessionRequest request;
  request.set_session_id(flags.name);
  request.set_ref_name(flags.name);
  request.set_model(flags.model);
  absl::StatusOr<v1::CreateSessionResponse> created = client.CreateSession(request);
  if (!absl::IsNotFound(created.status())) return created;
  request.clear_ref_name();
  return client.CreateSession(request);
}

// A step of a turn that another step came before: what it reuses is what the step before reused or
// read itself, so counting it again would make a turn look cheaper than it was.
void AddLaterStep(v1::Usage step, v1::Usage& total) {
  step.clear_tokens_reused();
  AddUsage(step, total);
}

}  // namespace

absl::StatusOr<v1::Session> OpenSession(Client& client, const SessionFlags& flags,
                                        v1::Usage& usage) {
  absl::StatusOr<v1::Session> session = client.GetSession(flags.name);
  if (!absl::IsNotFound(session.status())) return session;
  absl::StatusOr<v1::CreateSessionResponse> created = CreateFromRefOrEmpty(client, flags);
  // Another client was faster.
  if (absl::IsAlreadyExists(created.status())) return client.GetSession(flags.name);
  ANABRANCH_RETURN_IF_ERROR(created.status());
  usage = created->usage();
  usage.clear_tokens_reused();  // the call that uses the session reports them
  return created->session();
}

absl::StatusOr<v1::CommitResponse> CommitSession(Client& client, const std::string& name,
                                                 Cancellation* cancel) {
  v1::CommitRequest request;
  request.set_session_id(name);
  return client.Commit(request, cancel);
}

absl::StatusOr<TurnResult> RunTurn(Client& client, const SessionFlags& flags,
                                   absl::string_view text, const TurnOptions& options) {
  TurnResult result;
  ANABRANCH_ASSIGN_OR_RETURN(v1::Session session, OpenSession(client, flags, result.usage));
  const std::string& name = flags.name;

  // The commit at the end captures the state, so the steps before it need not.
  v1::AppendRequest append;
  append.set_session_id(name);
  append.set_expected_token_count(session.token_count());
  append.set_no_checkpoint(true);
  v1::Message& message = *append.mutable_content()->mutable_messages()->add_messages();
  message.set_role("user");
  message.set_text(std::string(text));
  ANABRANCH_ASSIGN_OR_RETURN(v1::AppendDone read,
                             client.Append(append, options.on_progress, options.cancel));
  AddUsage(read.usage(), result.usage);

  v1::GenerateRequest generate = options.generate;
  generate.set_session_id(name);
  generate.set_reply(true);
  generate.set_expected_token_count(read.session().token_count());
  generate.set_no_checkpoint(true);
  ANABRANCH_ASSIGN_OR_RETURN(result.reply,
                             client.Generate(generate, options.on_delta, options.cancel));
  AddLaterStep(result.reply.usage(), result.usage);

  ANABRANCH_ASSIGN_OR_RETURN(result.commit, CommitSession(client, name, options.cancel));
  AddLaterStep(result.commit.usage(), result.usage);
  return result;
}

}  // namespace anabranch::cli
