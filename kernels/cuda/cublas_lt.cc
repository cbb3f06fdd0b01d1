#include "kernels/cuda/cublas_lt.h"

#include <dlfcn.h>
#include <glob.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace anabranch::kernels {
namespace {

constexpr char kFile[] = "libcublasLt.so.13";  // of the CUDA whose headers this is built with

// The files that match `pattern`, which may hold wildcards.
void AddMatches(const std::string& pattern, std::vector<std::string>& files) {
  glob_t found = {};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) files.emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

std::string ProgramFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  const std::string program(path, length > 0 ? static_cast<size_t>(length) : 0);
  return program.substr(0, program.find_last_of('/') + 1);
}

// Where it usually lies when the loader does not find it. For messages and for the search.
std::vector<std::string> Places() {
  std::vector<std::string> places = {absl::StrCat(ProgramFolder(), "../lib/")};
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(name)) places.push_back(absl::StrCat(root, "/lib64/"));
  }
  places.emplace_back("/usr/local/cuda/lib64/");
  places.emplace_back("/usr/local/cuda-13*/lib64/");
  std::vector<std::string> prefixes;
  if (const char* venv = std::getenv("VIRTUAL_ENV")) prefixes.emplace_back(venv);
  if (const char* home = std::getenv("HOME")) prefixes.push_back(absl::StrCat(home, "/.local"));
  prefixes.emplace_back("/usr/local");
  prefixes.emplace_back("/usr");
  for (const std::string& prefix : prefixes) {
    places.push_back(absl::StrCat(prefix, "/lib/python3*/*-packages/nvidia/*/lib/"));
  }
  return places;
}

// Null, with the loader's reason added to `tried`.
void* Open(const std::string& file, std::vector<std::string>& tried) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    tried.emplace_back(reason == nullptr ? file : reason);
  }
  return library;
}

absl::StatusOr<void*> OpenLibrary() {
  std::vector<std::string> tried;
  if (const char* named = std::getenv("ANABRANCH_CUBLASLT"); named != nullptr && *named != '\0') {
    if (void* library = Open(named, tried)) return library;
    return absl::UnavailableError(
        absl::StrCat("ANABRANCH_CUBLASLT does not name a library that can be loaded: ",
                     absl::StrJoin(tried, "; ")));
  }
  if (void* library = Open(kFile, tried)) return library;
  const std::vector<std::string> places = Places();
  for (const std::string& place : places) {
    std::vector<std::string> files;
    AddMatches(place + kFile, files);
    for (const std::string& file : files) {
      if (void* library = Open(file, tried)) return library;
    }
  }
  return absl::UnavailableError(absl::StrCat(
      "cuBLASLt (", kFile,
      ") is needed to run models on a GPU and was not found. Install CUDA 13's ",
      "libraries (or pip's nvidia-cublas), or set ANABRANCH_CUBLASLT to the file. Tried: ",
      absl::StrJoin(tried, "; "), "; and looked into ", absl::StrJoin(places, ", ")));
}

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<const CublasLt*> Load() {
  absl::StatusOr<void*> library = OpenLibrary();
  if (!library.ok()) return library.status();
  static CublasLt table;
  const bool complete =
      Find(*library, "cublasLtCreate", table.Create) &&
      Find(*library, "cublasLtDestroy", table.Destroy) &&
      Find(*library, "cublasLtMatmul", table.Matmul) &&
      Find(*library, "cublasLtMatmulAlgoGetHeuristic", table.MatmulAlgoGetHeuristic) &&
      Find(*library, "cublasLtMatmulDescCreate", table.MatmulDescCreate) &&
      Find(*library, "cublasLtMatmulDescDestroy", table.MatmulDescDestroy) &&
      Find(*library, "cublasLtMatmulDescSetAttribute", table.MatmulDescSetAttribute) &&
      Find(*library, "cublasLtMatrixLayoutCreate", table.MatrixLayoutCreate) &&
      Find(*library, "cublasLtMatrixLayoutDestroy", table.MatrixLayoutDestroy) &&
      Find(*library, "cublasLtMatmulPreferenceCreate", table.MatmulPreferenceCreate) &&
      Find(*library, "cublasLtMatmulPreferenceDestroy", table.MatmulPreferenceDestroy) &&
      Find(*library, "cublasLtMatmulPreferenceSetAttribute", table.MatmulPreferenceSetAttribute);
  if (!complete) {
    return absl::UnavailableError(
        "the cuBLASLt that was loaded lacks functions; set ANABRANCH_CUBLASLT to CUDA 13's");
  }
  return &table;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<const CublasLt*>& loaded =
      *new absl::StatusOr<const CublasLt*>(Load());
  return loaded;
}

}  // namespace anabranch::kernels
