// How long each kernel of a process ran, and where none did. A library that the CUDA driver loads
// into any program, this project's or another, without a change to it:
//
//   CUDA_INJECTION64_PATH=build/bin/libanabranch_kernel_times.so anabranch-bench --shape ...
//
// prints, when the program ends, a table to stderr, or to the file that ANABRANCH_KERNEL_TIMES
// names: kernels by what they took together, with their counts, mean, least and most, blocks,
// threads and registers; copies; and the gaps in which no kernel ran. Kernels of a replayed graph
// count like others. Times are those of the program as it runs, with its clocks, caches and
// neighbours: what a profiler measures that runs each kernel alone and again is another thing
// (docs/GPU.md). A step of many short kernels takes a little longer while it is watched.
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kBufferBytes = size_t{8} << 20;
constexpr uint64_t kGap = 20'000;  // nanoseconds
constexpr size_t kMostRows = 45, kMostGaps = 12;

struct Times {
  int64_t count = 0;
  double total = 0;  // nanoseconds, as all
  uint64_t least = UINT64_MAX, most = 0;

  void Add(uint64_t ns) {
    ++count;
    total += static_cast<double>(ns);
    least = std::min(least, ns);
    most = std::max(most, ns);
  }
};

struct Span {
  uint64_t begin, end;
  const std::string* name;
};

std::mutex mutex;
std::map<std::string, Times> activities;  // by name
std::vector<Span> kernels;

std::string Demangled(const char* name) {
  int status = 0;
  char* const plain = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string out = status == 0 ? plain : name;
  std::free(plain);
  for (const std::string_view part :
       {"(anonymous namespace)::", "anabranch::kernels::cuda::", "void "}) {
    for (size_t at; (at = out.find(part)) != std::string::npos;) out.erase(at, part.size());
  }
  return out.substr(0, std::min(out.size(), out.find('(')));
}

void AddKernel(const CUpti_ActivityKernel10& kernel) {
  char shape[96];
  std::snprintf(shape, sizeof(shape), " [%d,%d,%d x %d, %d registers]", kernel.gridX, kernel.gridY,
                kernel.gridZ, kernel.blockX * kernel.blockY * kernel.blockZ,
                kernel.registersPerThread);
  const auto at = activities.try_emplace(Demangled(kernel.name) + shape).first;
  at->second.Add(kernel.end - kernel.start);
  kernels.push_back({kernel.start, kernel.end, &at->first});
}

void AddCopy(const CUpti_ActivityMemcpy6& copy) {
  const char* const way = copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? "to the device"
                          : copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "to the host"
                                                                             : "within the device";
  activities[std::string("copies ") + way].Add(copy.end - copy.start);
}

void BufferWanted(uint8_t** buffer, size_t* bytes, size_t* records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *bytes = *buffer == nullptr ? 0 : kBufferBytes;
  *records = 0;  // as many as fit
}

void BufferFilled(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard<std::mutex> lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      AddKernel(*reinterpret_cast<CUpti_ActivityKernel10*>(record));
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      AddCopy(*reinterpret_cast<CUpti_ActivityMemcpy6*>(record));
    }
  }
  std::free(buffer);
}

void PrintActivities(FILE* to) {
  std::vector<const std::pair<const std::string, Times>*> rows;
  double all = 0;
  for (const auto& entry : activities) {
    rows.push_back(&entry);
    all += entry.second.total;
  }
  std::sort(rows.begin(), rows.end(),
            [](const auto* a, const auto* b) { return a->second.total > b->second.total; });
  std::fprintf(to, "%10s %6s %9s %10s %10s %10s  kernel\n", "ms", "%", "count", "mean us", "least",
               "most");
  for (size_t i = 0; i < std::min(rows.size(), kMostRows); ++i) {
    const Times& t = rows[i]->second;
    std::fprintf(to, "%10.3f %6.1f %9lld %10.2f %10.2f %10.2f  %s\n", t.total / 1e6,
                 100 * t.total / all, static_cast<long long>(t.count),
                 t.total / 1e3 / static_cast<double>(t.count), static_cast<double>(t.least) / 1e3,
                 static_cast<double>(t.most) / 1e3, rows[i]->first.c_str());
  }
}

// Between two kernels, by their names.
void PrintGaps(FILE* to) {
  std::sort(kernels.begin(), kernels.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::map<std::string, Times> gaps;
  double sum = 0;
  const Span* last = nullptr;  // the one that ended last
  for (const Span& span : kernels) {
    if (last != nullptr && span.begin > last->end + kGap) {
      gaps[*last->name + " -> " + *span.name].Add(span.begin - last->end);
      sum += static_cast<double>(span.begin - last->end);
    }
    if (last == nullptr || span.end > last->end) last = &span;
  }
  std::vector<std::pair<double, const std::string*>> rows;
  for (const auto& [name, times] : gaps) rows.emplace_back(times.total, &name);
  std::sort(rows.rbegin(), rows.rend());
  std::fprintf(to, "\n%.1f ms without a kernel, in gaps of more than %llu us\n", sum / 1e6,
               static_cast<unsigned long long>(kGap / 1000));
  for (size_t i = 0; i < std::min(rows.size(), kMostGaps); ++i) {
    std::fprintf(to, "%10.3f %6s %9lld  %s\n", rows[i].first / 1e6, "",
                 static_cast<long long>(gaps[*rows[i].second].count), rows[i].second->c_str());
  }
}

void Report() {
  cuptiActivityFlushAll(1);
  const std::lock_guard<std::mutex> lock(mutex);
  const char* const path = std::getenv("ANABRANCH_KERNEL_TIMES");
  FILE* const file = path == nullptr ? nullptr : std::fopen(path, "w");
  if (path != nullptr && file == nullptr) std::perror(path);
  FILE* const to = file == nullptr ? stderr : file;
  PrintActivities(to);
  PrintGaps(to);
  if (file != nullptr) std::fclose(file);
}

bool Done(CUptiResult result, const char* what) {
  if (result == CUPTI_SUCCESS) return true;
  const char* text = "";
  cuptiGetResultString(result, &text);
  std::fprintf(stderr, "kernel times: %s: %s\n", what, text);
  return false;
}

}  // namespace

// What the driver calls when it has loaded the library. Nothing is watched if that fails.
extern "C" int InitializeInjection() {
  if (!Done(cuptiActivityRegisterCallbacks(BufferWanted, BufferFilled), "buffers")) return 1;
  for (const CUpti_ActivityKind kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY}) {
    if (!Done(cuptiActivityEnable(kind), "watching")) return 1;
  }
  std::atexit(Report);
  return 1;
}
