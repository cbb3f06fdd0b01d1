#include "runtime/merge_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/float_convert.h"

namespace anabranch {
namespace {

// Turns keys by a number of positions: half-split pairs (i, i + rotary_dim / 2) of each head by
// theta^(-2 i / rotary_dim) a position, in double, because a key may be turned again in a merge of
// merges.
class Rotation {
 public:
  Rotation(const StateEntry& entry, int64_t positions) : entry_(entry) {
    if (entry.kind != StateKind::kKeys || positions == 0) return;
    for (int32_t i = 0; i < entry.rotary_dim / 2; ++i) {
      const double frequency = std::pow(entry.rope_theta, -2.0 * i / entry.rotary_dim);
      const double angle = static_cast<double>(positions) * frequency;
      cosine_.push_back(std::cos(angle));
      sine_.push_back(std::sin(angle));
    }
  }

  // `count` tokens' keys, one after the other.
  void Turn(char* keys, int64_t count) const {
    if (cosine_.empty()) return;
    const auto same = [](float value) { return value; };
    if (entry_.stored_dtype == StateDType::kFloat32) return TurnAs<float>(keys, count, same, same);
    TurnAs<uint16_t>(
        keys, count, [](uint16_t bits) { return FromBFloat16(bits); },
        [](float value) { return ToBFloat16(value); });
  }

 private:
  template <typename T, typename ToNumber, typename FromNumber>
  void TurnAs(char* keys, int64_t count, ToNumber to, FromNumber from) const {
    const int64_t heads = entry_.shape[1], head_dim = entry_.shape[2];
    const size_t half = cosine_.size();
    std::vector<T> head(head_dim);  // a block keeps no alignment
    const size_t bytes = head.size() * sizeof(T);
    for (char* at = keys; at < keys + count * heads * bytes; at += bytes) {
      std::memcpy(head.data(), at, bytes);
      for (size_t i = 0; i < half; ++i) {
        const double a = to(head[i]), b = to(head[i + half]);
        head[i] = from(static_cast<float>(a * cosine_[i] - b * sine_[i]));
        head[i + half] = from(static_cast<float>(b * cosine_[i] + a * sine_[i]));
      }
      std::memcpy(at, head.data(), bytes);
    }
  }

  const StateEntry& entry_;
  std::vector<double> cosine_, sine_;
};

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
    const Rotation rotation(entry, to - from);
    for (int64_t i = 0; i < count;) {
      // Up to the end of a block, rows lie one after the other.
      const int64_t run = std::min({count - i, kKvPageTokens - (from + i) % kKvPageTokens,
                                    kKvPageTokens - (to + i) % kKvPageTokens});
      char* rows = out[(to + i) / kKvPageTokens].data() + result.Offset(to + i, before, entry);
      const std::string& block = image.kv_blocks[(from + i) / kKvPageTokens];
      std::memcpy(rows, block.data() + source.Offset(from + i, before, entry), run * bytes);
      rotation.Turn(rows, run);
      i += run;
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
