// A model shape with random weights on a device: the parts of `anabranch-bench --shape`. Every
// figure is a median after a warm-up, beside the time that the device's own ceilings leave at least
// (tests/bench/ceilings.h) and, where known, a peer's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/model.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/shapes.h"

namespace anabranch::bench {

struct ShapeOptions {
  std::string shape = "mamba2-2.7b";
  std::string device = "cuda";
  kernels::DType dtype = kernels::DType::kBFloat16;
  kernels::DType state_dtype = kernels::DType::kFloat32;
  int state_write_every = 1;       // see LoadOptions
  std::vector<std::string> parts;  // empty: all of ShapeParts()
  // What states are captured in and restored from.
  std::vector<std::string> codecs = {"exact", "near", "compact"};
  std::string directory;  // for temporary libraries
  std::vector<int> batches = {1, 16, 64, 256};
  std::vector<int64_t> lengths = {2048, 8192, 32768, 131072};
  int rows_while_decoding = 1024;  // reading rows a step under mixed load
  int threads = 0;
  bool quick = false;  // about a minute on an H200: fewer repeats, and less of what takes long
  bool json = false;   // print JSON instead of a table
  std::string save;    // a file that gets the JSON, too; empty: none
};

const std::vector<std::string>& ShapeParts();

// All times in milliseconds; 0: not known.
struct Figure {
  std::string part, name;
  double median = 0, least = 0, most = 0;
  int samples = 0;
  double floor = 0;
  Peer peer;
  std::string note;
};

// Collects figures; each is also printed to stderr as it is known, so that a run that is cut short
// has told what it knew.
class Report {
 public:
  explicit Report(std::string shape) : shape_(std::move(shape)) {}
  void Add(Figure figure);
  const std::vector<Figure>& figures() const { return figures_; }

 private:
  const std::string shape_;
  std::vector<Figure> figures_;
};

// What all parts get.
struct ShapeRun {
  const ShapeOptions& options;
  std::shared_ptr<Model> model;
  Ceilings ceilings;
  Report& report;
};

// Milliseconds of `body`, which is run once to warm up and then until `runs` or a few seconds are
// over; at least once. Where the warm-up alone took as long as that, it is the only sample.
absl::StatusOr<Figure> Measure(absl::string_view part, std::string name, int runs,
                               absl::FunctionRef<absl::Status()> body,
                               absl::FunctionRef<absl::Status()> before_each);
absl::StatusOr<Figure> Measure(absl::string_view part, std::string name, int runs,
                               absl::FunctionRef<absl::Status()> body);
// The same of samples taken elsewhere, in milliseconds.
Figure FigureOf(absl::string_view part, std::string name, std::vector<double> samples);
// "131,072".
std::string Grouped(int64_t number);

absl::Status BenchForward(ShapeRun& run);      // Model::Forward alone
absl::Status BenchEngine(ShapeRun& run);       // the same through the engine
absl::Status BenchStates(ShapeRun& run);       // capture, restore, fork
absl::Status BenchMerges(ShapeRun& run);       // of images, as the server merges
absl::Status BenchDeviceOps(ShapeRun& run);    // on slots, without images; nothing on the CPU
absl::Status BenchCheckpoints(ShapeRun& run);  // a long read with captures on a grid
absl::Status BenchMixed(ShapeRun& run);        // streams decoding while long reads arrive

// Runs the parts and prints a table, or JSON. Parts that fail are named and do not keep the others
// from running; returns the first failure.
absl::Status RunShapeBench(const ShapeOptions& options);

}  // namespace anabranch::bench
