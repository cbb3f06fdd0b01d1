// `anabranch merge`.
#include <map>
#include <memory>
#include <ostream>

#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/weighted.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct MergeFlags {
  std::vector<std::string> inputs;  // ID or ID=WEIGHT
  std::string ref, ancestor, query;
  v1::MergeMethod method = v1::MERGE_METHOD_COMPOSE;
  v1::MergeNorm norm = v1::MERGE_NORM_UNSPECIFIED;
};

const std::map<std::string, v1::MergeMethod>& Methods() {
  static const auto* methods =
      new std::map<std::string, v1::MergeMethod>{{"compose", v1::MERGE_METHOD_COMPOSE},
                                                 {"ordered", v1::MERGE_METHOD_ORDERED},
                                                 {"mean", v1::MERGE_METHOD_MEAN},
                                                 {"select", v1::MERGE_METHOD_SELECT}};
  return *methods;
}

const std::map<std::string, v1::MergeNorm>& Norms() {
  static const auto* norms =
      new std::map<std::string, v1::MergeNorm>{{"none", v1::MERGE_NORM_UNSPECIFIED},
                                               {"shares", v1::MERGE_NORM_SHARES},
                                               {"inputs", v1::MERGE_NORM_INPUTS}};
  return *norms;
}

absl::Status Merge(Cli& cli, const MergeFlags& flags) {
  v1::MergeRequest request;
  for (const std::string& input : flags.inputs) {
    ANABRANCH_ASSIGN_OR_RETURN(const Weighted weighted, ParseWeighted(input));
    v1::MergeInput& added = *request.add_inputs();
    added.set_id(weighted.id);
    added.set_weight(weighted.weight);
  }
  request.set_method(flags.method);
  request.set_norm(flags.norm);
  request.set_ref(flags.ref);
  request.set_ancestor_id(flags.ancestor);
  request.set_query(flags.query);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::MergeResponse merged, cli.client().Merge(request));
  if (cli.options.json) {
    PrintJson(ToJson(merged), cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields({{"state", merged.state().id()},
               {"ref", merged.has_ref() ? merged.ref().name() : "-"},
               {"tokens", HumanCount(merged.state().token_count())},
               {"ancestor", merged.ancestor_id().empty() ? "-" : merged.ancestor_id()},
               {"size", HumanBytes(merged.state().size_bytes())}},
              cli.streams.out);
  return absl::OkStatus();
}

}  // namespace

void AddMergeCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<MergeFlags>();
  CLI::App* merge = app.add_subcommand("merge", "One state of several that were read separately");
  merge->add_option("STATE", flags->inputs, "States or refs, each maybe with =WEIGHT")
      ->required()
      ->expected(2, 64);
  merge->add_option("-o,--ref", flags->ref, "Ref to set to the merged state")->type_name("REF");
  merge
      ->add_option("--method", flags->method,
                   "compose (in any order), ordered (later ones weigh more), mean, or select (the "
                   "best one alone)")
      ->transform(CLI::CheckedTransformer(Methods()).description(""))
      ->type_name("METHOD")
      ->default_str("compose");
  merge
      ->add_option("--norm", flags->norm,
                   "Keep the merged state from growing: none, shares or inputs")
      ->transform(CLI::CheckedTransformer(Norms()).description(""))
      ->type_name("NORM")
      ->default_str("none");
  merge
      ->add_option("--ancestor", flags->ancestor,
                   "What all go on from, counted once (default: the nearest known; - for none)")
      ->type_name("STATE");
  merge->add_option("--query", flags->query, "What select should know most about")
      ->type_name("TEXT");
  merge->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Merge(c, *flags); }; });
}

}  // namespace anabranch::cli
