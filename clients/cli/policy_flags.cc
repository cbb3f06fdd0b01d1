#include "clients/cli/policy_flags.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/codec_names.h"
#include "clients/cli/format.h"

namespace anabranch::cli {

v1::CheckpointPolicy PolicyFlags::ToProto() const {
  v1::CheckpointPolicy policy;
  policy.set_skip_turn_ends(no_turn_ends);
  policy.set_every(every);
  policy.set_thinning(thinning == "none" ? v1::THINNING_NONE : v1::THINNING_LOGARITHMIC);
  policy.set_thin_turn_ends(thin_turn_ends);
  policy.set_max_states(max_states);
  policy.set_max_bytes(max_bytes);
  policy.set_codec(CodecOf(codec));
  return policy;
}

void AddPolicyFlags(CLI::App& command, PolicyFlags& flags) {
  command.add_flag("--no-turn-ends", flags.no_turn_ends, "Capture nothing where a call ends");
  command
      .add_option("--every", flags.every,
                  "Capture on a grid of this many tokens; 0: as the server does, -1: none")
      ->type_name("TOKENS")
      ->capture_default_str();
  command.add_option("--thinning", flags.thinning, "How old positions of the grid are thinned")
      ->check(CLI::IsMember({"logarithmic", "none"}))
      ->type_name("logarithmic|none")
      ->capture_default_str();
  command.add_flag("--thin-turn-ends", flags.thin_turn_ends, "Thin turn ends like the grid");
  command.add_option("--max-states", flags.max_states, "Keep at most this many of them; 0: any")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("COUNT");
  command.add_option("--max-bytes", flags.max_bytes, "Keep at most this much of them; 0: any")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("BYTES");
  command
      .add_option("--codec", flags.codec,
                  "How the states are kept; without it as the server does. near and compact are "
                  "lossy")
      ->check(CLI::IsMember({"exact", "near", "compact"}))
      ->type_name("exact|near|compact");
}

std::string PolicyLine(const v1::CheckpointPolicy& policy) {
  std::vector<std::string> parts;
  if (!policy.skip_turn_ends()) parts.push_back("turn ends");
  if (policy.every() == 0) {
    parts.push_back("the server's grid");
  } else if (policy.every() > 0) {
    parts.push_back(absl::StrCat("every ", HumanCount(policy.every()), " tokens"));
  }
  if (parts.empty()) parts.push_back("only what is asked for");
  if (policy.thinning() == v1::THINNING_NONE) {
    parts.push_back("all kept");
  } else {
    parts.push_back(absl::StrCat(policy.thin_turn_ends() ? "both" : "the grid", " thinned"));
  }
  if (policy.max_states() > 0) {
    parts.push_back(absl::StrCat("at most ", HumanCount(policy.max_states()), " states"));
  }
  if (policy.max_bytes() > 0) {
    parts.push_back(absl::StrCat("at most ", HumanBytes(policy.max_bytes())));
  }
  if (policy.codec() != v1::STATE_CODEC_UNSPECIFIED) {
    parts.push_back(absl::StrCat("kept ", CodecName(policy.codec())));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace anabranch::cli
