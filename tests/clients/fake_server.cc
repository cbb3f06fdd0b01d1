#include "tests/clients/fake_server.h"

#include <algorithm>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace anabranch::testing {
namespace {

using grpc::Status;
using grpc::StatusCode;

constexpr int kMaxMessageBytes = 4 << 20;
constexpr absl::string_view kReplyPieces[] = {"The river ", "forks ", "here."};

Status NotFound(absl::string_view what, const std::string& name) {
  return Error(StatusCode::NOT_FOUND, absl::StrCat("no ", what, " ", name), "NO_SUCH_NAME");
}

std::string TextOfContent(const v1::Content& content) {
  if (content.has_text()) return content.text();
  std::string text;
  for (const v1::Message& message : content.messages().messages()) {
    absl::StrAppend(&text, "[", message.role(), "]", message.text(), "\n");
  }
  return text;
}

// Serves one page of `all` (sorted by key); the page token is the index of the next item.
template <typename Item, typename Request, typename Field, typename Response>
void Page(const std::vector<Item>& all, const Request& request, Field* field, Response* response) {
  size_t first = 0;
  (void)absl::SimpleAtoi(request.page_token(), &first);
  size_t size = request.page_size() > 0 ? static_cast<size_t>(request.page_size()) : 100;
  size_t end = std::min(all.size(), first + std::min<size_t>(size, 3));  // small, to test paging
  for (size_t i = first; i < end; ++i) *field->Add() = all[i];
  if (end < all.size()) response->set_next_page_token(absl::StrCat(end));
}

}  // namespace

Status Error(StatusCode code, const std::string& message, const std::string& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("anabranch");
  (*info.mutable_metadata())["origin"] = "fake";
  google::rpc::Status rich;
  rich.set_code(code);
  rich.set_message(message);
  rich.add_details()->PackFrom(info);
  return Status(code, message, rich.SerializeAsString());
}

Status FakeSessions::MaybeLose(bool answer) {
  if (!answer) ++faults_.calls;
  std::atomic<int>& left = answer ? faults_.lose_answers : faults_.lose_requests;
  if (left <= 0) return Status::OK;
  --left;
  return Status(StatusCode::UNAVAILABLE, "connection lost");
}

bool FakeSessions::Repeated(const std::string& request_id, google::protobuf::Message& answer) {
  request_ids.push_back(request_id);
  auto it = acknowledged.find(request_id);
  return !request_id.empty() && it != acknowledged.end() && answer.ParseFromString(it->second);
}

void FakeSessions::Acknowledge(const std::string& request_id,
                               const google::protobuf::Message& answer) {
  if (!request_id.empty()) acknowledged[request_id] = answer.SerializeAsString();
}

std::string FakeSessions::TextOf(const std::string& id) {
  absl::MutexLock lock(&mutex);
  return sessions[id].text;
}

std::map<std::string, v1::Ref> FakeSessions::refs() {
  absl::MutexLock lock(&mutex);
  return refs_by_name;
}

Status FakeSessions::CreateSession(grpc::ServerContext*, const v1::CreateSessionRequest* request,
                                   v1::CreateSessionResponse* response) {
  if (Status lost = MaybeLose(false); !lost.ok()) return lost;
  absl::MutexLock lock(&mutex);
  if (Repeated(request->request_id(), *response)) return Status::OK;
  if (sessions.count(request->session_id()) > 0) {
    return Error(StatusCode::ALREADY_EXISTS,
                 absl::StrCat("session ", request->session_id(), " exists"), "SESSION_EXISTS");
  }
  std::string state_id = request->state_id();
  if (request->has_ref_name()) {
    auto ref = refs_by_name.find(request->ref_name());
    if (ref == refs_by_name.end()) return NotFound("ref", request->ref_name());
    state_id = ref->second.state_id();
  }
  Entry entry;
  if (!state_id.empty()) {
    auto state = states.find(state_id);
    if (state == states.end()) return NotFound("state", state_id);
    entry.text = state->second.second;
    response->mutable_usage()->set_tokens_reused(static_cast<int64_t>(entry.text.size()));
  }
  if (request->has_history()) entry.text = TextOfContent(request->history());
  entry.session.set_id(request->session_id());
  entry.session.set_ref(request->ref().empty() ? request->session_id() : request->ref());
  entry.session.set_token_count(static_cast<int64_t>(entry.text.size()));
  entry.session.set_head_state_id(state_id);
  *entry.session.mutable_labels() = request->labels();
  *response->mutable_session() = entry.session;
  sessions[request->session_id()] = entry;
  Acknowledge(request->request_id(), *response);
  return MaybeLose(true);
}

