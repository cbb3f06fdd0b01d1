#include "service/generate_request.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status CheckStopStrings(const v1::GenerateRequest& request, const ServedModel& model) {
  if (request.stop_size() > kMaxStopStrings) {
    return LimitExceeded("stop", request.stop_size(), kMaxStopStrings);
  }
  for (const std::string& stop : request.stop()) {
    if (stop.empty()) return InvalidField("stop", "a stop string must not be empty");
    if (stop.size() > kMaxStopStringBytes) {
      return LimitExceeded("stop bytes", stop.size(), kMaxStopStringBytes);
    }
  }
  if (request.stop_size() > 0 && model.tokenizer() == nullptr) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                           "stop: the model has no tokenizer.json, so it gives no text");
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> ParseSampling(const v1::GenerateRequest& request) {
  const v1::Sampling& sampling = request.sampling();
  SamplingParams params;
  params.temperature = sampling.temperature();
  params.top_k = sampling.top_k();
  params.top_p = sampling.top_p() == 0 ? 1 : sampling.top_p();
  params.min_p = sampling.min_p();
  params.repetition_penalty =
      sampling.repetition_penalty() == 0 ? 1 : sampling.repetition_penalty();
  params.seed = sampling.seed();
  if (request.top_logprobs() < 0 || request.top_logprobs() > kMaxTopLogprobs) {
    return InvalidField("top_logprobs", absl::StrCat("must be 0 to ", kMaxTopLogprobs));
  }
  if (request.top_logprobs() > 0 && !request.logprobs()) {
    return InvalidField("top_logprobs", "needs logprobs");
  }
  params.top_logprobs = request.top_logprobs();
  const absl::Status valid = ValidateSamplingParams(params);
  if (!valid.ok()) return InvalidField("sampling", valid.message());
  return params;
}

}  // namespace

absl::StatusOr<GenerateWork> ParseGenerateRequest(const v1::GenerateRequest& request,
                                                  const ServedModel& model, const Limits& limits) {
  GenerateWork work;
  ANABRANCH_ASSIGN_OR_RETURN(work.sampling, ParseSampling(request));
  ANABRANCH_RETURN_IF_ERROR(CheckStopStrings(request, model));
  if (request.max_tokens() < 0) return InvalidField("max_tokens", "must not be negative");
  if (request.max_tokens() > limits.max_generate_tokens) {
    return LimitExceeded("max_tokens", request.max_tokens(), limits.max_generate_tokens);
  }
  work.max_tokens = request.max_tokens() == 0 ? kDefaultGenerateTokens : request.max_tokens();
  if (request.reply()) {
    ANABRANCH_RETURN_IF_ERROR(model.RequireChat());
    work.stop_tokens = model.chat()->stop_token_ids();
  }
  if (!request.ignore_eos()) {
    const std::vector<int32_t> eos = model.eos_token_ids();
    work.stop_tokens.insert(work.stop_tokens.end(), eos.begin(), eos.end());
  }
  return work;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_END;
    case FinishReason::kStopped:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case FinishReason::kContextLimit:
      return v1::FINISH_REASON_CONTEXT_LIMIT;
    case FinishReason::kNone:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::TokenInfo ToTokenInfo(const SampledToken& token, bool logprobs, const ServedModel& model) {
  v1::TokenInfo info;
  info.set_id(token.token);
  info.set_text(model.Text({token.token}));
  if (!logprobs) return info;
  info.set_logprob(token.logprob);
  for (const TokenLogprob& other : token.top) {
    v1::TokenInfo* top = info.add_top();
    top->set_id(other.token);
    top->set_text(model.Text({other.token}));
    top->set_logprob(other.logprob);
  }
  return info;
}

}  // namespace anabranch
