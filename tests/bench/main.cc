// The command line of anabranch-bench.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/bench/bench.h"
#include "tests/bench/shape_bench.h"

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

namespace {

using anabranch::bench::ShapeOptions;

// The benchmarks of a model folder and a library.
int RunFolderBenches(const anabranch::bench::Options& options,
                     const std::vector<std::string>& which, bool json) {
  using anabranch::bench::Row;
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

void AddShapeOptions(CLI::App& app, ShapeOptions& options, std::string& dtype,
                     std::string& state_dtype) {
  std::vector<std::string> names;
  for (const auto& shape : anabranch::bench::Shapes()) names.push_back(shape.name);
  app.add_option("--shape", options.shape,
                 "measure a published shape with random weights instead of a model folder")
      ->check(CLI::IsMember(names));
  app.add_option("--part", options.parts, "which parts of --shape; all if none is given")
      ->check(CLI::IsMember(anabranch::bench::ShapeParts()));
  app.add_option("--device", options.device, "of --shape: cpu, cuda or cuda:N")
      ->capture_default_str();
  app.add_option("--dtype", dtype, "of --shape")
      ->check(CLI::IsMember({"bfloat16", "float32"}))
      ->capture_default_str();
  app.add_option("--state-dtype", state_dtype, "of --shape: what recurrent states are kept in")
      ->check(CLI::IsMember({"bfloat16", "float32", "int8"}))
      ->capture_default_str();
  app.add_option("--state-write-every", options.state_write_every,
                 "of --shape: decode steps from one write of Mamba-2's states to the next")
      ->check(CLI::Range(1, anabranch::kMostStateWriteEvery))
      ->capture_default_str();
  app.add_option("--codec", options.codecs, "of --shape: what states are captured in")
      ->check(CLI::IsMember({"exact", "near", "compact"}))
      ->capture_default_str();
  app.add_option("--batch", options.batches, "sequences that decode together")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--length", options.lengths, "tokens of a prefill in one launch")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--rows-while-decoding", options.rows_while_decoding,
                 "reading rows of a step under mixed load")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--save", options.save, "a file that gets the figures of --shape as JSON, too");
  app.add_flag("--quick", options.quick, "fewer repeats, and less of what takes long");
}

}  // namespace

int main(int argc, char** argv) {
  anabranch::bench::Options options;
  options.directory = std::filesystem::temp_directory_path();
  std::vector<std::string> which = {"engine", "resume", "merge", "commit"};
  bool json = false;
  CLI::App app{"Measures Anabranch's engine and library, each figure beside a floor or a peer."};
  app.add_option("which", which, "any of: engine resume merge commit codecs (not by itself)")
      ->check(CLI::IsMember({"engine", "resume", "merge", "commit", "codecs"}));
  app.add_option("--model", options.model, "model folder, or a published shape with random weights")
      ->capture_default_str();
  app.add_option("--dir", options.directory, "where to put temporary libraries (the disk measured)")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads of the model; 0: all")
      ->capture_default_str();
  app.add_option("--repeat", options.repeat, "repetitions; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", json, "print JSON instead of a table");
  ShapeOptions shape;
  std::string dtype = "bfloat16", state_dtype = "float32";
  AddShapeOptions(app, shape, dtype, state_dtype);
  CLI11_PARSE(app, argc, argv);

  if (app.count("--shape") == 0) return RunFolderBenches(options, which, json);
  const auto parsed = [](const std::string& name) {
    return name == "float32" ? anabranch::kernels::DType::kFloat32
           : name == "int8"  ? anabranch::kernels::DType::kInt8
                             : anabranch::kernels::DType::kBFloat16;
  };
  shape.dtype = parsed(dtype);
  shape.state_dtype = parsed(state_dtype);
  shape.threads = options.threads;
  shape.json = json;
  shape.directory = options.directory;
  const absl::Status status = anabranch::bench::RunShapeBench(shape);
  if (status.ok()) return 0;
  std::fprintf(stderr, "anabranch-bench: %s\n", status.ToString().c_str());
  return 1;
}
