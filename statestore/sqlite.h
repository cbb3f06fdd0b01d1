// SQLite as the search index uses it: a connection, statements, statuses. The only place that calls
// its API. One thread at a time for a connection and its statements.
//
// Statuses: RESOURCE_EXHAUSTED for a full disk or no memory, UNAVAILABLE for a file that another
// connection holds for too long, CANCELLED for a statement that was stopped, DATA_LOSS for the
// rest: the file is not what was written to it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace anabranch {

class SqliteStatement {
 public:
  // Parameters count from 1; text and blobs are copied. Binding starts the statement anew.
  SqliteStatement& Bind(int parameter, int64_t value);
  SqliteStatement& BindText(int parameter, absl::string_view value);
  SqliteStatement& BindBlob(int parameter, absl::string_view value);
  // True: a row is there; its columns count from 0 and are valid until the next call.
  absl::StatusOr<bool> Step();
  int64_t Int(int column);
  double Real(int column);
  absl::string_view Bytes(int column);

 private:
  friend class Sqlite;
  struct Deleter {
    void operator()(sqlite3_stmt* statement) const;
  };
  explicit SqliteStatement(sqlite3_stmt* statement) : statement_(statement) {}
  void Restart();

  std::unique_ptr<sqlite3_stmt, Deleter> statement_;
  bool stepped_ = false;
};

class Sqlite {
 public:
  // Opens or creates the file, in WAL mode: one connection may write while others read.
  static absl::StatusOr<std::unique_ptr<Sqlite>> Open(const std::string& path);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  // One or more statements without parameters and results.
  absl::Status Execute(const std::string& sql);
  absl::StatusOr<SqliteStatement> Prepare(const std::string& sql);
  // Asked every few thousand steps of a statement, on the thread that runs it: true ends the
  // statement with CANCELLED. Empty: never.
  void StopWhen(std::function<bool()> stop);
  // The row that the last insert made.
  int64_t last_row() const;

 private:
  explicit Sqlite(sqlite3* database) : database_(database) {}

  sqlite3* const database_;
  std::function<bool()> stop_;
};

}  // namespace anabranch
