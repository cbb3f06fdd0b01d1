// `anabranch search`.
#include <map>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct SearchFlags {
  std::string text, like, descendant_of, model, since, until, rerank = "auto";
  std::vector<std::string> labels;
  v1::SearchMethod method = v1::SEARCH_METHOD_UNSPECIFIED;
  int32_t limit = 10;
};

const std::map<std::string, v1::SearchMethod>& Methods() {
  static const auto* methods =
      new std::map<std::string, v1::SearchMethod>{{"lexical", v1::SEARCH_METHOD_LEXICAL},
                                                  {"embedding", v1::SEARCH_METHOD_EMBEDDING},
                                                  {"both", v1::SEARCH_METHOD_BOTH}};
  return *methods;
}

// "2026-01-31", "2026-01-31T12:00:00Z", or an age such as "36h".
absl::Status ParseTime(const std::string& flag, const std::string& text,
                       google::protobuf::Timestamp* time) {
  absl::Time parsed;
  absl::Duration age;
  std::string error;
  if (absl::ParseDuration(text, &age) && age >= absl::ZeroDuration()) {
    parsed = absl::Now() - age;
  } else if (!absl::ParseTime("%Y-%m-%d", text, &parsed, &error) &&
             !absl::ParseTime(absl::RFC3339_full, text, &parsed, &error)) {
    return UsageError(absl::StrCat(flag, ": ", text,
                                   " is no date (2026-01-31), time (2026-01-31T12:00:00Z) or age "
                                   "(36h, 30m)"));
  }
  time->set_seconds(absl::ToUnixSeconds(parsed));
  return absl::OkStatus();
}

absl::Status FillFilters(const SearchFlags& flags, v1::SearchRequest* request) {
  for (const std::string& label : flags.labels) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.first.empty() || parts.first.size() == label.size()) {
      return UsageError(absl::StrCat("--label: ", label, " is not KEY=VALUE"));
    }
    (*request->mutable_labels())[parts.first] = parts.second;
  }
  request->set_descendant_of(flags.descendant_of);
  request->set_model_fingerprint(flags.model);
  if (!flags.since.empty()) {
    ANABRANCH_RETURN_IF_ERROR(ParseTime("--since", flags.since, request->mutable_created_after()));
  }
  if (!flags.until.empty()) {
    ANABRANCH_RETURN_IF_ERROR(ParseTime("--until", flags.until, request->mutable_created_before()));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::SearchRequest> MakeRequest(const SearchFlags& flags) {
  v1::SearchRequest request;
  if (flags.text.empty() == flags.like.empty()) {
    return UsageError("give either TEXT or --like");
  }
  if (flags.like.empty()) {
    request.set_text(flags.text);
  } else {
    request.set_like_id(flags.like);
  }
  ANABRANCH_RETURN_IF_ERROR(FillFilters(flags, &request));
  request.set_limit(flags.limit);
  request.set_method(flags.method);
  int32_t rerank = 0;
  if (flags.rerank == "off") {
    rerank = -1;
  } else if (flags.rerank != "auto" && (!absl::SimpleAtoi(flags.rerank, &rerank) || rerank < 1)) {
    return UsageError(absl::StrCat("--rerank: ", flags.rerank, " is not off, auto or a number"));
  }
  request.set_rerank(rerank);
  return request;
}

std::string Rank(int32_t rank, const std::string& format, double score) {
  if (rank == 0) return "-";
  return absl::StrCat(absl::StrFormat("%.2f", score), format, rank);
}

std::string NameOf(const v1::SearchHit& hit) {
  if (!hit.ref().empty()) return hit.ref();
  return hit.session_id().empty() ? hit.state().id() : hit.session_id();
}

void PrintHits(const v1::SearchResponse& found, std::ostream& out) {
  Table table({"NAME", "SCORE", "WORDS", "MEANING", "PMI", "ANSWER", "ENTROPY", "CREATED", "TEXT"},
              {.right_aligned = {1, 2, 3, 4, 5, 6}});
  const auto judged = [](const v1::SearchHit& hit, double value) {
    return hit.reranked() ? absl::StrFormat("%.2f", value) : std::string("-");
  };
  for (const v1::SearchHit& hit : found.hits()) {
    const std::vector<std::string> words =
        absl::StrSplit(Printable(hit.snippet()), absl::ByAnyChar(" \n\t"), absl::SkipEmpty());
    table.Add({NameOf(hit), absl::StrFormat("%.3f", hit.score()),
               Rank(hit.lexical_rank(), " #", hit.lexical_score()),
               Rank(hit.embedding_rank(), " #", hit.embedding_cosine()), judged(hit, hit.pmi()),
               judged(hit, hit.answer_gain()), judged(hit, hit.entropy()),
               AgeOf(hit.state().create_time()), absl::StrJoin(words, " ")});
  }
  table.Print(out);
}

absl::Status Search(Cli& cli, const SearchFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::SearchRequest request, MakeRequest(flags));
  ANABRANCH_ASSIGN_OR_RETURN(const v1::SearchResponse found, cli.client().Search(request));
  if (cli.options.json) {
    PrintJson(ToJson(found), cli.streams.out);
    return absl::OkStatus();
  }
  if (found.states_pending() > 0) {
    cli.streams.err << "the index is being built: " << HumanCount(found.states_pending())
                    << " changes are missing" << std::endl;
  }
  if (found.hits().empty()) {
    cli.streams.err << "nothing found in " << HumanCount(found.states_searched()) << " states"
                    << std::endl;
    return absl::OkStatus();
  }
  PrintHits(found, cli.streams.out);
  cli.streams.err << HumanCount(found.states_searched()) << " states; candidates "
                  << HumanMillis(found.candidates_ms()) << ", judged by the model "
                  << HumanMillis(found.rerank_ms()) << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddSearchCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<SearchFlags>();
  CLI::App* search = app.add_subcommand("search", "Find states by what they know");
  search->add_option("TEXT", flags->text, "A question or words");
  search->add_option("--like", flags->like, "Find states like this one instead")
      ->type_name("STATE");
  search->add_option("-k,--limit", flags->limit, "At most this many")
      ->check(CLI::Range(1, 100).description(""))
      ->capture_default_str();
  search->add_option("-l,--label", flags->labels, "Only with this label; may be given repeatedly")
      ->type_name("KEY=VALUE");
  search->add_option("--descendant-of", flags->descendant_of, "Only states below this one")
      ->type_name("STATE");
  search->add_option("--since", flags->since, "Only from this date, time or age (36h) on")
      ->type_name("TIME");
  search->add_option("--until", flags->until, "Only before this date, time or age")
      ->type_name("TIME");
  search
      ->add_option("--model", flags->model,
                   "Only of this model (default: of the state that --like or --descendant-of "
                   "names, else the first that is served)")
      ->type_name("NAME|FINGERPRINT");
  search
      ->add_option("--method", flags->method,
                   "How candidates are found: lexical (words), embedding (meaning) or both")
      ->transform(CLI::CheckedTransformer(Methods()).description(""))
      ->type_name("METHOD")
      ->default_str("both");
  search
      ->add_option("--rerank", flags->rerank,
                   "How many candidates the model itself judges: off, auto or a number")
      ->type_name("N")
      ->capture_default_str();
  search->footer(
      "Columns: WORDS and MEANING are the scores and ranks of the two indexes; PMI is how much\n"
      "likelier the state makes each token of the query, ANSWER how far it moves the model's "
      "first\n"
      "answer token from what it answers knowing nothing, ENTROPY how unsure that token is "
      "(nats).");
  search->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Search(c, *flags); }; });
}

}  // namespace anabranch::cli
