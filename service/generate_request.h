// A GenerateRequest checked and turned into work for the engine.
#pragma once

#include "absl/status/statusor.h"
#include "anabranch/v1/sessions.pb.h"
#include "runtime/engine.h"
#include "service/limits.h"
#include "service/served_model.h"

namespace anabranch {

// Sampling, limits and stop tokens; sequence and callbacks are left to the caller. INVALID_ARGUMENT
// names the field; FAILED_PRECONDITION if a reply or stop strings need what the model lacks.
absl::StatusOr<GenerateWork> ParseGenerateRequest(const v1::GenerateRequest& request,
                                                  const ServedModel& model, const Limits& limits);

v1::FinishReason ToProto(FinishReason reason);

// One token as clients see it; logprobs and alternatives only if `logprobs`.
v1::TokenInfo ToTokenInfo(const SampledToken& token, bool logprobs, const ServedModel& model);

}  // namespace anabranch
