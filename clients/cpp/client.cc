#include "clients/cpp/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <utility>

#include "clients/cpp/client_stubs.h"

namespace anabranch {
namespace {

// A page of text or a state's tokens may be larger than gRPC's default of 4 MiB.
constexpr int kMaxReceiveBytes = 256 << 20;
constexpr int kPageSize = 1000;

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // Notices a dead peer within 40 s while a call runs; servers refuse pings more often than that.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A server that restarts is found again soon, and one that does not answer is given up after 5 s.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // Repeats are this library's: gRPC's own would not know which calls are safe.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Collects items of all pages. `call` fetches one page, `items` gives its repeated field.
template <typename Item, typename Request, typename Call, typename Items>
absl::StatusOr<std::vector<Item>> AllPages(Request request, int64_t limit, Call call, Items items) {
  std::vector<Item> all;
  while (true) {
    int64_t wanted = limit > 0 ? limit - static_cast<int64_t>(all.size()) : kPageSize;
    request.set_page_size(static_cast<int32_t>(std::min<int64_t>(wanted, kPageSize)));
    auto page = call(request);
    if (!page.ok()) return page.status();
    for (auto& item : *items(*page)) all.push_back(std::move(item));
    bool full = limit > 0 && static_cast<int64_t>(all.size()) >= limit;
    if (page->next_page_token().empty() || full) return all;
    request.set_page_token(page->next_page_token());
  }
}

}  // namespace

Client::Client(ClientOptions options) : options_(std::move(options)) {
  std::shared_ptr<grpc::Channel> channel = Connect(options_.address);
  stubs_ = std::make_unique<Stubs>(Stubs{
      v1::Sessions::NewStub(channel), v1::States::NewStub(channel), v1::Admin::NewStub(channel)});
}

Client::~Client() = default;

absl::StatusOr<v1::CreateSessionResponse> Client::CreateSession(v1::CreateSessionRequest request,
                                                                Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->sessions,
                   &v1::Sessions::Stub::CreateSession, request);
}

absl::StatusOr<v1::Session> Client::GetSession(const std::string& id) {
  v1::GetSessionRequest request;
  request.set_session_id(id);
  return CallUnary(QuickLimits(options_), *stubs_->sessions, &v1::Sessions::Stub::GetSession,
                   request);
}

absl::StatusOr<std::vector<v1::Session>> Client::ListSessions(const std::string& prefix) {
  v1::ListSessionsRequest request;
  request.set_prefix(prefix);
  return AllPages<v1::Session>(
      request, 0,
      [this](const v1::ListSessionsRequest& page) {
        return CallUnary(QuickLimits(options_), *stubs_->sessions,
                         &v1::Sessions::Stub::ListSessions, page);
      },
      [](v1::ListSessionsResponse& page) { return page.mutable_sessions(); });
}

absl::Status Client::CloseSession(v1::CloseSessionRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->sessions, &v1::Sessions::Stub::CloseSession,
                   request)
      .status();
}

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                Cancellation* cancel) {
  return CallUnary(ModelLimits(options_, cancel), *stubs_->sessions, &v1::Sessions::Stub::Score,
                   request);
}

absl::StatusOr<v1::CommitResponse> Client::Commit(v1::CommitRequest request, Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->sessions, &v1::Sessions::Stub::Commit,
                   request);
}

absl::StatusOr<v1::ForkResponse> Client::Fork(v1::ForkRequest request, Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->sessions, &v1::Sessions::Stub::Fork,
                   request);
}

absl::StatusOr<v1::SetAuxResponse> Client::SetAux(v1::SetAuxRequest request, Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->sessions, &v1::Sessions::Stub::SetAux,
                   request);
}

absl::StatusOr<v1::RewindResponse> Client::Rewind(v1::RewindRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->sessions, &v1::Sessions::Stub::Rewind, request);
}

