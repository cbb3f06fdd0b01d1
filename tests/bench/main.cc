// The command line of anabranch-bench.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/bench/bench.h"

namespace anabranch::bench {

double TimeOnce(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Percentile(std::vector<double> samples, double p) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  return samples[std::min(samples.size() - 1, static_cast<size_t>(p * samples.size()))];
}

namespace {

void PrintTable(const std::vector<Row>& rows) {
  std::printf("%-44s %12s %-8s %-36s %12s %8s  %s\n", "what", "value", "unit", "beside", "value",
              "ratio", "aim");
  for (const Row& row : rows) {
    std::printf("%-44s %12.4g %-8s ", row.name.c_str(), row.value, row.unit.c_str());
    if (row.beside.empty()) {
      std::printf("%-36s %12s %8s", "", "", "");
    } else {
      std::printf("%-36s %12.4g %8.2f", row.beside.c_str(), row.beside_value, row.ratio);
    }
    std::printf("  %s\n", row.aim.c_str());
  }
}

void PrintJson(const std::vector<Row>& rows) {
  nlohmann::json out = nlohmann::json::array();
  for (const Row& row : rows) {
    out.push_back({{"name", row.name},
                   {"value", row.value},
                   {"unit", row.unit},
                   {"beside", row.beside},
                   {"beside_value", row.beside_value},
                   {"ratio", row.ratio},
                   {"aim", row.aim}});
  }
  std::printf("%s\n", out.dump(2).c_str());
}

}  // namespace
}  // namespace anabranch::bench

int main(int argc, char** argv) {
  using anabranch::bench::Row;
  anabranch::bench::Options options;
  options.directory = std::filesystem::temp_directory_path();
  std::vector<std::string> which = {"engine", "resume", "merge", "commit"};
  bool json = false;
  CLI::App app{"Measures Anabranch's engine and library, each figure beside a floor or a peer."};
  app.add_option("which", which, "any of: engine resume merge commit codecs (not by itself)")
      ->check(CLI::IsMember({"engine", "resume", "merge", "commit", "codecs"}));
  app.add_option("--model", options.model, "model folder")->capture_default_str();
  app.add_option("--dir", options.directory, "where to put temporary libraries (the disk measured)")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads of the model; 0: all")
      ->capture_default_str();
  app.add_option("--repeat", options.repeat, "repetitions; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", json, "print JSON instead of a table");
  CLI11_PARSE(app, argc, argv);

  std::vector<Row> rows;
  for (const std::string& name : which) {
    auto run = name == "engine"   ? anabranch::bench::RunEngineBench(options)
               : name == "resume" ? anabranch::bench::RunResumeBench(options)
               : name == "merge"  ? anabranch::bench::RunMergeBench(options)
               : name == "codecs" ? anabranch::bench::RunCodecBench(options)
                                  : anabranch::bench::RunCommitBench(options);
    if (!run.ok()) {
      std::fprintf(stderr, "anabranch-bench: %s: %s\n", name.c_str(),
                   run.status().ToString().c_str());
      return 1;
    }
    rows.insert(rows.end(), run->begin(), run->end());
  }
  json ? anabranch::bench::PrintJson(rows) : anabranch::bench::PrintTable(rows);
  return 0;
}
