#include "service/model_router.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "service/error_info.h"
#include "service/service_context.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Of 32 bytes, as FingerprintBuilder gives it.
bool IsFingerprint(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char each) {
           return absl::ascii_isdigit(each) || (each >= 'a' && each <= 'f');
         });
}

const std::string& Fingerprint(const ServiceContext& service) {
  return service.model->model()->fingerprint();
}

ServiceContext* WithFingerprint(const std::vector<ServiceContext*>& models,
                                absl::string_view fingerprint) {
  for (ServiceContext* service : models) {
    if (Fingerprint(*service) == fingerprint) return service;
  }
  return nullptr;
}

// What a new session goes on from, by id or name; empty: from nothing.
const std::string& OriginOf(const v1::CreateSessionRequest& request) {
  switch (request.from_case()) {
    case v1::CreateSessionRequest::kStateId:
      return request.state_id();
    case v1::CreateSessionRequest::kRefName:
      return request.ref_name();
    case v1::CreateSessionRequest::kHistory:
    case v1::CreateSessionRequest::FROM_NOT_SET:
      break;
  }
  static const std::string* const kNothing = new std::string();
  return request.aux().empty() ? *kNothing : request.aux(0).id();
}

}  // namespace

ServiceContext* ModelRouter::Find(absl::string_view name_or_fingerprint) const {
  for (ServiceContext* service : models_) {
    if (service->model->name() == name_or_fingerprint) return service;
  }
  return WithFingerprint(models_, name_or_fingerprint);
}

ServiceContext* ModelRouter::OfFingerprint(absl::string_view fingerprint) const {
  ServiceContext* const service = WithFingerprint(models_, fingerprint);
  return service == nullptr ? first() : service;
}

absl::StatusOr<ServiceContext*> ModelRouter::Named(absl::string_view field,
                                                   absl::string_view name) const {
  if (ServiceContext* service = Find(name); service != nullptr) return service;
  const auto append_name = [](std::string* out, const ServiceContext* service) {
    absl::StrAppend(out, service->model->name());
  };
  return InvalidField(field, absl::StrCat("'", name, "' is no model that is served, which are: ",
                                          absl::StrJoin(models_, ", ", append_name)));
}

absl::StatusOr<std::string> ModelRouter::FingerprintOf(
    absl::string_view field, absl::string_view name_or_fingerprint) const {
  const absl::StatusOr<ServiceContext*> served = Named(field, name_or_fingerprint);
  if (served.ok()) return Fingerprint(**served);
  if (IsFingerprint(name_or_fingerprint)) return std::string(name_or_fingerprint);
  return served.status();
}

ServiceContext* ModelRouter::OfSession(const std::string& tenant, const std::string& id) const {
  if (models_.size() == 1) return first();
  // A loaded session needs no look at the library.
  for (ServiceContext* service : models_) {
    if (service->sessions->Has(tenant, id)) return service;
  }
  const auto record = first()->store->GetSession(tenant, id);
  return record.ok() ? OfFingerprint(record->fingerprint) : first();
}

ServiceContext* ModelRouter::OfState(const std::string& tenant,
                                     const std::string& id_or_ref) const {
  if (models_.size() == 1 || id_or_ref.empty()) return first();
  const auto record = ResolveState(*first()->store, tenant, id_or_ref);
  return record.ok() ? OfFingerprint(record->fingerprint) : first();
}

ServiceContext* ModelRouter::For(const std::string& tenant, const v1::MergeRequest& request) const {
  return request.inputs().empty() ? first() : OfState(tenant, request.inputs(0).id());
}

ServiceContext* ModelRouter::For(const std::string& tenant, const v1::DiffRequest& request) const {
  return OfState(tenant, request.id_a());
}

absl::StatusOr<ServiceContext*> ModelRouter::ForNewSession(
    const std::string& tenant, const v1::CreateSessionRequest& request) const {
  const std::string& origin = OriginOf(request);
  if (request.model().empty()) return OfState(tenant, origin);
  ANABRANCH_ASSIGN_OR_RETURN(ServiceContext * asked, Named("model", request.model()));
  if (origin.empty()) return asked;
  const auto record = ResolveState(*first()->store, tenant, origin);
  if (record.ok() && record->fingerprint != Fingerprint(*asked)) {
    return InvalidField(
        "model", absl::StrCat("is ", request.model(), ", but ", origin, " is of model ",
                              record->fingerprint, ": leave it out, or read the tokens again"));
  }
  return asked;
}

ServiceContext* ModelRouter::ForSearch(const std::string& tenant,
                                       const v1::SearchRequest& request) const {
  if (!request.model_fingerprint().empty()) {
    ServiceContext* service = Find(request.model_fingerprint());
    return service == nullptr ? first() : service;
  }
  return OfState(tenant, request.like_id().empty() ? request.descendant_of() : request.like_id());
}

}  // namespace anabranch
