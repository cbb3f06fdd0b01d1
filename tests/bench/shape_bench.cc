#include "tests/bench/shape_bench.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "runtime/random_model.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"

namespace anabranch::bench {
namespace {

constexpr double kMeasureSeconds = 3;  // spent on one figure, about

using Part = absl::Status (*)(ShapeRun&);
constexpr std::pair<const char*, Part> kParts[] = {
    {"forward", BenchForward}, {"engine", BenchEngine},        {"states", BenchStates},
    {"merges", BenchMerges},   {"device-ops", BenchDeviceOps}, {"checkpoints", BenchCheckpoints},
    {"mixed", BenchMixed}};

std::string Number(double value) { return value > 0 ? absl::StrFormat("%.4g", value) : "-"; }
std::string Ratio(double value, double of) {
  return value > 0 && of > 0 ? absl::StrFormat("%.2f", value / of) : "-";
}

void PrintTable(const ShapeOptions& options, const ShapeRun& run) {
  const Ceilings& c = run.ceilings;
  std::printf(
      "%s, %s, %s: %s\n", options.shape.c_str(), options.device.c_str(),
      run.model->numerics_profile().c_str(),
      absl::StrFormat("weights %.2f GB, state %.1f MB, copy %.0f GB/s, host to device %.1f, "
                      "device to host %.1f GB/s, matrix product %.0f TFLOP/s",
                      run.model->weight_bytes() / 1e9, run.model->state_layout().slot_bytes() / 1e6,
                      c.copy_bytes / 1e9, c.to_device / 1e9, c.to_host / 1e9, c.matrix_flops / 1e12)
          .c_str());
  std::printf("milliseconds, medians of n after a warm-up\n");
  std::printf("%-11s %-42s %9s %9s %9s %4s %8s %8s %8s %8s %6s  %s\n", "part", "what", "median",
              "least", "most", "n", "floor", "x floor", "to reach", "peer", "x peer", "");
  for (const Figure& f : run.report.figures()) {
    std::printf(
        "%-11s %-42s %9s %9s %9s %4d %8s %8s %8s %8s %6s  %s\n", f.part.c_str(), f.name.c_str(),
        Number(f.median).c_str(), Number(f.least).c_str(), Number(f.most).c_str(), f.samples,
        Number(f.floor).c_str(), Ratio(f.median, f.floor).c_str(), Number(f.peer.aim_ms).c_str(),
        Number(f.peer.peer_ms).c_str(), Ratio(f.median, f.peer.peer_ms).c_str(), f.note.c_str());
  }
}

std::string Json(const ShapeOptions& options, const ShapeRun& run) {
  const Ceilings& c = run.ceilings;
  nlohmann::json figures = nlohmann::json::array();
  for (const Figure& f : run.report.figures()) {
    figures.push_back({{"part", f.part},
                       {"name", f.name},
                       {"median_ms", f.median},
                       {"least_ms", f.least},
                       {"most_ms", f.most},
                       {"samples", f.samples},
                       {"floor_ms", f.floor},
                       {"to_reach_ms", f.peer.aim_ms},
                       {"peer_ms", f.peer.peer_ms},
                       {"note", f.note}});
  }
  const nlohmann::json out = {{"shape", options.shape},
                              {"device", options.device},
                              {"profile", run.model->numerics_profile()},
                              {"quick", options.quick},
                              {"weight_bytes", run.model->weight_bytes()},
                              {"slot_bytes", run.model->state_layout().slot_bytes()},
                              {"ceilings",
                               {{"copy_bytes_per_second", c.copy_bytes},
                                {"to_device_bytes_per_second", c.to_device},
                                {"to_host_bytes_per_second", c.to_host},
                                {"matrix_flops", c.matrix_flops}}},
                              {"figures", std::move(figures)}};
  return out.dump(2) + "\n";
}

}  // namespace

const std::vector<std::string>& ShapeParts() {
  static const auto* parts = [] {
    auto* names = new std::vector<std::string>;
    for (const auto& [name, body] : kParts) names->push_back(name);
    return names;
  }();
  return *parts;
}

std::string Grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, ",");
  return digits;
}