Status FakeSessions::GetSession(grpc::ServerContext*, const v1::GetSessionRequest* request,
                                v1::Session* response) {
  if (Status lost = MaybeLose(false); !lost.ok()) return lost;
  absl::MutexLock lock(&mutex);
  auto it = sessions.find(request->session_id());
  if (it == sessions.end()) return NotFound("session", request->session_id());
  *response = it->second.session;
  return Status::OK;
}

Status FakeSessions::ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest* request,
                                  v1::ListSessionsResponse* response) {
  absl::MutexLock lock(&mutex);
  std::vector<v1::Session> all;
  for (const auto& [id, entry] : sessions) {
    if (absl::StartsWith(id, request->prefix())) all.push_back(entry.session);
  }
  Page(all, *request, response->mutable_sessions(), response);
  return Status::OK;
}

Status FakeSessions::CloseSession(grpc::ServerContext*, const v1::CloseSessionRequest* request,
                                  v1::CloseSessionResponse*) {
  absl::MutexLock lock(&mutex);
  if (sessions.erase(request->session_id()) == 0) return NotFound("session", request->session_id());
  return Status::OK;
}

Status FakeSessions::Append(
    grpc::ServerContext*, grpc::ServerReaderWriter<v1::AppendResponse, v1::AppendRequest>* stream) {
  if (Status lost = MaybeLose(false); !lost.ok()) return lost;
  v1::AppendRequest first, next;
  if (!stream->Read(&first)) return Error(StatusCode::INVALID_ARGUMENT, "empty", "EMPTY");
  v1::AppendResponse answer;
  {
    absl::MutexLock lock(&mutex);
    if (Repeated(first.request_id(), *answer.mutable_done())) {
      stream->Write(answer);
      return Status::OK;
    }
    auto it = sessions.find(first.session_id());
    if (it == sessions.end()) return NotFound("session", first.session_id());
    if (first.expected_token_count() != 0 &&
        first.expected_token_count() != it->second.session.token_count()) {
      return Error(StatusCode::ABORTED, "the session has moved", "TOKEN_COUNT_MISMATCH");
    }
  }
  std::string text = TextOfContent(first.content());
  ++faults_.chunks;
  while (stream->Read(&next)) {
    text += TextOfContent(next.content());
    ++faults_.chunks;
    v1::AppendResponse progress;
    progress.mutable_progress()->set_tokens_read(static_cast<int64_t>(text.size()));
    progress.mutable_progress()->set_tokens_total(static_cast<int64_t>(text.size()));
    stream->Write(progress);
  }
  absl::MutexLock lock(&mutex);
  Entry& entry = sessions[first.session_id()];
  answer.mutable_done()->mutable_usage()->set_tokens_reused(entry.session.token_count());
  entry.text += text;
  entry.session.set_token_count(static_cast<int64_t>(entry.text.size()));
  *answer.mutable_done()->mutable_session() = entry.session;
  answer.mutable_done()->mutable_usage()->set_tokens_read(static_cast<int64_t>(text.size()));
  Acknowledge(first.request_id(), answer.done());
  if (Status lost = MaybeLose(true); !lost.ok()) return lost;
  stream->Write(answer);
  return Status::OK;
}

