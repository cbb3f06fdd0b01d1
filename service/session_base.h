// What sessions read on from: a core state with auxiliary states merged in, such as skills and a
// persona. The base is the merge of the core (weight 1) and the auxiliary states, composed in any
// order, an ordinary state of the library. What an auxiliary state shares with the core, or with
// what the session has read, is there already: only its own part counts.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/service_context.h"
#include "service/state_loading.h"
#include "service/state_merging.h"

namespace anabranch {

// `state` as the core of a session, without auxiliary states.
SessionBase BareCore(const StateRecord& state);

// Adds what a request's `field` names to `aux`; one with the name of one that is there replaces it.
// INVALID_ARGUMENT (weights, too many, one state twice), NOT_FOUND, FAILED_PRECONDITION
// (MODEL_MISMATCH). Blocks.
absl::Status AddAux(const ServiceContext& service, const Call& call, const std::string& field,
                    const google::protobuf::RepeatedPtrField<v1::Auxiliary>& added,
                    std::vector<AuxState>* aux);

struct BaseState {
  SessionBase base;                   // complete
  std::optional<MergedState> merged;  // the base's state, if it is none that exists already
};

// The base for `core` (empty: none) with `aux`; `head` is the session's newest state, if any.
// FAILED_PRECONDITION (ALREADY_KNOWN) for an auxiliary state that the core or the head goes on
// from. Adds what it costs to `usage`. Blocks.
absl::StatusOr<BaseState> MakeBase(const ServiceContext& service, const Call& call,
                                   const std::string& core, std::vector<AuxState> aux,
                                   const std::string& head, v1::Usage* usage);

}  // namespace anabranch
