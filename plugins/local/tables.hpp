// The tables of the database, one small class each, over prepared statements. All are used inside a
// transaction that the caller has begun (a list alone is one statement and needs none). Used by
// store.cpp, watcher.cpp, admission.cpp and election.cpp through Session.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "sqlite.hpp"

namespace egw::local {

// Which object: kind by group and kind (the version of an API does not make another object).
struct ObjectKey {
  std::string_view group, kind, ns, name;
};

struct StoredText {
  std::uint64_t revision = 0;
  std::string document;
};

// The numbers that all writers share.
struct CounterValues {
  std::string store;           // identity of this database: another one after a replacement
  std::uint64_t revision = 0;  // of the last write
  std::uint64_t trimmed = 0;   // the change log begins after this revision
  std::uint64_t term = 0;      // highest that a write or an election has carried
};

class Counters {
 public:
  explicit Counters(Connection& connection);
  [[nodiscard]] CounterValues read();
  void set_revision(std::uint64_t revision);
  void set_trimmed(std::uint64_t revision);
  void set_term(std::uint64_t term);

 private:
  Statement read_, set_revision_, set_trimmed_, set_term_;
};

class ObjectTable {
 public:
  explicit ObjectTable(Connection& connection);
  [[nodiscard]] std::optional<StoredText> get(const ObjectKey& key);
  void put(const ObjectKey& key, std::uint64_t revision, std::string_view document);
  void remove(const ObjectKey& key);
  // All objects of a kind in the order of namespace and name; an empty ns or name of `key` is no
  // restriction. The views live for the call of `row` alone.
  using Row = std::function<void(std::uint64_t revision, std::string_view ns, std::string_view name,
                                 std::string_view document)>;
  void list(const ObjectKey& key, const Row& row);
  // How many objects of a kind there are, and the one that was written longest ago.
  [[nodiscard]] std::uint64_t count(std::string_view group, std::string_view kind);
  struct Whole {
    std::string ns, name, document;
  };
  [[nodiscard]] std::optional<Whole> oldest(std::string_view group, std::string_view kind);

 private:
  Connection& connection_;
  Statement get_, put_, remove_, count_, oldest_;
};

enum class ChangeOp : std::uint8_t { kUpsert = 1, kDelete = 2 };

// Every write of an object, one row per revision, trimmed to a bound. An upsert's row has no
// document: the object table holds the newest one, and a reader has no use for those before it.
class ChangeLog {
 public:
  explicit ChangeLog(Connection& connection);
  // document: the last one of a deleted object.
  void append(std::uint64_t revision, const ObjectKey& key, ChangeOp op, std::uint64_t term,
              std::string_view document);
  void trim(std::uint64_t up_to);  // removes revisions <= up_to

  struct Change {
    std::uint64_t revision;
    ObjectKey key;
    ChangeOp op;
    std::string_view document;
  };
  // Changes after `revision` in order; of the upserts of one object only the newest.
  void after(std::uint64_t revision, const std::function<void(const Change&)>& each);

 private:
  Statement append_, trim_, after_;
};

// Who leads. stamp: a number that the holder raises each second. locked: the holder has the lock
// file too (it has not if it took the office from a leader that hangs).
struct OfficeRow {
  std::string holder;
  std::uint64_t epoch = 0;
  std::uint64_t stamp = 0;
  bool locked = false;
  friend bool operator==(const OfficeRow&, const OfficeRow&) = default;
};

class Office {
 public:
  explicit Office(Connection& connection);
  [[nodiscard]] OfficeRow read();
  void write(const OfficeRow& row);

 private:
  Statement read_, write_;
};

}  // namespace egw::local