Status FakeSessions::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                              grpc::ServerWriter<v1::GenerateResponse>* writer) {
  if (Status lost = MaybeLose(false); !lost.ok()) return lost;
  v1::GenerateResponse response;
  {
    absl::MutexLock lock(&mutex);
    if (Repeated(request->request_id(), *response.mutable_done())) {
      writer->Write(response);
      return Status::OK;
    }
    auto it = sessions.find(request->session_id());
    if (it == sessions.end()) return NotFound("session", request->session_id());
    if (request->expected_token_count() != 0 &&
        request->expected_token_count() != it->second.session.token_count()) {
      return Error(StatusCode::ABORTED, "the session has moved", "TOKEN_COUNT_MISMATCH");
    }
  }
  std::string text;
  int sent = 0;
  for (size_t i = 0; faults_.endless || i < std::size(kReplyPieces); ++i) {
    if (context->IsCancelled()) return Status(StatusCode::CANCELLED, "cancelled");
    if (faults_.break_after_deltas > 0 && sent++ == faults_.break_after_deltas) {
      return Status(StatusCode::UNAVAILABLE, "connection lost");
    }
    absl::string_view piece = kReplyPieces[i % std::size(kReplyPieces)];
    v1::GenerateResponse delta;
    delta.mutable_delta()->set_text(std::string(piece));
    writer->Write(delta);
    absl::StrAppend(&text, piece);
    if (faults_.endless) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  absl::MutexLock lock(&mutex);
  Entry& entry = sessions[request->session_id()];
  entry.text += text;
  entry.session.set_token_count(static_cast<int64_t>(entry.text.size()));
  v1::GenerateDone& done = *response.mutable_done();
  done.mutable_usage()->set_tokens_reused(entry.session.token_count() -
                                          static_cast<int64_t>(text.size()));
  done.set_text(text);
  done.set_finish_reason(v1::FINISH_REASON_END);
  *done.mutable_session() = entry.session;
  done.mutable_usage()->set_tokens_generated(static_cast<int64_t>(text.size()));
  Acknowledge(request->request_id(), done);
  writer->Write(response);
  return Status::OK;
}

Status FakeSessions::Commit(grpc::ServerContext*, const v1::CommitRequest* request,
                            v1::CommitResponse* response) {
  if (Status lost = MaybeLose(false); !lost.ok()) return lost;
  absl::MutexLock lock(&mutex);
  if (Repeated(request->request_id(), *response)) return Status::OK;
  auto it = sessions.find(request->session_id());
  if (it == sessions.end()) return NotFound("session", request->session_id());
  Entry& entry = it->second;
  std::string id = absl::StrFormat("st-%040x", std::hash<std::string>()(entry.text));
  v1::State state;
  state.set_id(id);
  state.set_operation("append");
  state.set_token_count(entry.session.token_count());
  state.set_size_bytes(1536);
  states[id] = {state, entry.text};
  v1::Ref& ref = refs_by_name[entry.session.ref()];
  ref.set_name(entry.session.ref());
  ref.set_state_id(id);
  entry.session.set_head_state_id(id);
  *response->mutable_state() = state;
  *response->mutable_ref() = ref;
  *response->mutable_session() = entry.session;
  Acknowledge(request->request_id(), *response);
  return MaybeLose(true);
}

Status FakeSessions::Fork(grpc::ServerContext*, const v1::ForkRequest* request,
                          v1::ForkResponse* response) {
  absl::MutexLock lock(&mutex);
  const bool by_ref = request->has_ref_name();
  if (by_ref ? refs_by_name.count(request->ref_name()) == 0
             : sessions.count(request->session_id()) == 0) {
    return NotFound("source", by_ref ? request->ref_name() : request->session_id());
  }
  Entry entry;
  entry.text = by_ref ? states[refs_by_name[request->ref_name()].state_id()].second
                      : sessions[request->session_id()].text;
  const std::string prefix = by_ref ? request->ref_name() : request->session_id();
  for (int i = 1; i <= std::max(request->count(), request->session_ids_size()); ++i) {
    const bool named = request->session_ids_size() > 0;
    entry.session.set_id(named ? request->session_ids(i - 1) : absl::StrCat(prefix, "/", i));
    entry.session.set_token_count(static_cast<int64_t>(entry.text.size()));
    sessions[entry.session.id()] = entry;
    *response->add_sessions() = entry.session;
  }
  response->mutable_usage()->set_tokens_reused(entry.session.token_count());
  return Status::OK;
}

Status FakeSessions::Rewind(grpc::ServerContext*, const v1::RewindRequest* request,
                            v1::RewindResponse* response) {
  absl::MutexLock lock(&mutex);
  Entry& entry = sessions[request->session_id()];
  response->set_tokens_dropped(static_cast<int64_t>(entry.text.size()) - request->token_count());
  if (!request->dry_run()) {
    entry.text.resize(static_cast<size_t>(request->token_count()));
    entry.session.set_token_count(request->token_count());
  }
  *response->mutable_session() = entry.session;
  return Status::OK;
}

Status FakeStates::GetState(grpc::ServerContext*, const v1::GetStateRequest* request,
                            v1::State* response) {
  absl::MutexLock lock(&library_.mutex);
  std::string id = request->id();
  if (auto ref = library_.refs_by_name.find(id); ref != library_.refs_by_name.end()) {
    id = ref->second.state_id();
  }
  auto it = library_.states.find(id);
  if (it == library_.states.end()) return NotFound("state or ref", request->id());
  *response = it->second.first;
  return Status::OK;
}

Status FakeStates::Search(grpc::ServerContext*, const v1::SearchRequest* request,
                          v1::SearchResponse* response) {
  absl::MutexLock lock(&library_.mutex);
  for (const auto& [id, state] : library_.states) {
    response->set_states_searched(response->states_searched() + 1);
    if (state.second.find(request->text()) == std::string::npos) continue;
    v1::SearchHit& hit = *response->add_hits();
    *hit.mutable_state() = state.first;
    hit.set_snippet(state.second);
    hit.set_lexical_score(1.5);
    hit.set_lexical_rank(response->hits_size());
    hit.set_score(0.25);
    hit.set_reranked(request->rerank() > 0);
    hit.set_pmi(2.5);
  }
  return Status::OK;
}

Status FakeStates::ListStates(grpc::ServerContext*, const v1::ListStatesRequest* request,
                              v1::ListStatesResponse* response) {
  absl::MutexLock lock(&library_.mutex);
  std::vector<v1::State> all;
  for (const auto& [id, state] : library_.states) all.push_back(state.first);
  Page(all, *request, response->mutable_states(), response);
  return Status::OK;
}

Status FakeStates::GetTokens(grpc::ServerContext*, const v1::GetTokensRequest* request,
                             v1::GetTokensResponse* response) {
  absl::MutexLock lock(&library_.mutex);
  auto it = library_.sessions.find(request->session_id());
  if (it == library_.sessions.end()) return NotFound("session", request->session_id());
  const std::string& text = it->second.text;
  size_t offset = std::min<size_t>(static_cast<size_t>(request->offset()), text.size());
  response->set_text(text.substr(offset, static_cast<size_t>(request->limit())));
  response->set_total(static_cast<int64_t>(text.size()));
  return Status::OK;
}

Status FakeStates::GetRef(grpc::ServerContext*, const v1::GetRefRequest* request,
                          v1::Ref* response) {
  absl::MutexLock lock(&library_.mutex);
  auto it = library_.refs_by_name.find(request->name());
  if (it == library_.refs_by_name.end()) return NotFound("ref", request->name());
  *response = it->second;
  return Status::OK;
}

Status FakeStates::ListRefs(grpc::ServerContext*, const v1::ListRefsRequest* request,
                            v1::ListRefsResponse* response) {
  absl::MutexLock lock(&library_.mutex);
  std::vector<v1::Ref> all;
  for (const auto& [name, ref] : library_.refs_by_name) all.push_back(ref);
  Page(all, *request, response->mutable_refs(), response);
  return Status::OK;
}

Status FakeStates::SetRef(grpc::ServerContext*, const v1::SetRefRequest* request,
                          v1::Ref* response) {
  absl::MutexLock lock(&library_.mutex);
  if (library_.states.count(request->state_id()) == 0)
    return NotFound("state", request->state_id());
  response->set_name(request->name());
  response->set_state_id(request->state_id());
  library_.refs_by_name[request->name()] = *response;
  return Status::OK;
}

Status FakeAdmin::GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                            v1::ServerStatus* response) {
  response->set_version("1.2.3");
  response->mutable_model()->set_name("fake");
  response->mutable_model()->set_weight_bytes(int64_t{3} << 20);
  response->mutable_library()->set_states(1234567);
  return Status::OK;
}

FakeServer::FakeServer() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.RegisterService(&sessions);
  builder.RegisterService(&states_);
  builder.RegisterService(&admin_);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

}  // namespace anabranch::testing
