#include "runtime/fingerprint.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"

namespace anabranch {
namespace {

constexpr size_t kBlockBytes = 16 << 20;  // hashed between two reports

}  // namespace

struct FingerprintBuilder::Context {
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  bool ok = digest != nullptr && EVP_DigestInit_ex(digest, EVP_sha256(), nullptr) == 1;
  ~Context() { EVP_MD_CTX_free(digest); }
};

FingerprintBuilder::FingerprintBuilder() : context_(std::make_unique<Context>()) {}
FingerprintBuilder::~FingerprintBuilder() = default;

void FingerprintBuilder::Update(const void* data, size_t size) {
  if (context_->ok) context_->ok = EVP_DigestUpdate(context_->digest, data, size) == 1;
}

void FingerprintBuilder::Add(absl::string_view name, absl::Span<const uint8_t> bytes,
                             const std::function<void(size_t bytes)>& done) {
  for (const uint64_t length : {uint64_t{name.size()}, uint64_t{bytes.size()}}) {
    uint8_t little_endian[8];
    for (int i = 0; i < 8; ++i) little_endian[i] = static_cast<uint8_t>(length >> (8 * i));
    Update(little_endian, sizeof(little_endian));
  }
  Update(name.data(), name.size());
  for (size_t begin = 0; begin < bytes.size(); begin += kBlockBytes) {
    const absl::Span<const uint8_t> block = bytes.subspan(begin, kBlockBytes);
    Update(block.data(), block.size());
    if (done != nullptr) done(block.size());
  }
}

void FingerprintBuilder::Add(absl::string_view name, absl::string_view bytes) {
  Add(name, absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

absl::StatusOr<std::string> FingerprintBuilder::Finish() {
  uint8_t hash[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (!context_->ok || EVP_DigestFinal_ex(context_->digest, hash, &size) != 1) {
    return absl::InternalError("SHA-256 failed");
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(hash), size));
}

}  // namespace anabranch
