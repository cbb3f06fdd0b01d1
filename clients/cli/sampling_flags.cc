#include "clients/cli/sampling_flags.h"

namespace anabranch::cli {

void SamplingFlags::AddTo(CLI::App& command) {
  const std::string group = "Sampling";
  command.add_option("--max-tokens", max_tokens, "Longest reply in tokens (default 256)")
      ->check(CLI::Range(1, 1 << 30).description(""))
      ->group(group);
  command.add_option("--temperature", temperature, "0 (the default) takes the likeliest token")
      ->check(CLI::Range(0.0, 10.0).description(""))
      ->group(group);
  command.add_option("--top-k", top_k, "Sample among the K likeliest tokens (0: all)")
      ->check(CLI::Range(0, 1 << 30).description(""))
      ->group(group);
  command
      .add_option("--top-p", top_p, "Sample among the likeliest tokens of this total probability")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->group(group);
  command.add_option("--min-p", min_p, "Drop tokens less likely than this part of the likeliest")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->group(group);
  command
      .add_option("--repetition-penalty", repetition_penalty,
                  "Above 1 makes tokens that already occurred less likely")
      ->check(CLI::Range(1.0, 1e6).description(""))
      ->group(group);
  command.add_option("--seed", seed, "The same seed gives the same reply")->group(group);
  command.add_option("--stop", stop, "End the reply before this text (repeatable)")
      ->allow_extra_args(false)
      ->group(group);
}

v1::GenerateRequest SamplingFlags::Request() const {
  v1::GenerateRequest request;
  request.set_max_tokens(max_tokens);
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(temperature);
  sampling.set_top_k(top_k);
  sampling.set_top_p(top_p);
  sampling.set_min_p(min_p);
  sampling.set_repetition_penalty(repetition_penalty);
  sampling.set_seed(seed);
  for (const std::string& text : stop) request.add_stop(text);
  return request;
}

}  // namespace anabranch::cli
