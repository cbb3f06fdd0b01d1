// anabranch-bench: every figure stands beside a floor or a peer measured in the same run, because
// absolute times on shared machines say little. Each benchmark returns rows of one table.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace anabranch::bench {

struct Row {
  std::string name;
  double value = 0;
  std::string unit;
  std::string beside = "";  // what it is compared with; empty: nothing
  double beside_value = 0;  // in the same unit
  double ratio = 0;         // value over beside_value, or its inverse where more is better
  std::string aim = "";     // for people: "<= 1.5"
};

struct Options {
  std::string model = "deploy/models/recall";
  std::string directory;  // for libraries; a temporary folder is made inside
  int threads = 0;        // 0: all
  int repeat = 5;
};

absl::StatusOr<std::vector<Row>> RunEngineBench(const Options& options);  // prefill, decode, fork
absl::StatusOr<std::vector<Row>> RunResumeBench(const Options& options);  // resume against re-read
absl::StatusOr<std::vector<Row>> RunMergeBench(const Options& options);   // merge against re-read
absl::StatusOr<std::vector<Row>> RunCommitBench(const Options& options);  // commit against a write

absl::StatusOr<std::vector<Row>> RunCodecBench(const Options& options);  // codecs of states

// Seconds of one call of `body`.
double TimeOnce(const std::function<void()>& body);
// Of unsorted samples; p in [0, 1].
double Percentile(std::vector<double> samples, double p);

}  // namespace anabranch::bench