absl::StatusOr<v1::State> Client::GetState(const std::string& id_or_ref) {
  v1::GetStateRequest request;
  request.set_id(id_or_ref);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetState, request);
}

absl::StatusOr<std::vector<v1::State>> Client::ListStates(v1::ListStatesRequest request,
                                                          int64_t limit) {
  return AllPages<v1::State>(
      std::move(request), limit,
      [this](const v1::ListStatesRequest& page) {
        return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::ListStates,
                         page);
      },
      [](v1::ListStatesResponse& page) { return page.mutable_states(); });
}

absl::StatusOr<v1::State> Client::UpdateState(v1::UpdateStateRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::UpdateState, request);
}

absl::Status Client::DeleteState(v1::DeleteStateRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::DeleteState, request)
      .status();
}

absl::StatusOr<v1::RecodeStateResponse> Client::RecodeState(v1::RecodeStateRequest request,
                                                            Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->states, &v1::States::Stub::RecodeState,
                   request);
}

absl::StatusOr<std::vector<v1::State>> Client::GetLineage(const std::string& id_or_ref,
                                                          int64_t limit) {
  v1::GetLineageRequest request;
  request.set_id(id_or_ref);
  return AllPages<v1::State>(
      request, limit,
      [this](const v1::GetLineageRequest& page) {
        return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetLineage,
                         page);
      },
      [](v1::GetLineageResponse& page) { return page.mutable_states(); });
}

absl::StatusOr<v1::GetTokensResponse> Client::GetTokens(const v1::GetTokensRequest& request) {
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetTokens, request);
}

absl::StatusOr<v1::MergeResponse> Client::Merge(v1::MergeRequest request, Cancellation* cancel) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, cancel), *stubs_->states, &v1::States::Stub::Merge,
                   request);
}

absl::StatusOr<v1::ComputedState> Client::ExtractSpan(v1::SpanRequest request) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, nullptr), *stubs_->states, &v1::States::Stub::ExtractSpan,
                   request);
}

absl::StatusOr<v1::ComputedState> Client::Forget(v1::SpanRequest request) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, nullptr), *stubs_->states, &v1::States::Stub::Forget,
                   request);
}

absl::StatusOr<v1::ComputedState> Client::Decay(v1::DecayRequest request) {
  EnsureRequestId(request);
  return CallUnary(ModelLimits(options_, nullptr), *stubs_->states, &v1::States::Stub::Decay,
                   request);
}

absl::StatusOr<v1::DiffResponse> Client::Diff(const v1::DiffRequest& request) {
  return CallUnary(ModelLimits(options_, nullptr), *stubs_->states, &v1::States::Stub::Diff,
                   request);
}

absl::StatusOr<v1::SearchResponse> Client::Search(const v1::SearchRequest& request,
                                                  Cancellation* cancel) {
  return CallUnary(ModelLimits(options_, cancel), *stubs_->states, &v1::States::Stub::Search,
                   request);
}

absl::StatusOr<v1::Ref> Client::GetRef(const std::string& name) {
  v1::GetRefRequest request;
  request.set_name(name);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetRef, request);
}

absl::StatusOr<std::vector<v1::Ref>> Client::ListRefs(const std::string& prefix) {
  v1::ListRefsRequest request;
  request.set_prefix(prefix);
  return AllPages<v1::Ref>(
      request, 0,
      [this](const v1::ListRefsRequest& page) {
        return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::ListRefs, page);
      },
      [](v1::ListRefsResponse& page) { return page.mutable_refs(); });
}

absl::StatusOr<v1::Ref> Client::SetRef(v1::SetRefRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::SetRef, request);
}

absl::Status Client::DeleteRef(v1::DeleteRefRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::DeleteRef, request)
      .status();
}

absl::StatusOr<v1::ServerStatus> Client::GetStatus() {
  return CallUnary(QuickLimits(options_), *stubs_->admin, &v1::Admin::Stub::GetStatus,
                   v1::GetStatusRequest());
}

}  // namespace anabranch
