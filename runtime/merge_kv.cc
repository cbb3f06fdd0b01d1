#include "runtime/merge_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/float_convert.h"

namespace anabranch {
namespace {

// Turns half-split pairs (i, i + rotary_dim / 2) of each head by theta^(-2 i / rotary_dim) a
// position, in double: a key may be turned again in a merge of merges.
template <typename T, typename ToNumber, typename FromNumber>
void RotateKey(const StateEntry& entry, int64_t positions, char* token, ToNumber to,
               FromNumber from) {
  const int64_t heads = entry.shape[1], head_dim = entry.shape[2];
  const int32_t half = entry.rotary_dim / 2;
  std::vector<T> key(heads * head_dim);  // a block keeps no alignment
  std::memcpy(key.data(), token, key.size() * sizeof(T));
  for (int32_t i = 0; i < half; ++i) {
    const double frequency = std::pow(entry.rope_theta, -2.0 * i / entry.rotary_dim);
    const double angle = static_cast<double>(positions) * frequency;
    const double cosine = std::cos(angle), sine = std::sin(angle);
    for (T* head = key.data() + i; head < key.data() + key.size(); head += head_dim) {
      const double a = to(head[0]), b = to(head[half]);
      head[0] = from(static_cast<float>(a * cosine - b * sine));
      head[half] = from(static_cast<float>(b * cosine + a * sine));
    }
  }
  std::memcpy(token, key.data(), key.size() * sizeof(T));
}

void RotateToken(const StateEntry& entry, int64_t positions, char* token) {
  if (entry.rotary_dim == 0 || positions == 0) return;
  const auto same = [](float value) { return value; };
  if (entry.stored_dtype == StateDType::kFloat32) {
    return RotateKey<float>(entry, positions, token, same, same);
  }
  RotateKey<uint16_t>(
      entry, positions, token, [](uint16_t bits) { return FromBFloat16(bits); },
      [](float value) { return ToBFloat16(value); });
}

// A block holds, entry by entry, the rows of its tokens.
struct Blocks {
  const StateLayout& layout;
  int64_t token_count;

  int64_t TokensIn(int64_t block) const {
    return std::min<int64_t>(token_count - block * kKvPageTokens, kKvPageTokens);
  }
  static int64_t TokenBytes(const StateEntry& entry) {
    return static_cast<int64_t>(entry.bytes()) / kKvPageTokens;
  }
  // Where the row of `token` lies in its block, after `before` bytes of a token's earlier entries.
  int64_t Offset(int64_t token, int64_t before, const StateEntry& entry) const {
    return before * TokensIn(token / kKvPageTokens) + (token % kKvPageTokens) * TokenBytes(entry);
  }
};

// Copies tokens [from, from + count) of `image` to [to, to + count) of the result.
void CopyTokens(const StateImage& image, int64_t from, int64_t count, int64_t to,
                const Blocks& result, std::vector<std::string>& out) {
  const Blocks source{result.layout, image.header.token_count};
  int64_t before = 0;
  for (const StateEntry& entry : result.layout.entries) {
    if (!entry.paged()) continue;
    const int64_t bytes = Blocks::TokenBytes(entry);
    for (int64_t i = 0; i < count; ++i) {
      char* row = out[(to + i) / kKvPageTokens].data() + result.Offset(to + i, before, entry);
      const std::string& block = image.kv_blocks[(from + i) / kKvPageTokens];
      std::memcpy(row, block.data() + source.Offset(from + i, before, entry), bytes);
      if (entry.kind == StateKind::kKeys) RotateToken(entry, to - from, row);
    }
    before += bytes;
  }
}

}  // namespace

std::vector<std::string> GatherKv(const StateLayout& layout, absl::Span<const KvRange> ranges) {
  Blocks result{layout, 0};
  for (const KvRange& range : ranges) result.token_count += range.count;
  std::vector<std::string> out;
  const int64_t token_bytes = static_cast<int64_t>(layout.kv_page_bytes()) / kKvPageTokens;
  for (int64_t start = 0; start < result.token_count; start += kKvPageTokens) {
    out.emplace_back(token_bytes * result.TokensIn(start / kKvPageTokens), '\0');
  }
  int64_t at = 0;
  for (const KvRange& range : ranges) {
    CopyTokens(*range.image, range.from, range.count, at, result, out);
    at += range.count;
  }
  return out;
}

std::vector<std::string> ConcatenateKv(const StateLayout& layout,
                                       absl::Span<const StateImage* const> inputs,
                                       const StateImage* ancestor) {
  const int64_t shared = ancestor != nullptr ? ancestor->header.token_count : 0;
  std::vector<KvRange> ranges;
  if (ancestor != nullptr) ranges.push_back({ancestor, 0, shared});
  for (const StateImage* input : inputs) {
    ranges.push_back({input, shared, input->header.token_count - shared});
  }
  return GatherKv(layout, ranges);
}

const char* KvRow(const StateLayout& layout, const StateImage& image, size_t entry, int64_t token) {
  int64_t before = 0;
  for (size_t e = 0; e < entry; ++e) {
    if (layout.entries[e].paged()) before += Blocks::TokenBytes(layout.entries[e]);
  }
  return image.kv_blocks[token / kKvPageTokens].data() +
         Blocks{layout, image.header.token_count}.Offset(token, before, layout.entries[entry]);
}

}  // namespace anabranch
