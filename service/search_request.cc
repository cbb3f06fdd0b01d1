#include "service/search_request.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/state_image.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/state_embedding.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Of a state that stands as the query: its newest text has the words.
constexpr size_t kLikeTextBytes = 2000;

// Names in errors are those of the request's fields.
absl::StatusOr<StateRecord> Resolve(const ServiceContext& service, const Call& call,
                                    const std::string& field, const std::string& name) {
  if (!IsStateId(name)) ANABRANCH_RETURN_IF_ERROR(CheckName(field, name));
  return ResolveState(*service.store, call.tenant, name);
}

absl::Status ParseFilter(const ServiceContext& service, const Call& call,
                         const v1::SearchRequest& request, SearchQuery* query) {
  IndexFilter& filter = query->filter;
  filter.tenant = call.tenant;
  filter.stop = [&call] { return !call.Interrupted().ok(); };
  ANABRANCH_ASSIGN_OR_RETURN(filter.state.labels, ParseLabels(request.labels()));
  filter.state.fingerprint = request.model_fingerprint();
  if (request.model_fingerprint().empty() || request.model_fingerprint() == service.model->name()) {
    filter.state.fingerprint = service.model->model()->fingerprint();
  }
  if (request.has_created_after()) filter.state.created_after = FromProto(request.created_after());
  if (request.has_created_before()) {
    filter.state.created_before = FromProto(request.created_before());
  }
  if (filter.state.created_before <= filter.state.created_after) {
    return InvalidField("created_before", "must be later than created_after");
  }
  if (!request.descendant_of().empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord root,
                               Resolve(service, call, "descendant_of", request.descendant_of()));
    ANABRANCH_ASSIGN_OR_RETURN(query->ids, service.store->Descendants(call.tenant, root.id));
    filter.ids = &query->ids;
  }
  return absl::OkStatus();
}

absl::Status ParseText(const ServiceContext& service, const v1::SearchRequest& request,
                       SearchQuery* query) {
  query->text = std::string(absl::StripAsciiWhitespace(request.text()));
  if (query->text.empty()) return InvalidField("text", "must not be empty");
  const int64_t bytes = query->text.size();
  if (bytes > kMaxSearchTextBytes) return LimitExceeded("text", bytes, kMaxSearchTextBytes);
  ANABRANCH_RETURN_IF_ERROR(service.model->RequireTokenizer());
  query->words = query->text;
  return absl::OkStatus();
}

absl::Status ParseLike(const ServiceContext& service, const Call& call,
                       const v1::SearchRequest& request, SearchQuery* query) {
  if (request.rerank() > 0) {
    return InvalidField("rerank", "needs text: the model cannot ask a state with a state");
  }
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord like,
                             Resolve(service, call, "like_id", request.like_id()));
  query->like_id = query->filter.not_id = like.id;
  const auto header = ParseStateHeader(like.header);
  if (header.ok()) query->like = EmbeddingOf(header->inner_sum);
  query->words = service.search_index->Text({call.tenant, like.id}).value_or("");
  if (query->words.size() > kLikeTextBytes) {
    query->words = query->words.substr(query->words.size() - kLikeTextBytes);
  }
  return absl::OkStatus();
}

absl::Status ParseMethod(const v1::SearchRequest& request, SearchQuery* query) {
  switch (request.method()) {
    case v1::SEARCH_METHOD_UNSPECIFIED:
    case v1::SEARCH_METHOD_BOTH:
      query->lexical = query->embedding = true;
      break;
    case v1::SEARCH_METHOD_LEXICAL:
      query->lexical = true;
      break;
    case v1::SEARCH_METHOD_EMBEDDING:
      query->embedding = true;
      break;
    default:
      return InvalidField("method", "is none that this server knows");
  }
  if (request.limit() < 0 || request.limit() > kMaxSearchHits) {
    return InvalidField("limit", absl::StrCat("must be 0 to ", kMaxSearchHits));
  }
  query->limit = request.limit() == 0 ? kDefaultSearchHits : request.limit();
  if (request.rerank() < -1 || request.rerank() > kMaxRerank) {
    return InvalidField("rerank", absl::StrCat("must be -1 to ", kMaxRerank));
  }
  query->rerank = request.rerank() == 0 ? kDefaultRerank : std::max(request.rerank(), 0);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SearchQuery>> ParseSearch(const ServiceContext& service,
                                                               const Call& call,
                                                               const v1::SearchRequest& request) {
  auto query = std::make_shared<SearchQuery>();
  ANABRANCH_RETURN_IF_ERROR(ParseMethod(request, query.get()));
  switch (request.query_case()) {
    case v1::SearchRequest::kText:
      ANABRANCH_RETURN_IF_ERROR(ParseText(service, request, query.get()));
      break;
    case v1::SearchRequest::kLikeId:
      ANABRANCH_RETURN_IF_ERROR(ParseLike(service, call, request, query.get()));
      break;
    case v1::SearchRequest::QUERY_NOT_SET:
      return InvalidField("query", "one of text and like_id must be set");
  }
  ANABRANCH_RETURN_IF_ERROR(ParseFilter(service, call, request, query.get()));
  const bool served = query->filter.state.fingerprint == service.model->model()->fingerprint();
  if (!query->like_id.empty() || !served) query->rerank = 0;
  return std::shared_ptr<const SearchQuery>(std::move(query));
}

}  // namespace anabranch
