#include "statestore/embedding_table.h"

#include <algorithm>
#include <cmath>

namespace anabranch {
namespace {

// Independent sums, so that the compiler may use vector registers without reordering one sum.
constexpr size_t kLanes = 16;

float Dot(const float* a, const float* b, size_t width) {
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

void EmbeddingTable::Put(int64_t key, absl::Span<const float> embedding) {
  Remove(key);
  if (embedding.empty()) return;
  if (keys_.empty()) sum_.assign(embedding.size(), 0);
  if (embedding.size() != sum_.size()) return;
  row_of_[key] = keys_.size();
  keys_.push_back(key);
  rows_.insert(rows_.end(), embedding.begin(), embedding.end());
  for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += embedding[i];
}

// The last row takes the place of the one that goes.
void EmbeddingTable::Remove(int64_t key) {
  const auto found = row_of_.find(key);
  if (found == row_of_.end()) return;
  const size_t row = found->second, last = keys_.size() - 1, width = sum_.size();
  row_of_.erase(found);
  float* const gone = rows_.data() + row * width;
  for (size_t i = 0; i < width; ++i) sum_[i] -= gone[i];
  if (row != last) {
    std::copy_n(rows_.data() + last * width, width, gone);
    keys_[row] = keys_[last];
    row_of_[keys_[row]] = row;
  }
  keys_.pop_back();
  rows_.resize(last * width);
}

// With m the mean and all lengths 1: (e-m).(q-m) = e.(q-m) - m.(q-m) and |e-m|^2 = 1 - 2 e.m +
// |m|^2, so that the mean may move without touching a row.
std::vector<std::pair<float, int64_t>> EmbeddingTable::Nearest(
    absl::Span<const float> query, size_t limit, absl::FunctionRef<bool(int64_t)> wanted) const {
  std::vector<std::pair<float, int64_t>> found;
  const size_t width = sum_.size();
  if (keys_.empty() || query.size() != width || limit == 0) return found;
  std::vector<float> mean(width), centred(width);
  // The mean of one state is the state itself, which would leave nothing to compare.
  const double scale = keys_.size() == 1 ? 0 : 1.0 / static_cast<double>(keys_.size());
  for (size_t i = 0; i < width; ++i) {
    mean[i] = static_cast<float>(sum_[i] * scale);
    centred[i] = query[i] - mean[i];
  }
  const float mean_square = Dot(mean.data(), mean.data(), width);
  const float mean_query = Dot(mean.data(), centred.data(), width);
  const float length = std::sqrt(Dot(centred.data(), centred.data(), width));
  for (size_t row = 0; row < keys_.size(); ++row) {
    if (!wanted(keys_[row])) continue;
    const float* const e = rows_.data() + row * width;
    const float square = 1 - 2 * Dot(e, mean.data(), width) + mean_square;
    const float scaled = std::sqrt(std::max(square, 1e-12f)) * std::max(length, 1e-12f);
    found.emplace_back((Dot(e, centred.data(), width) - mean_query) / scaled, keys_[row]);
  }
  const size_t kept = std::min(limit, found.size());
  std::partial_sort(found.begin(), found.begin() + kept, found.end(),
                    [](const auto& a, const auto& b) {
                      return a.first != b.first ? a.first > b.first : a.second > b.second;
                    });
  found.resize(kept);
  return found;
}

}  // namespace anabranch