Figure FigureOf(absl::string_view part, std::string name, std::vector<double> samples) {
  Figure figure;
  figure.part = std::string(part);
  figure.name = std::move(name);
  figure.samples = static_cast<int>(samples.size());
  if (samples.empty()) return figure;
  std::sort(samples.begin(), samples.end());
  figure.least = samples.front();
  figure.most = samples.back();
  figure.median = Percentile(std::move(samples), 0.5);
  return figure;
}

absl::StatusOr<Figure> Measure(absl::string_view part, std::string name, int runs,
                               absl::FunctionRef<absl::Status()> body,
                               absl::FunctionRef<absl::Status()> before_each) {
  std::vector<double> samples;
  double spent = 0;
  for (int run = 0; run <= runs; ++run) {
    ANABRANCH_RETURN_IF_ERROR(before_each());
    absl::Status status;
    const double seconds = TimeOnce([&] { status = body(); });
    ANABRANCH_RETURN_IF_ERROR(status);
    spent += seconds;
    const bool only = run == 0 && seconds > kMeasureSeconds;
    if (run > 0 || only) samples.push_back(seconds * 1e3);
    if (!samples.empty() && spent > kMeasureSeconds) {
      Figure figure = FigureOf(part, std::move(name), std::move(samples));
      if (only) figure.note = "first run, without a warm-up";
      return figure;
    }
  }
  return FigureOf(part, std::move(name), std::move(samples));
}

absl::StatusOr<Figure> Measure(absl::string_view part, std::string name, int runs,
                               absl::FunctionRef<absl::Status()> body) {
  return Measure(part, std::move(name), runs, body, [] { return absl::OkStatus(); });
}

void Report::Add(Figure figure) {
  if (figure.part == "forward" || figure.part == "engine") {
    figure.peer = PeerOf(shape_, figure.name);
  }
  std::fprintf(stderr, "%s %s: %.4g ms, floor %.4g %s\n", figure.part.c_str(), figure.name.c_str(),
               figure.median, figure.floor, figure.note.c_str());
  figures_.push_back(std::move(figure));
}

absl::Status RunShapeBench(const ShapeOptions& options) {
  const Shape* shape = FindShape(options.shape);
  if (shape == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("no shape is named ", options.shape));
  }
  LoadOptions load;
  load.dtype = options.dtype;
  load.state_dtype = options.state_dtype;
  load.state_write_every = options.state_write_every;
  load.device = options.device;
  load.num_threads = options.threads;
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, MakeRandomModel(shape->config, load));
  std::fprintf(stderr, "%s: random weights on %s after %.1f s\n", shape->name.c_str(),
               options.device.c_str(), absl::ToDoubleSeconds(absl::Now() - start));
  ANABRANCH_ASSIGN_OR_RETURN(const Ceilings ceilings,
                             MeasureCeilings(*model->device(), options.dtype));
  Report report(options.shape);
  ShapeRun run{options, std::move(model), ceilings, report};
  absl::Status result;
  for (const auto& [name, body] : kParts) {
    const std::vector<std::string>& wanted = options.parts;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), name) == wanted.end()) continue;
    const absl::Status status = body(run);
    std::fprintf(stderr, "%s: %s after %.1f s\n", name, status.ok() ? "done" : "FAILED",
                 absl::ToDoubleSeconds(absl::Now() - start));
    if (status.ok()) continue;
    std::fprintf(stderr, "%s: %s\n", name, status.ToString().c_str());
    result.Update(absl::Status(status.code(), absl::StrCat(name, ": ", status.message())));
  }
  const std::string json = Json(options, run);
  if (options.json) {
    std::fputs(json.c_str(), stdout);
  } else {
    PrintTable(options, run);
  }
  std::fflush(stdout);
  if (!options.save.empty() && !(std::ofstream(options.save) << json).flush()) {
    result.Update(absl::UnavailableError(absl::StrCat(options.save, ": cannot be written")));
  }
  return result;
}

}  // namespace anabranch::bench
