#include "statestore/recent_uses.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "statestore/byte_coding.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

constexpr size_t kMaxUses = 1 << 16;
constexpr absl::string_view kSealKey = "recent uses 1";  // with the version of the format

}  // namespace

// When it is full, the older half is forgotten.
void RecentUses::Note(std::string state_key, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  uses_[std::move(state_key)] = now;
  changed_ = true;
  if (uses_.size() <= kMaxUses) return;
  std::vector<absl::Time> times;
  times.reserve(uses_.size());
  for (const auto& [key, time] : uses_) times.push_back(time);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  absl::erase_if(uses_, [&](const auto& use) { return use.second < *middle; });
}

absl::Time RecentUses::Last(const std::string& state_key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = uses_.find(state_key);
  return found != uses_.end() ? found->second : absl::InfinitePast();
}

void RecentUses::Load(rocksdb::Env& env, const std::string& path) {
  std::string sealed;
  if (!rocksdb::ReadFileToString(&env, path, &sealed).ok()) return;
  const absl::StatusOr<std::string> bytes = DecodeBytes(kSealKey, sealed);
  if (!bytes.ok()) return;
  ByteReader reader(*bytes);
  absl::MutexLock lock(&mutex_);
  for (uint64_t left = std::min<uint64_t>(reader.Varint(), kMaxUses); left > 0; --left) {
    std::string key(reader.String());
    uses_[std::move(key)] = absl::FromUnixSeconds(reader.Signed());
  }
}

// Not synced: after a power loss the file may be an older one, empty or torn, which Load sees.
void RecentUses::Save(rocksdb::Env& env, const std::string& path) {
  ByteWriter writer;
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(changed_, false)) return;
    writer.Varint(uses_.size());
    for (const auto& [key, time] : uses_) {
      writer.String(key);
      writer.Signed(absl::ToUnixSeconds(time));
    }
  }
  const std::string sealed = EncodeBytes(kSealKey, std::move(writer).Take());
  const std::string temporary = absl::StrCat(path, ".new");
  if (!rocksdb::WriteStringToFile(&env, sealed, temporary).ok()) return;
  env.RenameFile(temporary, path).PermitUncheckedError();
}

}  // namespace anabranch
