// See tables.hpp; the schema stands in schema.cpp.
#include "tables.hpp"

namespace egw::local {

Counters::Counters(Connection& c)
    : read_(c, "SELECT store, revision, trimmed, term FROM counters"),
      set_revision_(c, "UPDATE counters SET revision = ?1"),
      set_trimmed_(c, "UPDATE counters SET trimmed = ?1"),
      set_term_(c, "UPDATE counters SET term = ?1") {}

CounterValues Counters::read() {
  const StatementUse use(read_);
  CounterValues v;
  if (read_.step()) {
    v = {std::string(read_.text(0)), read_.number(1), read_.number(2), read_.number(3)};
  }
  return v;
}

void Counters::set_revision(std::uint64_t revision) { set_revision_.bind(1, revision).run(); }
void Counters::set_trimmed(std::uint64_t revision) { set_trimmed_.bind(1, revision).run(); }
void Counters::set_term(std::uint64_t term) { set_term_.bind(1, term).run(); }

ObjectTable::ObjectTable(Connection& c)
    : connection_(c),
      get_(c,
           "SELECT revision, document FROM objects "
           "WHERE grp = ?1 AND kind = ?2 AND ns = ?3 AND name = ?4"),
      put_(c,
           "INSERT INTO objects (grp, kind, ns, name, revision, document) "
           "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (grp, kind, ns, name) "
           "DO UPDATE SET revision = excluded.revision, document = excluded.document"),
      remove_(c, "DELETE FROM objects WHERE grp = ?1 AND kind = ?2 AND ns = ?3 AND name = ?4"),
      count_(c, "SELECT count(*) FROM objects WHERE grp = ?1 AND kind = ?2"),
      oldest_(c,
              "SELECT ns, name, document FROM objects WHERE grp = ?1 AND kind = ?2 "
              "ORDER BY revision LIMIT 1") {}

namespace {
void bind_key(Statement& s, const ObjectKey& key) {
  s.bind(1, key.group).bind(2, key.kind).bind(3, key.ns).bind(4, key.name);
}
}  // namespace

std::optional<StoredText> ObjectTable::get(const ObjectKey& key) {
  const StatementUse use(get_);
  bind_key(get_, key);
  if (!get_.step()) return std::nullopt;
  return StoredText{get_.number(0), std::string(get_.text(1))};
}

void ObjectTable::put(const ObjectKey& key, std::uint64_t revision, std::string_view document) {
  bind_key(put_, key);
  put_.bind(5, revision).bind(6, document).run();
}

void ObjectTable::remove(const ObjectKey& key) {
  bind_key(remove_, key);
  remove_.run();
}

std::uint64_t ObjectTable::count(std::string_view group, std::string_view kind) {
  const StatementUse use(count_);
  count_.bind(1, group).bind(2, kind);
  return count_.step() ? count_.number(0) : 0;
}

std::optional<ObjectTable::Whole> ObjectTable::oldest(std::string_view group,
                                                      std::string_view kind) {
  const StatementUse use(oldest_);
  oldest_.bind(1, group).bind(2, kind);
  if (!oldest_.step()) return std::nullopt;
  return Whole{std::string(oldest_.text(0)), std::string(oldest_.text(1)),
               std::string(oldest_.text(2))};
}

// A statement of its own for each call: admission may list while somebody lists.
void ObjectTable::list(const ObjectKey& key, const Row& row) {
  std::string sql = "SELECT revision, ns, name, document FROM objects WHERE grp = ?1 AND kind = ?2";
  if (!key.ns.empty()) sql += " AND ns = ?3";
  if (!key.name.empty()) sql += " AND name = ?4";
  sql += " ORDER BY ns, name";
  Statement list(connection_, sql.c_str());
  list.bind(1, key.group).bind(2, key.kind);
  if (!key.ns.empty()) list.bind(3, key.ns);
  if (!key.name.empty()) list.bind(4, key.name);
  while (list.step()) row(list.number(0), list.text(1), list.text(2), list.text(3));
}

ChangeLog::ChangeLog(Connection& c)
    : append_(c,
              "INSERT INTO changes (revision, grp, kind, ns, name, op, term, document) "
              "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
      trim_(c, "DELETE FROM changes WHERE revision <= ?1"),
      after_(c,
             "SELECT c.revision, c.grp, c.kind, c.ns, c.name, c.op, "
             "CASE c.op WHEN 1 THEN o.document ELSE c.document END "
             "FROM changes c LEFT JOIN objects o ON c.op = 1 AND o.grp = c.grp AND "
             "o.kind = c.kind AND o.ns = c.ns AND o.name = c.name AND o.revision = c.revision "
             "WHERE c.revision > ?1 AND (c.op = 2 OR o.revision IS NOT NULL) "
             "ORDER BY c.revision") {}

void ChangeLog::append(std::uint64_t revision, const ObjectKey& key, ChangeOp op,
                       std::uint64_t term, std::string_view document) {
  append_.bind(1, revision).bind(2, key.group).bind(3, key.kind).bind(4, key.ns);
  append_.bind(5, key.name).bind(6, static_cast<std::uint64_t>(op)).bind(7, term);
  append_.bind(8, document).run();
}

void ChangeLog::trim(std::uint64_t up_to) { trim_.bind(1, up_to).run(); }

void ChangeLog::after(std::uint64_t revision, const std::function<void(const Change&)>& each) {
  const StatementUse use(after_);
  after_.bind(1, revision);
  while (after_.step()) {
    each({after_.number(0),
          {after_.text(1), after_.text(2), after_.text(3), after_.text(4)},
          static_cast<ChangeOp>(after_.number(5)),
          after_.text(6)});
  }
}

Office::Office(Connection& c)
    : read_(c, "SELECT holder, epoch, stamp, locked FROM office"),
      write_(c, "UPDATE office SET holder = ?1, epoch = ?2, stamp = ?3, locked = ?4") {}

OfficeRow Office::read() {
  const StatementUse use(read_);
  OfficeRow row;
  if (read_.step()) {
    row = {std::string(read_.text(0)), read_.number(1), read_.number(2), read_.number(3) != 0};
  }
  return row;
}

void Office::write(const OfficeRow& row) {
  write_.bind(1, row.holder).bind(2, row.epoch).bind(3, row.stamp);
  write_.bind(4, static_cast<std::uint64_t>(row.locked ? 1 : 0)).run();
}

}  // namespace egw::local
