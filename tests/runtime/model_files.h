// Model folders for tests: copies of the golden models, with tensors changed, and raw safetensors.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/tensor_file.h"
#include "tests/runtime/golden_models.h"

namespace anabranch::testing {

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::string WithHeader(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

// Tensors as bytes, by name; ToBytes() lays them out in order of their names.
struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct RawModel {
  std::map<std::string, RawTensor> tensors;

  static RawModel Read(const std::string& path) {
    RawModel model;
    const auto file = TensorFile::Open(path);
    for (const auto& [name, view] : file->tensors()) {
      model.tensors[name] = {std::string(TensorDTypeName(view.dtype)), view.shape,
                             std::string(view.bytes.begin(), view.bytes.end())};
    }
    return model;
  }

  std::string ToBytes() const {
    nlohmann::json header;
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header[name] = {{"dtype", tensor.dtype},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    std::string text = header.dump();
    text.append(-text.size() % 8, ' ');  // aligns the data, as writers do
    return WithHeader(text, data);
  }
};

// A copy of a golden model in a fresh folder, removed at the end.
class ModelFolder {
 public:
  explicit ModelFolder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("anabranch-model-" + UniqueName())) {
    const std::filesystem::path golden = std::filesystem::path(GoldenModelDir(""));
    std::filesystem::create_directories(path_);
    for (const char* file : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(golden / name / file, path_ / file);
    }
    weights = RawModel::Read(File("model.safetensors"));
    config = nlohmann::json::parse(ReadWholeFile(File("config.json")));
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }

  std::string path() const { return path_.string(); }
  std::string File(const std::string& name) const { return (path_ / name).string(); }
  // Writes the changed weights and config.
  void Save() const {
    WriteFile(File("model.safetensors"), weights.ToBytes());
    WriteFile(File("config.json"), config.dump());
  }

  RawModel weights;
  nlohmann::json config;

 private:
  static std::string UniqueName() {
    static int count = 0;
    return std::to_string(getpid()) + "-" + std::to_string(count++);
  }
  std::filesystem::path path_;
};

}  // namespace anabranch::testing
