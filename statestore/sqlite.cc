#include "statestore/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Of SQLite's virtual machine; about a tenth of a millisecond.
constexpr int kStepsBetweenQuestions = 4000;

absl::Status ToStatus(sqlite3* database, int code) {
  const std::string message = absl::StrCat("search index: ", sqlite3_errmsg(database));
  switch (code & 0xff) {  // without the extended part
    case SQLITE_OK:
      return absl::OkStatus();
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::ResourceExhaustedError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(message);
    case SQLITE_INTERRUPT:
      return absl::CancelledError(message);
    default:  // also a table that should be there and is not
      return absl::DataLossError(message);
  }
}

}  // namespace

void SqliteStatement::Deleter::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

void SqliteStatement::Restart() {
  if (stepped_) sqlite3_reset(statement_.get());
  stepped_ = false;
}

SqliteStatement& SqliteStatement::Bind(int parameter, int64_t value) {
  Restart();
  sqlite3_bind_int64(statement_.get(), parameter, value);
  return *this;
}

SqliteStatement& SqliteStatement::BindText(int parameter, absl::string_view value) {
  Restart();
  sqlite3_bind_text64(statement_.get(), parameter, value.data() == nullptr ? "" : value.data(),
                      value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(int parameter, absl::string_view value) {
  Restart();
  sqlite3_bind_blob64(statement_.get(), parameter, value.data() == nullptr ? "" : value.data(),
                      value.size(), SQLITE_TRANSIENT);
  return *this;
}

absl::StatusOr<bool> SqliteStatement::Step() {
  stepped_ = true;
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return ToStatus(sqlite3_db_handle(statement_.get()), code);
}

int64_t SqliteStatement::Int(int column) { return sqlite3_column_int64(statement_.get(), column); }

double SqliteStatement::Real(int column) { return sqlite3_column_double(statement_.get(), column); }

absl::string_view SqliteStatement::Bytes(int column) {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? absl::string_view()
                         : absl::string_view(static_cast<const char*>(data), size);
}

absl::StatusOr<std::unique_ptr<Sqlite>> Sqlite::Open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Sqlite> database(new Sqlite(handle));
  if (code != SQLITE_OK) return ToStatus(handle, code);
  // A writer that checkpoints may hold the file for a moment. NORMAL: a power loss may take the
  // last transactions, never the file's consistency.
  sqlite3_busy_timeout(handle, 10000);
  ANABRANCH_RETURN_IF_ERROR(
      database->Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"));
  return database;
}

Sqlite::~Sqlite() { sqlite3_close_v2(database_); }

absl::Status Sqlite::Execute(const std::string& sql) {
  return ToStatus(database_, sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr));
}

absl::StatusOr<SqliteStatement> Sqlite::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(database_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return ToStatus(database_, code);
  return SqliteStatement(statement);
}

void Sqlite::StopWhen(std::function<bool()> stop) {
  stop_ = std::move(stop);
  const auto ask = [](void* stop) {
    return (*static_cast<std::function<bool()>*>(stop))() ? 1 : 0;
  };
  sqlite3_progress_handler(database_, stop_ ? kStepsBetweenQuestions : 0, stop_ ? +ask : nullptr,
                           &stop_);
}

int64_t Sqlite::last_row() const { return sqlite3_last_insert_rowid(database_); }

}  // namespace anabranch
