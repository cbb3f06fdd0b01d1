// Commits of the library beside a bare synced write of the same bytes to the same disk.
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/state_store.h"
#include "tests/bench/bench.h"
#include "tests/bench/temporary_directory.h"

namespace anabranch::bench {
namespace {

constexpr char kTenant[] = "bench";

// Appends and syncs, as the least that durability can cost.
class BareLog {
 public:
  explicit BareLog(const std::string& path)
      : fd_(open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600)) {}
  ~BareLog() { close(fd_); }
  bool Write(const std::string& bytes) const {
    return write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
           fdatasync(fd_) == 0;
  }

 private:
  int fd_;
};

std::string RandomBytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t x = seed * 2654435761u + 88172645463325252u;
  for (char& byte : bytes) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    byte = static_cast<char>(x);
  }
  return bytes;
}

Mutation PutStateOf(size_t bytes, int32_t number) {
  PutState put;
  put.record.tenant = kTenant;
  put.record.fingerprint = "bench";
  put.record.numerics_profile = "bench";
  put.record.token_count = 1;
  put.record.span_tokens = {number};
  put.record.created = absl::Now();
  put.record.id = StateId(put.record);
  put.payload = RandomBytes(bytes, number);
  Mutation mutation;
  mutation.operations.push_back(std::move(put));
  return mutation;
}

Mutation AppendOf(int64_t position) {
  AppendLog append;
  append.tenant = kTenant;
  append.session = "bench";
  append.position = position;
  append.tokens = {42};
  Mutation mutation;
  mutation.operations.push_back(std::move(append));
  return mutation;
}

void AddRows(const std::string& name, const std::vector<double>& commit,
             const std::vector<double>& bare, std::vector<Row>& rows) {
  for (const double p : {0.5, 0.99}) {
    const double c = Percentile(commit, p) * 1e3, b = Percentile(bare, p) * 1e3;
    rows.push_back(
        {absl::StrCat(name, ", p", p * 100), c, "ms", "bare synced write", b, c / b, ""});
  }
}

}  // namespace

absl::StatusOr<std::vector<Row>> RunCommitBench(const Options& options) {
  const TemporaryDirectory directory(options.directory);
  const BareLog bare(directory.path() + "/bare");
  StoreOptions store_options;
  store_options.directory = directory.path() + "/library";
  ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(store_options));
  std::vector<Row> rows;
  const int rounds = 40 * options.repeat;
  for (const size_t bytes : {size_t{64} << 10, size_t{2500} << 10}) {
    std::vector<double> commit_seconds, bare_seconds;
    for (int i = 0; i < rounds; ++i) {
      Mutation mutation = PutStateOf(bytes, static_cast<int32_t>(bytes) + i);
      const std::string same = RandomBytes(bytes, i);
      absl::Status status;
      commit_seconds.push_back(
          TimeOnce([&] { status = store->CommitAndWait(std::move(mutation)); }));
      ANABRANCH_RETURN_IF_ERROR(status);
      bool written = false;
      bare_seconds.push_back(TimeOnce([&] { written = bare.Write(same); }));
      if (!written) return absl::UnavailableError("the bare write failed: is the disk full?");
    }
    AddRows(absl::StrCat("commit a state of ", bytes >> 10, " KiB"), commit_seconds, bare_seconds,
            rows);
  }
  PutSession session;
  session.record.tenant = kTenant;
  session.record.id = "bench";
  Mutation open_session;
  open_session.operations.push_back(std::move(session));
  ANABRANCH_RETURN_IF_ERROR(store->CommitAndWait(std::move(open_session)));
  std::vector<double> commit_seconds, bare_seconds;
  for (int i = 0; i < 2 * rounds; ++i) {
    absl::Status status;
    commit_seconds.push_back(TimeOnce([&] { status = store->CommitAndWait(AppendOf(i)); }));
    ANABRANCH_RETURN_IF_ERROR(status);
    bare_seconds.push_back(TimeOnce([&] { bare.Write(std::string(128, 'x')); }));
  }
  AddRows("commit one logged token", commit_seconds, bare_seconds, rows);
  return rows;
}

}  // namespace anabranch::bench
