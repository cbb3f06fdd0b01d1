// Every folder of tests/golden/models, so that adding one adds it to all tests over models.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/launch.h"

namespace anabranch::testing {

// A folder that a test was built with, or the one that the environment names instead: binaries that
// are carried to another machine find their models there.
inline std::string FolderFrom(const char* variable, const char* built_with) {
  const char* other = std::getenv(variable);
  return other != nullptr && *other != 0 ? other : built_with;
}

inline std::string GoldenModelDir(const std::string& name) {
  return FolderFrom("ANABRANCH_GOLDEN_DIR", ANABRANCH_GOLDEN_DIR) + "/models/" + name;
}

inline std::vector<std::string> GoldenModels() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenModelDir(""))) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string NameOf(kernels::DType dtype) {
  if (dtype == kernels::DType::kInt8) return "int8";
  return dtype == kernels::DType::kBFloat16 ? "bfloat16" : "float32";
}

struct GoldenCase {
  std::string model;
  kernels::DType dtype;
  kernels::DType state_dtype = kernels::DType::kFloat32;
  int state_write_every = 1;

  std::string name() const {
    const bool full = state_dtype == kernels::DType::kFloat32;
    return model + "_" + NameOf(dtype) + (full ? "" : "_state_" + NameOf(state_dtype)) +
           (state_write_every > 1 ? "_every_" + std::to_string(state_write_every) : "");
  }
  friend void PrintTo(const GoldenCase& one, std::ostream* out) { *out << one.name(); }
};

// Each model in both dtypes.
inline std::vector<GoldenCase> GoldenCases() {
  std::vector<GoldenCase> cases;
  for (const std::string& model : GoldenModels()) {
    for (kernels::DType dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
      cases.push_back({model, dtype});
    }
  }
  return cases;
}

}  // namespace anabranch::testing
