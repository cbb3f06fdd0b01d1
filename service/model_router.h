// Which of the models that a server serves a call is about: the one of the session or state that it
// names, or the one that it asks for. Models share library and calls; engine and sessions are their
// own, so each has a ServiceContext of its own, and a handler gets that of its call.
//
// Thread rule: every member may be called from any thread. Members that look something up block on
// the library, but where only one model is served.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "anabranch/v1/sessions.pb.h"
#include "anabranch/v1/states.pb.h"

namespace anabranch {

struct ServiceContext;

class ModelRouter {
 public:
  // `models`: at least one, each with another name and fingerprint. They outlive this.
  explicit ModelRouter(std::vector<ServiceContext*> models) : models_(std::move(models)) {}

  ServiceContext* first() const { return models_.front(); }
  const std::vector<ServiceContext*>& models() const { return models_; }

  // The model with this fingerprint. The first one if none has it: its handlers do what can be done
  // without the model, and name the model that is missing where it is needed.
  ServiceContext* OfFingerprint(absl::string_view fingerprint) const;
  // The model with this name or fingerprint. INVALID_ARGUMENT names `field` and those that are
  // served.
  absl::StatusOr<ServiceContext*> Named(absl::string_view field, absl::string_view name) const;

  // What a filter over stored states means by a name or fingerprint: a fingerprint, also of a model
  // that is not served. INVALID_ARGUMENT, as Named, for what is neither that nor a model's name.
  absl::StatusOr<std::string> FingerprintOf(absl::string_view field,
                                            absl::string_view name_or_fingerprint) const;

  // The model of what a request names. The first one if it names nothing, or nothing that exists,
  // which is then for the handler to say.
  ServiceContext* OfSession(const std::string& tenant, const std::string& id) const;
  ServiceContext* OfState(const std::string& tenant, const std::string& id_or_ref) const;
  template <typename Request>
  ServiceContext* For(const std::string& tenant, const Request& request) const {
    if (models_.size() == 1) return first();
    if constexpr (requires { request.session_id(); }) {
      if (!request.session_id().empty()) return OfSession(tenant, request.session_id());
    }
    if constexpr (requires { request.state_id(); }) {
      if (!request.state_id().empty()) return OfState(tenant, request.state_id());
    }
    if constexpr (requires { request.ref_name(); }) {
      if (!request.ref_name().empty()) return OfState(tenant, request.ref_name());
    }
    if constexpr (requires { request.id(); }) return OfState(tenant, request.id());
    return first();
  }
  ServiceContext* For(const std::string& tenant, const v1::MergeRequest& request) const;
  ServiceContext* For(const std::string& tenant, const v1::DiffRequest& request) const;

  // A new session runs on the model of what it goes on from, else on the one that it asks for.
  // INVALID_ARGUMENT if these differ, or no such model is served.
  absl::StatusOr<ServiceContext*> ForNewSession(const std::string& tenant,
                                                const v1::CreateSessionRequest& request) const;
  // A search asks the model whose states it searches: by name or fingerprint, or of the state that
  // it names. The first one for a fingerprint that none has.
  ServiceContext* ForSearch(const std::string& tenant, const v1::SearchRequest& request) const;

 private:
  ServiceContext* Find(absl::string_view name_or_fingerprint) const;  // null: none

  const std::vector<ServiceContext*> models_;
};

}  // namespace anabranch
